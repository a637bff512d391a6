"""Files and directories: facts about them, and changes that are either there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from typing import Final

from agent.contract.facts import PathFact
from agent.system import faults
from agent.system.paths import open_child_directory, opened_directory, opened_parent, sync_directory
from agent.system.tree import remove_tree
from agent.system.undo import PathKind, PathState
from shared.errors import FactError, UnavailableError

MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_HASHED_BYTES: Final = 16 * 1024 * 1024
"""We write nothing larger; whoever put such a file there changed it, and no hash says so as well as none."""

TEMPORARY_PREFIX: Final = ".wcp360-"
"""Hidden, and without any service's suffix, so that no include pattern picks a half-written file up. The rest is made
of the final name: whoever writes or removes that name after a crash clears the leftover away, too."""

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a fifo that a tenant put there must not hang us."""
_MISSING: Final = (FileNotFoundError, NotADirectoryError)


def owner_id(name: str) -> int:
    """Return a user's id.

    Raises:
        UnavailableError: There is no such user.
    """
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UnavailableError(f"there is no user {name} on this node", code="no_such_user") from None


def group_id(name: str) -> int:
    """Return a group's id.

    Raises:
        UnavailableError: There is no such group.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UnavailableError(f"there is no group {name} on this node", code="no_such_group") from None


def owner_name(uid: int) -> str:
    """Return a user's name, or the id in digits when nobody has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or the id in digits when none has it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what the kernel says about reading a path into a FactError."""
    try:
        yield
    except OSError as error:
        raise FactError(f"{path} cannot be read: {error.strerror}", context={"errno": error.errno}) from error


@contextlib.contextmanager
def changeable(path: str) -> Iterator[None]:
    """Turn what the kernel says about changing a path into an UnavailableError that says what to look at."""
    hints = {
        errno.ENOSPC: "Make room on the node's disk.",
        errno.EDQUOT: "A quota is used up.",
        errno.EROFS: "It is read-only.",
    }
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be changed: {error.strerror}",
            hint=hints.get(error.errno or 0),
            context={"errno": error.errno},
            code="disk_full" if error.errno == errno.ENOSPC else None,
        ) from error


def path_fact(path: str) -> PathFact | None:
    """See Probe.path."""
    with readable(path):
        try:
            with opened_parent(path) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                digest = _hash(parent, name) if stat.S_ISREG(found.st_mode) else None
        except _MISSING:
            return None
    return PathFact(
        kind=_kind(found.st_mode).value,
        owner=owner_name(found.st_uid),
        group=group_name(found.st_gid),
        mode=stat.S_IMODE(found.st_mode),
        content_hash=digest,
    )


def _kind(mode: int) -> PathKind:
    if stat.S_ISREG(mode):
        return PathKind.FILE
    if stat.S_ISDIR(mode):
        return PathKind.DIRECTORY
    return PathKind.SYMLINK if stat.S_ISLNK(mode) else PathKind.OTHER


def _hash(parent: int, name: str) -> str | None:
    content = _read_bytes(parent, name, MAX_HASHED_BYTES + 1)
    return None if content is None or len(content) > MAX_HASHED_BYTES else hashlib.sha256(content).hexdigest()


def _read_bytes(parent: int, name: str, limit: int) -> bytes | None:
    """Content of a regular file, cut at `limit`; None when it is something else."""
    descriptor = os.open(name, _READ_FLAGS, dir_fd=parent)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = bytearray()
        while len(content) < limit and (chunk := stream.read(min(limit - len(content), 1 << 20))):
            content += chunk
    return bytes(content)


def read_bytes(path: str, *, limit: int = MAX_TEXT_BYTES) -> bytes | None:
    """Content of a file, None when there is no such file.

    Raises:
        FactError: It cannot be read, is no regular file, or is larger than `limit` bytes.
    """
    with readable(path):
        try:
            with opened_parent(path) as (parent, name):
                content = _read_bytes(parent, name, limit + 1)
        except _MISSING:
            return None
    if content is None or len(content) > limit:
        raise FactError(f"{path} is no regular file of at most {limit} bytes")
    return content


def list_directory(path: str) -> tuple[str, ...] | None:
    """See Probe.list_directory."""
    with readable(path):
        try:
            with opened_directory(path) as descriptor:
                return tuple(sorted(os.listdir(descriptor)))  # noqa: PTH208 - pathlib cannot list a descriptor
        except _MISSING:
            return None


def write_file(path: str, content: bytes, *, uid: int, gid: int, mode: int) -> None:
    """Put a file in place, whole, with its owner and mode from the first moment it has its name.

    A file that is already so is left alone. Survives a power cut: afterwards it is the old or the new one.

    Raises:
        UnavailableError, FactError: It cannot be written; nothing changed.
    """
    with changeable(path), opened_parent(path) as (parent, name):
        # First of all: what a crash left is cleared away also where nothing is to be written any more.
        temporary = _clear_temporary(parent, name)
        if _is_same(parent, name, content, (uid, gid, mode)):
            return
        faults.at("file.before_temporary")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                faults.at("file.after_temporary")
                stream.write(content)
                stream.flush()
                faults.at("file.after_write")
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            faults.at("file.after_sync")
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            faults.at("file.after_rename")
        except BaseException:  # whatever happens, no temporary file stays; the error goes on
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
        sync_directory(parent)
        faults.at("file.after_directory_sync")


