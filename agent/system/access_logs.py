"""Access logs of accounts' sites as files: which there are, how old each is, and their bytes in pieces. Reads only.

The folder of an account belongs to root (module web), so names in it are nginx's and logrotate's; links are not
followed all the same.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PIECE_BYTES: Final = 1024 * 1024
HEAD_BYTES_MAX: Final = 512
"""So much of a file's begin tells it from others: its first lines have addresses, times and lengths."""
Stream = io.FileIO | gzip.GzipFile
_NAME: Final = re.compile(
    r"(?P<log>.+\.access\.log)(?:\.(?P<number>\d{1,4})|-(?P<date>\d{8})(?:-\d{1,12})?)?(?P<gz>\.gz)?"
)
_DATES_END: Final = 1_000_000_000
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """One file of a log, current or rotated."""

    name: str
    rank: int
    """0: the one that is written; the larger, the older."""
    inode: int
    size: int
    """On the disk, in bytes."""
    changed_ns: int
    """Time of the last change, in nanoseconds since the epoch."""
    is_packed: bool


@contextmanager
def opened_folder(path: str) -> Iterator[int | None]:
    """A descriptor of the folder; None when there is none."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def list_logs(folder: int) -> dict[str, list[LogFile]]:
    """Name of each access log to its files, the oldest first."""
    logs: dict[str, list[LogFile]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                continue
            file = LogFile(
                name=entry.name,
                rank=_rank_of(match),
                inode=status.st_ino,
                size=status.st_size,
                changed_ns=status.st_mtime_ns,
                is_packed=match["gz"] is not None,
            )
            logs.setdefault(match["log"], []).append(file)
    for files in logs.values():
        files.sort(key=lambda file: (-file.rank, file.is_packed))
    return logs


def _rank_of(match: re.Match[str]) -> int:
    """Source: logrotate(8), `rotate` (.1 is the newest) and `dateext` (-YYYYMMDD, the largest is the newest)."""
    if match["number"] is not None:
        return int(match["number"])
    if match["date"] is not None:
        return _DATES_END - int(match["date"])
    return 0


@contextmanager
def opened_log(folder: int, file: LogFile) -> Iterator[Stream | None]:
    """The file's plain contents; None when it is another one by now, or gone."""
    try:
        descriptor = os.open(file.name, _FLAGS, dir_fd=folder)
    except OSError:
        yield None
        return
    with io.FileIO(descriptor) as raw:
        status = os.fstat(descriptor)
        if status.st_ino != file.inode or not stat.S_ISREG(status.st_mode):
            yield None
        elif file.is_packed:
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield unpacked
        else:
            yield raw


def read_up_to(stream: Stream, count: int) -> bytes:
    """So many bytes, or what there is. A packed file that is damaged or half written ends where it breaks off."""
    parts: list[bytes] = []
    while count > 0:
        try:
            data = stream.read(min(count, PIECE_BYTES))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            break
        if not data:
            break
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def skip(stream: Stream, file: LogFile, offset: int) -> bool:
    """Go to an offset of the plain contents; False when there are fewer bytes."""
    if not file.is_packed:
        stream.seek(offset)
        return offset <= file.size
    stream.seek(0)
    while offset > 0:
        data = read_up_to(stream, min(offset, PIECE_BYTES))
        if not data:
            return False
        offset -= len(data)
    return True
