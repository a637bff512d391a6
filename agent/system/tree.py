"""Removing a directory with all it holds, where a tenant decided what it holds."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from pathlib import Path
from typing import Final

from agent.system import faults
from agent.system.paths import open_child_directory, opened_parent, sync_directory
from shared.errors import UnavailableError

_MOUNT_ID: Final = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)
_Identity = tuple[int, int]

SUBVOLUME_INODE: Final = 256
"""Inode number of every btrfs subvolume's root. Source: btrfs, BTRFS_FIRST_FREE_OBJECTID."""
_SUBVOLUME_GET_FLAGS: Final = 0x80089419
_SUBVOLUME_SET_FLAGS: Final = 0x4008941A
_SUBVOLUME_READ_ONLY: Final = 1 << 1
"""Source: Linux, include/uapi/linux/btrfs.h: BTRFS_IOC_SUBVOL_GETFLAGS, _SETFLAGS, BTRFS_SUBVOL_RDONLY."""


def mount_id(descriptor: int) -> int:
    """Return the kernel's number of the mount that a descriptor is on (field 1 of mountinfo).

    st_dev cannot tell: each btrfs subvolume has its own. Source: proc_pid_fdinfo(5).
    """
    found = _MOUNT_ID.search(Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii"))
    return int(found.group(1)) if found else -1


def remove_tree(path: str) -> None:
    """Remove a directory and everything below it; a missing one is fine, a file or link is unlinked.

    Never follows a symbolic link, never crosses a mount, and needs two descriptors whatever the depth (a tenant may
    nest directories deeper than any recursion limit). Repeating it after a crash finishes the work.

    Raises:
        UnavailableError: Something is mounted inside, or somebody moves directories while they are removed.
        FactError: A symbolic link is in the way to it.
        OSError: It could not be removed.
    """
    try:
        with opened_parent(path) as (parent, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                top = open_child_directory(parent, name)
                try:
                    # The mount of the parent decides: `path` itself must not be a mount point either.
                    empty_directory(top, allowed_mount=mount_id(parent), path=path)
                finally:
                    os.close(top)
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
            faults.at("tree.after_all")
            sync_directory(parent)
    except (FileNotFoundError, NotADirectoryError):
        return


def empty_directory(top: int, *, allowed_mount: int, path: str) -> None:
    """Remove everything in an open directory; see remove_tree. `path` is for messages."""
    current = os.dup(top)
    trail: list[tuple[str, _Identity]] = []
    try:
        while True:
            if mount_id(current) != allowed_mount:
                raise UnavailableError(
                    f"{path} is not removed: something is mounted at {'/'.join([path, *(n for n, _ in trail)])}",
                    hint="Unmount it and try again.",
                )
            make_writable(current)
            name = _unlink_until_directory(current)
            if name is not None:
                trail.append((name, _identity(current)))
                current = _replace(current, open_child_directory(current, name))
            elif trail:
                name, parent = trail.pop()
                current = _replace(current, open_child_directory(current, ".."))
                # A directory that was moved meanwhile has another parent: stop rather than remove what is elsewhere.
                if _identity(current) != parent:
                    raise UnavailableError(f"{path} is not removed: directories move while they are removed")
                os.rmdir(name, dir_fd=current)
            else:
                return
    finally:
        os.close(current)


def _unlink_until_directory(descriptor: int) -> str | None:
    """Unlink entries until a directory comes up; its name, or None when nothing is left."""
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name, dir_fd=descriptor)
            faults.at("tree.after_unlink")
    return None


def make_writable(descriptor: int) -> None:
    """Let a read-only btrfs snapshot that a tenant made be emptied; anything else is left alone."""
    if os.fstat(descriptor).st_ino != SUBVOLUME_INODE:
        return
    try:
        (flags,) = struct.unpack("=Q", fcntl.ioctl(descriptor, _SUBVOLUME_GET_FLAGS, b"\0" * 8))
        if flags & _SUBVOLUME_READ_ONLY:
            fcntl.ioctl(descriptor, _SUBVOLUME_SET_FLAGS, struct.pack("=Q", flags & ~_SUBVOLUME_READ_ONLY))
    except OSError as error:
        # The same inode number on another file system means nothing.
        if error.errno not in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            raise


def _identity(descriptor: int) -> _Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new
