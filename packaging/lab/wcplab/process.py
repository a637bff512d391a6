"""The one door to other programs: argument lists only, a stated environment, always a time limit."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from wcplab.errors import LabError

CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""What a program gets, so that nothing of the caller's shell leaks into a node or an image."""

TIMEOUT_EXIT_CODE = 124
"""Source: timeout(1), coreutils 9.1: the command timed out."""

STDERR_TAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Completed:
    """How a program ended."""

    argv: tuple[str, ...]
    exit_code: int
    """Negative when a signal ended it; 124 when the time limit did."""
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")

    def check(self, *, hint: str = "") -> Completed:
        """Return itself when the program succeeded.

        Raises:
            LabError: it did not; the message is a line that can be pasted, and the end of its output.
        """
        if self.exit_code == 0:
            return self
        tail = (self.stderr.strip() or self.stdout.strip())[-STDERR_TAIL_CHARACTERS:]
        raise LabError("command_failed", f"`{shlex.join(self.argv)}` ended with {self.exit_code}: {tail}", hint=hint)


def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    environment: Mapping[str, str] = CLEAN_ENVIRONMENT,
) -> Completed:
    """Run a program to its end, in a session of its own so that a time-out ends its children too.

    `stdin` None is /dev/null; `stdout` is an open file for output that is too large to be kept.

    Raises:
        LabError: the program is not installed.
    """
    source = subprocess.PIPE if isinstance(stdin, bytes) else (stdin or subprocess.DEVNULL)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=source,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        hint = "install the packages of packaging/lab/debian-packages.txt"
        raise LabError("program_missing", f"{argv[0]} is not installed", hint=hint) from error
    payload = stdin if isinstance(stdin, bytes) else None
    try:
        out, err = process.communicate(payload, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err = (err or b"") + f"\nended after {timeout_seconds:g} seconds".encode()
        return Completed(tuple(argv), TIMEOUT_EXIT_CODE, out or b"", err)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return Completed(tuple(argv), process.returncode, out or b"", err or b"")
