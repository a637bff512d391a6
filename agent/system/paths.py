"""Opening paths so that nobody but root decides where they lead.

Root walks each path itself, one component at a time. A symbolic link is followed only while every directory so far can
be written by root alone; from the first directory that somebody else can write (an account's home and everything
below it), a symbolic link is an error. `openat2(RESOLVE_NO_SYMLINKS)` would refuse /var/run as well.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from shared.errors import FactError, InvalidInputError

MAX_LINKS: Final = 40
"""Source: path_resolution(7), Linux: at most 40 symbolic links in one path."""

_WALK_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def require_absolute(path: str) -> str:
    """Return the path if it is absolute and in its plain form (no `..`, no double slash).

    Raises:
        InvalidInputError: It is not.
    """
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//") or "\0" in path:
        raise InvalidInputError(f"{path[:200]!r} is not a plain absolute path", field="path")
    return path


def unsafe_path(path: str, component: str) -> FactError:
    return FactError(
        f"{path} is not touched: {component} is a symbolic link in a directory that others than root can write",
        hint="Look who placed it, and put a directory in its place.",
        code="unsafe_path",
        context={"path": path, "component": component},
    )


@contextlib.contextmanager
def opened_parent(path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds a path; gives its descriptor (O_PATH) and the last component.

    Raises:
        InvalidInputError: Not a plain absolute path, or the root directory.
        FactError: A symbolic link that root alone did not place is in the way.
        OSError: A directory on the way is missing or is none.
    """
    parent, name = os.path.split(require_absolute(path))
    if not name:
        raise InvalidInputError("the root directory is nobody's target", field="path")
    descriptor = _walk(parent)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """Open a directory itself, readable.

    Raises:
        FactError, OSError: As opened_parent.
    """
    walked = _walk(require_absolute(path))
    try:
        descriptor = open_child_directory(walked, ".")
    finally:
        os.close(walked)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_child_directory(parent: int, name: str) -> int:
    """Open a directory by its name in an open one, without following a link. The caller closes it."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def sync_directory(descriptor: int) -> None:
    """Make renames in a directory survive a power cut; the descriptor may be O_PATH."""
    readable = open_child_directory(descriptor, ".")
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def _walk(path: str) -> int:
    """Open a directory (O_PATH), following links only where root alone could place them."""
    pending = [part for part in reversed(path.split("/")) if part]
    current = os.open("/", _WALK_FLAGS | os.O_DIRECTORY)
    is_trusted, links = True, 0
    try:
        while pending:
            component = pending.pop()
            is_trusted = is_trusted and _is_roots_alone(current)
            target = _read_link(component, current)
            if target is None:
                current = _replace(current, os.open(component, _WALK_FLAGS | os.O_DIRECTORY, dir_fd=current))
                continue
            links += 1
            _require_followable(path, component, is_allowed=is_trusted and links <= MAX_LINKS)
            pending.extend(part for part in reversed(target.split("/")) if part)
            if target.startswith("/"):
                current = _replace(current, os.open("/", _WALK_FLAGS | os.O_DIRECTORY))
    except BaseException:  # the descriptor is closed whatever happens, and the error goes on
        os.close(current)
        raise
    return current


def _read_link(component: str, directory: int) -> str | None:
    """Target of a symbolic link, None for anything else. A link put there after this look is refused by O_NOFOLLOW."""
    if not stat.S_ISLNK(os.stat(component, dir_fd=directory, follow_symlinks=False).st_mode):
        return None
    return os.readlink(component, dir_fd=directory)


def _require_followable(path: str, component: str, *, is_allowed: bool) -> None:
    if not is_allowed:
        raise unsafe_path(path, component)


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _is_roots_alone(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