def clear_leftover(path: str) -> None:
    """Remove the temporary file that a crash left beside a path."""
    with changeable(path), contextlib.suppress(*_MISSING), opened_parent(path) as (parent, name):
        _clear_temporary(parent, name)


def _clear_temporary(parent: int, name: str) -> str:
    """Name of the temporary file for a name, after removing what a crash left of it."""
    temporary = f"{TEMPORARY_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)
    return temporary


def _is_same(parent: int, name: str, content: bytes, wanted: tuple[int, int, int]) -> bool:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(content):
            return False
        has_same_rights = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == wanted
        return has_same_rights and _read_bytes(parent, name, len(content) + 1) == content
    except FileNotFoundError:
        return False


def remove_file(path: str) -> None:
    """Unlink a file or symbolic link; a missing one is fine.

    Raises:
        UnavailableError: It is a directory, or cannot be removed.
    """
    with changeable(path):
        try:
            with opened_parent(path) as (parent, name):
                _clear_temporary(parent, name)
                faults.at("unlink.before")
                os.unlink(name, dir_fd=parent)
                faults.at("unlink.after")
                sync_directory(parent)
                faults.at("unlink.after_sync")
        except _MISSING:
            return


def ensure_directory(path: str, *, uid: int, gid: int, mode: int) -> None:
    """Make a directory with this owner and mode; its content is left alone.

    Raises:
        UnavailableError: Its parent is missing, or something else has its name.
    """
    with changeable(path), opened_parent(path) as (parent, name):
        faults.at("directory.before")
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            faults.at("directory.after_make")
            sync_directory(parent)
            faults.at("directory.after_sync")
        descriptor = open_child_directory(parent, name)
        try:
            set_rights(descriptor, uid=uid, gid=gid, mode=mode)
            faults.at("directory.after_rights")
            # Its own, too: the folder above keeps its name, not its owner and mode.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_rights(descriptor: int, *, uid: int, gid: int, mode: int) -> None:
    """Owner first: chown(2) clears set-id bits, so the mode comes last."""
    found = os.fstat(descriptor)
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.fchown(descriptor, uid, gid)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)


def capture_path(path: str) -> tuple[PathState, bytes | None]:
    """What lies at a path now, and a file's content, for undo.

    Raises:
        FactError: It cannot be read, or is a file larger than MAX_HASHED_BYTES.
    """
    content: bytes | None = None
    link: str | None = None
    with readable(path):
        try:
            with opened_parent(path) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                kind = _kind(found.st_mode)
                if kind is PathKind.FILE:
                    content = _read_bytes(parent, name, MAX_HASHED_BYTES + 1)
                elif kind is PathKind.SYMLINK:
                    link = os.readlink(name, dir_fd=parent)
        except _MISSING:
            return PathState(kind=PathKind.ABSENT), None
    if content is not None and len(content) > MAX_HASHED_BYTES:
        raise FactError(f"{path} is larger than {MAX_HASHED_BYTES} bytes: no copy of it could be kept")
    mode = stat.S_IMODE(found.st_mode)
    return PathState(kind=kind, uid=found.st_uid, gid=found.st_gid, mode=mode, link=link), content


def restore_path(path: str, state: PathState, content: bytes | None) -> None:
    """Bring a path back to what capture_path saw.

    A directory that was not there before goes with everything in it: whatever it holds came later.

    Raises:
        UnavailableError, FactError: It cannot be brought back.
    """
    with changeable(path):
        if state.kind is PathKind.ABSENT:
            with contextlib.suppress(*_MISSING), opened_parent(path) as (parent, name):
                _clear_temporary(parent, name)
            remove_tree(path)
        elif state.kind is PathKind.FILE and content is not None:
            write_file(path, content, uid=state.uid, gid=state.gid, mode=state.mode)
        elif state.kind is PathKind.DIRECTORY:
            ensure_directory(path, uid=state.uid, gid=state.gid, mode=state.mode)
        elif state.kind is PathKind.SYMLINK and state.link is not None:
            _restore_link(path, state.link, state.uid, state.gid)


def _restore_link(path: str, link: str, uid: int, gid: int) -> None:
    with opened_parent(path) as (parent, name):
        temporary = _clear_temporary(parent, name)
        os.symlink(link, temporary, dir_fd=parent)
        os.chown(temporary, uid, gid, dir_fd=parent, follow_symlinks=False)
        faults.at("link.after_temporary")
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        faults.at("link.after_rename")
        sync_directory(parent)
