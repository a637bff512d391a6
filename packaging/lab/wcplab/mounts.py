"""The mount table, read from the kernel, and the few mounts a node needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wcplab.process import run

MOUNT_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Mount:
    """One line of the mount table."""

    mount_point: Path
    fs_type: str
    source: str
    options: tuple[str, ...]
    """Options of the mount and of its file system."""

    @property
    def overlay_layers(self) -> tuple[Path, ...]:
        """The read-only layers of an overlay, topmost first; empty for other file systems."""
        for option in self.options:
            if option.startswith("lowerdir="):
                return tuple(Path(layer) for layer in option.removeprefix("lowerdir=").split(":"))
        return ()


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse /proc/self/mountinfo, oldest mount first.

    Source: proc_pid_mountinfo(5): "36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/sda rw"; the optional
    fields before the dash vary in number, and blanks in paths are written as octal escapes.
    """
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, trailer = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(trailer) < 3:
            continue
        options = tuple(fields[5].split(",")) + tuple(_unescape(trailer[2]).split(","))
        mounts.append(Mount(Path(_unescape(fields[4])), trailer[0], _unescape(trailer[1]), options))
    return mounts


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def read_mounts() -> list[Mount]:
    """Return the mounts this process sees."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))


def find_mount(mount_point: Path) -> Mount | None:
    """Return what is mounted exactly there (the topmost, if several), or None."""
    found = None
    for mount in read_mounts():
        if mount.mount_point == mount_point:
            found = mount
    return found


def mount(fs_type: str, source: str, target: Path, options: Sequence[str]) -> None:
    """Mount a file system.

    Raises:
        LabError: the kernel refused.
    """
    argv = ["mount", "-t", fs_type, "-o", ",".join(options), source, str(target)]
    run(argv, timeout_seconds=MOUNT_TIMEOUT_SECONDS).check()


def unmount_all(directory: Path) -> None:
    """Unmount everything at or below a directory, deepest first. Idempotent.

    A mount that is still busy is detached: it goes away with its last user, and its path is free at once.
    """
    below = [entry.mount_point for entry in read_mounts() if entry.mount_point.is_relative_to(directory)]
    for point in sorted(below, key=lambda path: len(path.parts), reverse=True):
        plain = run(["umount", str(point)], timeout_seconds=MOUNT_TIMEOUT_SECONDS)
        if plain.exit_code != 0:
            run(["umount", "--lazy", str(point)], timeout_seconds=MOUNT_TIMEOUT_SECONDS)


def list_overlay_layers() -> set[Path]:
    """Return every directory that some overlay on this machine uses as a read-only layer."""
    return {layer for entry in read_mounts() for layer in entry.overlay_layers}
