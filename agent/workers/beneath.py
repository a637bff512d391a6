"""Opening files beneath a folder, whatever a tenant puts on the way: no links, no way up, no devices, no waiting.

Source: openat2(2). Where the kernel has no openat2 (before 5.6), or a filter forbids it, each part of the path is
opened by itself without following links, which is the same promise made in small steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from shared.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError

SYS_OPENAT2: Final = 437
"""The same on every architecture. Source: include/uapi/asm-generic/unistd.h."""
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
"""Source: include/uapi/linux/openat2.h."""
_RESOLVE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_NO_OPENAT2: Final = frozenset({errno.ENOSYS, errno.EPERM})
_ATTEMPTS: Final = 8
"""openat2 says EAGAIN when somebody renames folders at the same moment; it asks to be called again."""


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(path: str) -> int:
    """A descriptor of the folder that everything is opened beneath; the path is ours and not a tenant's.

    Raises:
        NotFoundError: There is no such folder (`no_such_file`).
        ForbiddenError: This user may not enter it.
    """
    with _translated(path):
        return os.open(path, _FOLDER_FLAGS)


def open_beneath(root: int, path: str, *, is_openat2_tried: bool = True) -> int:
    """A descriptor of a regular file for reading.

    Raises:
        InvalidInputError: The path is empty, absolute, or has a part that is no name.
        NotFoundError: There is no such file (`no_such_file`).
        ForbiddenError: A link is on the way, or this user may not read it.
        ConflictError: It is no regular file (`not_a_file`).
    """
    parts = require_parts(path)
    with _translated(path):
        descriptor = _openat2(root, path) if is_openat2_tried else None
        if descriptor is None:
            descriptor = _walk(root, parts)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ConflictError(f"{path!r} is no regular file", code="not_a_file")
    return descriptor


def require_parts(path: str) -> list[str]:
    """The names in a relative path.

    Raises:
        InvalidInputError: It is empty, absolute, or has a part that is no name.
    """
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidInputError(f"{path[:200]!r} is not a path below a folder", field="path")
    return parts


def _openat2(root: int, path: str) -> int | None:
    """None where the kernel has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    how = _OpenHow(flags=_READ_FLAGS, mode=0, resolve=_RESOLVE)
    number = 0
    for _ in range(_ATTEMPTS):
        descriptor: int = libc.syscall(
            ctypes.c_long(SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number in _NO_OPENAT2:
            return None
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number))


def _walk(root: int, parts: list[str]) -> int:
    folder = os.dup(root)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], _READ_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path!r}", code="no_such_file") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise ForbiddenError(f"{path!r} leads through a link", code="leads_outside") from error
        if error.errno in (errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
            raise ConflictError(f"{path!r} is no regular file", code="not_a_file") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ForbiddenError(f"the account may not read {path!r}", code="not_readable") from error
        raise ConflictError(f"{path!r} cannot be opened: {error.strerror}", code="not_readable") from error
