"""Which of the files that are there were read before, and how far, whatever logrotate did to them since. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent.system.access_logs import LogFile

ABSENT_SECONDS: Final = 86_400.0
"""A file that is not found for so long is gone; a listing may miss one that is being renamed."""


@dataclass(slots=True, kw_only=True)
class Mark:
    """How far one file of a log was counted."""

    inode: int
    offset: int = 0
    """Of the first byte that was not counted, in the plain contents."""
    head_length: int = 0
    """How many of the first bytes `head` is the digest of."""
    head: bytes = b""
    floor: float = 0.0
    """Lines of up to this time (seconds since the epoch) are not counted; 0: all are."""
    size: int = -1
    """On the disk, when all of it was read; -1: not all was."""
    changed_ns: int = 0
    """Its time of change then."""
    absent_since: float = 0.0
    """Seconds since the epoch; 0: it is there."""

    def is_all_of(self, file: LogFile) -> bool:
        """Nothing was written to the file since all of it was read."""
        return (self.inode, self.size, self.changed_ns) == (file.inode, file.size, file.changed_ns)

    def is_begin_of(self, head: bytes) -> bool:
        """Whether a file that begins like this may be the one that was read."""
        return len(head) >= self.head_length and (
            self.head_length == 0 or self.head == digest(head[: self.head_length])
        )

    def note_head(self, head: bytes) -> None:
        """Know the file by as much of its begin as was counted, for that stays as it is."""
        length = min(len(head), self.offset)
        if length > self.head_length:
            self.head_length, self.head = length, digest(head[:length])


def digest(head: bytes) -> bytes:
    """What is kept of a file's begin."""
    return hashlib.sha256(head).digest()


@dataclass(slots=True)
class Known:
    """What is known of a log's files."""

    marks: dict[str, Mark] = field(default_factory=dict)
    """Name of a file to how far it was counted."""
    copies: set[str] = field(default_factory=set)
    """Names of files that begin as one of the others: packed or copied just now, and not yet in its place."""
    moved: list[tuple[int, Mark]] = field(default_factory=list)
    """The former inode and the mark of files that have another one now."""
    absent: list[Mark] = field(default_factory=list)
    """Marks of files that are not there."""

    def newest_rank(self, files: Sequence[LogFile]) -> int | None:
        """Of the known files; None: none is known."""
        return min((file.rank for file in files if file.name in self.marks), default=None)


def match(files: Sequence[LogFile], marks: Sequence[Mark], read_head: Callable[[LogFile], bytes]) -> Known:
    """Find the known ones among the files: by their inode, else (copied, packed) by how they begin."""
    known = Known()
    free = {mark.inode: mark for mark in marks}
    heads: dict[str, bytes] = {}
    for file in files:
        mark = free.get(file.inode)
        if mark is None:
            continue
        if not mark.is_all_of(file):
            if mark.head_length == 0:
                continue  # nothing was read of it: the inode may be another file's by now, and says nothing of its age
            heads[file.name] = read_head(file)
            if not mark.is_begin_of(heads[file.name]):
                continue  # cut off, or another file that was given the same inode
        known.marks[file.name] = free.pop(file.inode)
    for file in files:
        if file.name not in known.marks:
            head = heads[file.name] if file.name in heads else read_head(file)
            _match_head(known, free, file, [mark for mark in marks if mark.head_length and mark.is_begin_of(head)])
    known.absent.extend(free.values())
    return known


def _match_head(known: Known, free: dict[int, Mark], file: LogFile, alike: Sequence[Mark]) -> None:
    mark = next((mark for mark in alike if mark.inode in free), None)
    if mark is not None:
        del free[mark.inode]
        known.marks[file.name] = replace(mark, inode=file.inode, size=-1, absent_since=0.0)
        known.moved.append((mark.inode, known.marks[file.name]))
    elif alike:
        known.copies.add(file.name)
