"""Move this process into cgroups, then become another program; or stay beside it and start it again when it reboots.

A program of its own, because a parent with threads cannot safely run code between fork and exec, and because a process
that is moved after its start would have started outside its limits.

Usage: launch.py [--keeper DIRECTORY]... [--cgroup DIRECTORY]... -- PROGRAM [ARGUMENT]...
With --keeper this process stays, in those cgroups, and the program runs as its child.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FAILED_EXIT_CODE = 125
"""Source: env(1), coreutils 9.1: the wrapper itself failed, not the program."""
REBOOT_EXIT_CODE = 133
"""Source: systemd-nspawn@.service, RestartForceExitStatus=133: with --keep-unit, nspawn ends with it when the system
inside reboots, and leaves starting again to whoever keeps it."""


def main(arguments: list[str]) -> int:
    """Run the program of the command line; returns only when that failed, or when a kept program has ended."""
    split = arguments.index("--")
    options, program = arguments[:split], arguments[split + 1 :]
    pairs = list(zip(options[::2], options[1::2], strict=True))
    keeper = [directory for option, directory in pairs if option == "--keeper"]
    cgroups = [directory for option, directory in pairs if option == "--cgroup"]
    try:
        if not keeper:
            become(cgroups, program)
        join(keeper)
        return keep(cgroups, program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr)
    return FAILED_EXIT_CODE


def join(directories: list[str]) -> None:
    """Move this process into cgroups."""
    for directory in directories:
        Path(directory, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def become(cgroups: list[str], program: list[str]) -> None:
    """Join the cgroups and replace this process."""
    join(cgroups)
    os.execvp(program[0], program)  # noqa: S606 - an argument list; a shell is what we do not want


def keep(cgroups: list[str], program: list[str]) -> int:
    """Run the program in the cgroups, again each time it asks for it, and return its last exit code."""
    code = REBOOT_EXIT_CODE
    while code == REBOOT_EXIT_CODE:
        child = os.fork()
        if child == 0:
            try:
                become(cgroups, program)
            except OSError as error:
                print(f"cannot start {program[0]}: {error}", file=sys.stderr)
            os._exit(FAILED_EXIT_CODE)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
