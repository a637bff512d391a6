"""Unpacks a bundle whose hash was checked. It is ours, and yet nothing in it may lie outside of its folder.

Not tarfile's own filters: Debian 12 has them by a backport whose presence differs between its point releases.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from agent.install.code import BUNDLE_CONTENT
from shared.errors import InvalidInputError

MAX_FILES: Final = 20_000
MAX_UNPACKED_BYTES: Final = 1024 * 1024 * 1024
_EXECUTABLE: Final = 0o100
_CHUNK_BYTES: Final = 1024 * 1024


def unpack_bundle(archive: Path, target: Path) -> None:
    """Unpack into a folder that is made anew.

    Raises:
        InvalidInputError: It is no archive, or holds a link, a device, a path that leads out, or too much.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    count = total = 0
    try:
        with tarfile.open(archive, mode="r|gz") as stream:
            for member in stream:
                count, total = count + 1, total + member.size
                if count > MAX_FILES or total > MAX_UNPACKED_BYTES:
                    raise InvalidInputError("the bundle unpacks to more than any bundle of ours")
                _unpack_member(stream, member, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InvalidInputError(f"the bundle cannot be unpacked: {error}") from error


def _unpack_member(stream: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    path = require_inside(member.name)
    if member.isdir():
        (target / path).mkdir(parents=True, exist_ok=True)
        return
    content = stream.extractfile(member) if member.isreg() else None
    if content is None:
        raise InvalidInputError(f"{member.name[:100]!r} is no plain file")
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if member.mode & _EXECUTABLE else 0o644
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK_BYTES)


def require_inside(name: str) -> PurePosixPath:
    """The member's path, if it stays in the folder and belongs to a bundle.

    Raises:
        InvalidInputError: It does not.
    """
    path = PurePosixPath(name)
    parts = path.parts
    is_plain = bool(parts) and not path.is_absolute() and ".." not in parts and "\0" not in name
    if not is_plain or parts[0] not in (*BUNDLE_CONTENT, "LICENSE"):
        raise InvalidInputError(f"{name[:100]!r} does not belong into a bundle")
    return path
