"""Which files of a log are known, whatever logrotate and the filesystem did to their inodes."""

from __future__ import annotations

from agent.core.traffic_marks import Mark, match
from agent.system.access_logs import LogFile

OLD = b"first lines of what was counted"


def log_file(rank: int, inode: int, *, size: int = 40, changed_ns: int = 2) -> LogFile:
    name = f"a.log.{rank}.gz" if rank > 1 else f"a.log.{rank}" if rank else "a.log"
    return LogFile(name=name, rank=rank, inode=inode, size=size, changed_ns=changed_ns, is_packed=rank > 1)


def counted(inode: int) -> Mark:
    mark = Mark(inode=inode, offset=len(OLD), size=40, changed_ns=2)
    mark.note_head(OLD)
    return mark


def test_file_that_was_empty_gives_its_inode_to_another_and_says_nothing_of_its_age() -> None:
    """The empty log was filled, rotated and packed between two rounds; the next log got its inode."""
    empty_then = Mark(inode=5, size=0, changed_ns=1)
    files = [log_file(3, 9), log_file(2, 7), log_file(1, 6), log_file(0, 5, size=0, changed_ns=8)]
    heads = {9: OLD, 7: b"never read", 6: b"never read, either", 5: b""}

    known = match(files, [counted(9), empty_then], lambda file: heads[file.inode])

    assert set(known.marks) == {"a.log.3.gz"}
    # All that are younger than this one count from their first line on.
    assert known.newest_rank(files) == 3


def test_file_that_is_empty_still_is_known_without_being_opened() -> None:
    empty = Mark(inode=5, size=0, changed_ns=1)

    def read_head(file: LogFile) -> bytes:
        raise AssertionError(f"{file.name} was opened")

    assert set(match([log_file(0, 5, size=0, changed_ns=1)], [empty], read_head).marks) == {"a.log"}


def test_file_that_was_counted_is_known_by_its_inode_as_long_as_it_begins_alike() -> None:
    grown, replaced = log_file(0, 5, size=90, changed_ns=3), log_file(1, 6, size=90, changed_ns=3)

    known = match([replaced, grown], [counted(5), counted(6)], lambda file: OLD if file.inode == 5 else b"another")

    assert set(known.marks) == {"a.log"}
    assert [mark.inode for mark in known.absent] == [6]
