"""Whether this machine can boot nodes: each need is tried, not guessed from versions."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wcplab import cgroups, locks, mounts
from wcplab.errors import CannotBootError, LabError
from wcplab.paths import LOCK_DIRECTORY, state_directory
from wcplab.process import run

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "apt-ftparchive": "apt-utils",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mkfs.btrfs": "btrfs-progs",
    "tar": "tar",
}
"""Program mapped to the Debian package that has it."""
TRIAL_TIMEOUT_SECONDS = 20.0
TRIAL_BRIDGE = "wcplabtry"


@dataclass(frozen=True)
class Finding:
    """The answer to one question about this machine."""

    name: str
    is_ok: bool
    detail: str


def check_machine() -> list[Finding]:
    """Return what was found, in the order in which a reader should mend it."""
    if os.geteuid() != 0:
        return [Finding("root", is_ok=False, detail="nodes can be booted by root only")]
    findings = [Finding("root", is_ok=True, detail="")]
    findings += [_check_program(program, package) for program, package in PROGRAMS.items()]
    trials: dict[str, Callable[[], None]] = {
        "cgroup": _try_cgroup,
        "bridge": _try_bridge,
        "overlay": _try_overlay,
        "btrfs": _try_btrfs,
    }
    return findings + [_attempt(name, trial) for name, trial in trials.items()]


def require_machine() -> None:
    """Refuse early what would fail half-way; cheap, so every command asks it.

    Raises:
        CannotBootError: not root, or a program is missing.
    """
    if os.geteuid() != 0:
        raise CannotBootError("not_root", "nodes can be booted by root only", hint="run it as root")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        hint = "install the packages of packaging/lab/debian-packages.txt"
        raise CannotBootError("programs_missing", f"not installed: {', '.join(missing)}", hint=hint)


def _check_program(program: str, package: str) -> Finding:
    if shutil.which(program):
        return Finding(program, is_ok=True, detail="")
    return Finding(program, is_ok=False, detail=f"apt-get install {package}")


def _attempt(name: str, trial: Callable[[], None]) -> Finding:
    try:
        trial()
    except (LabError, OSError) as error:
        return Finding(name, is_ok=False, detail=str(error))
    return Finding(name, is_ok=True, detail="")


def _try_cgroup() -> None:
    relative = cgroups.node_path("check", str(os.getpid()))
    cgroups.create(relative)
    cgroups.kill(relative)
    cgroups.remove_group("check")


def _try_bridge() -> None:
    # Two checks at once would see each other's bridge.
    with locks.locked(LOCK_DIRECTORY / "check.lock", timeout_seconds=TRIAL_TIMEOUT_SECONDS):
        run(["ip", "link", "add", TRIAL_BRIDGE, "type", "bridge"], timeout_seconds=TRIAL_TIMEOUT_SECONDS).check()
        run(["ip", "link", "delete", "dev", TRIAL_BRIDGE], timeout_seconds=TRIAL_TIMEOUT_SECONDS).check()


def _try_overlay() -> None:
    state_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".check-", dir=state_directory()) as name:
        directory = Path(name)
        for part in ("lower", "upper", "work", "root"):
            (directory / part).mkdir()
        options = [
            f"lowerdir={directory / 'lower'}",
            f"upperdir={directory / 'upper'}",
            f"workdir={directory / 'work'}",
        ]
        mounts.mount("overlay", "wcp-lab", directory / "root", options)
        mounts.unmount_all(directory)


def _try_btrfs() -> None:
    # The module may be there and not loaded; where it is built in, or modprobe is missing, the list below tells.
    if shutil.which("modprobe"):
        run(["modprobe", "--quiet", "btrfs"], timeout_seconds=TRIAL_TIMEOUT_SECONDS)
        run(["modprobe", "--quiet", "loop"], timeout_seconds=TRIAL_TIMEOUT_SECONDS)
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "btrfs" not in known or not Path("/dev/loop-control").exists():
        raise LabError("no_btrfs", "no btrfs or no loop devices: only `--storage plain` works here")
