"""The worker of a log tail over real files: rotation, truncation, resuming, limits."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.workers.channel import Channel
from agent.workers.lines import BURST_BYTES, MAX_LINE_BYTES
from agent.workers.main import serve
from shared.protocol.grant import KIND_LOG_TAIL, LogMark, LogRecord, LogTailArgs
from shared.protocol.worker import (
    LENGTH_BYTES,
    WorkerData,
    WorkerEnd,
    WorkerOrder,
    WorkerReady,
    decode_worker,
    decode_worker_length,
)

NAME = "example.com.access.log"


class Tail:
    """A worker in a thread, read like the agent does."""

    def __init__(self, root: Path, *, max_bytes: int = 2**30, **args: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self._socket = ours
        self._file = ours.makefile("rb")
        self._begun = b""
        order = WorkerOrder(
            kind=KIND_LOG_TAIL, account="a", uid=os.getuid(), root=str(root), path=NAME,
            args=msgspec.msgpack.encode(LogTailArgs(**args)), max_bytes=max_bytes, peer_uids=(),
        )  # fmt: skip

        def run() -> None:
            with theirs:
                serve(order, Channel(theirs, max_bytes))

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def frame(self) -> Any:
        length = decode_worker_length(self._file.read(LENGTH_BYTES))
        return decode_worker(self._file.read(length))

    def records(self) -> Iterator[LogRecord]:
        """Until the worker ends."""
        while True:
            match self.frame():
                case WorkerReady():
                    continue
                case WorkerData(data=data):
                    *lines, self._begun = (self._begun + data).split(b"\n")
                    yield from (msgspec.json.decode(line, type=LogRecord) for line in lines)
                case WorkerEnd() as end:
                    self.end = end
                    return

    def all(self) -> list[LogRecord]:
        found = list(self.records())
        self.close()
        return found

    def until(self, text: str) -> list[LogRecord]:
        """Records up to the line with this text."""
        found = []
        for record in self.records():
            found.append(record)
            if record.line == text:
                return found
        raise AssertionError(f"ended without {text!r}: {found}")

    def close(self) -> None:
        self._file.close()
        self._socket.close()
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


def texts(records: list[LogRecord]) -> list[str | None]:
    return [record.line for record in records if record.mark is None]


def marks(records: list[LogRecord]) -> list[LogMark]:
    return [record.mark for record in records if record.mark is not None]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_text(lines(1, 10))
    return path


@pytest.fixture
def followed(log: Path) -> Iterator[Tail]:
    tail = Tail(log.parent, lines=1, is_following=True)
    tail.until("line 10")
    yield tail
    tail.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11, 1000])
def test_tail_when_asked_for_lines_sends_exactly_the_last_ones(log: Path, count: int) -> None:
    tail = Tail(log.parent, lines=count)

    assert texts(tail.all()) == [f"line {number}" for number in range(max(1, 11 - count), 11)]
    assert tail.end == WorkerEnd()


def test_tail_when_the_file_is_larger_than_one_block_finds_the_last_lines(log: Path) -> None:
    log.write_text(lines(1, 200_000))

    assert texts(Tail(log.parent, lines=10_000).all()) == [f"line {n}" for n in range(190_001, 200_001)]


def test_tail_when_the_last_line_has_no_end_sends_it_as_it_is(log: Path) -> None:
    append(log, "unfinished")

    assert texts(Tail(log.parent, lines=2).all()) == ["line 10", "unfinished"]


def test_tail_of_any_cursor_goes_on_right_after_it(log: Path) -> None:
    everything = Tail(log.parent, lines=10).all()

    for seen, record in enumerate(everything, start=1):
        assert Tail(log.parent, cursor=record.cursor).all() == everything[seen:]


def test_tail_when_a_line_is_too_long_cuts_it_and_goes_on(log: Path) -> None:
    log.write_text("x" * 100_000 + "\nnext\n")

    long, following = Tail(log.parent, lines=2).all()

    assert (len(long.line or ""), long.is_cut) == (MAX_LINE_BYTES, True)
    assert (following.line, following.is_cut) == ("next", False)


def test_tail_when_bytes_are_no_text_replaces_them(log: Path) -> None:
    log.write_bytes(b"\xff\x00\x1b[31m\r\n")

    (record,) = Tail(log.parent, lines=1).all()

    assert record.line == "\ufffd\x00\x1b[31m"


def test_tail_when_the_grant_allows_less_ends_there(log: Path) -> None:
    tail = Tail(log.parent, lines=10, max_bytes=100)

    assert len(texts(tail.all())) < 10
    assert tail.end == WorkerEnd()


def test_tail_when_there_is_no_log_says_so(tmp_path: Path) -> None:
    tail = Tail(tmp_path)

    assert tail.all() == []
    assert tail.end.code == "no_log"


def test_follow_when_lines_come_in_pieces_sends_whole_lines(followed: Tail, log: Path) -> None:
    append(log, "line 1")
    append(log, "1\nline 12\n")

    assert texts(followed.until("line 12")) == ["line 11", "line 12"]


def test_follow_when_the_file_is_rotated_sends_the_rest_of_the_old_one_first(followed: Tail, log: Path) -> None:
    old = log.rename(log.parent / f"{NAME}.1")
    append(old, "line 11\n")
    log.write_text("line 12\n")

    found = followed.until("line 12")

    assert [record.line or record.mark for record in found] == ["line 11", LogMark.ROTATED, "line 12"]


def test_follow_when_the_file_is_emptied_starts_at_its_beginning(followed: Tail, log: Path) -> None:
    log.write_text("new\n")

    found = followed.until("new")

    assert [record.line or record.mark for record in found] == [LogMark.TRUNCATED, "new"]


def test_follow_when_the_file_is_replaced_by_a_link_stays_with_what_it_has(followed: Tail, log: Path) -> None:
    secret = log.parent / "secret"
    secret.write_text("not yours\n")
    old = log.rename(log.parent / "aside")
    log.symlink_to(secret)
    append(old, "line 11\n")

    assert texts(followed.until("line 11")) == ["line 11"]


def test_follow_when_lines_come_too_fast_leaves_some_out_and_counts_them(followed: Tail, log: Path) -> None:
    line = "y" * 999
    count = 8 * BURST_BYTES // 1000
    append(log, f"{line}\n" * count)
    append(log, "x" * (MAX_LINE_BYTES + 100) + "\n")

    seen, lost = 0, 0
    for record in followed.records():
        lost += record.lost
        seen += record.line is not None
        if seen + lost == count + 1:
            break

    assert lost > 0
    assert seen < count


def test_resume_when_the_file_was_rotated_meanwhile_reads_both(log: Path) -> None:
    cursor = Tail(log.parent, lines=1).all()[-1].cursor
    append(log, lines(11, 12))
    log.rename(log.parent / f"{NAME}.1")
    log.write_text(lines(13, 14))

    found = Tail(log.parent, cursor=cursor).all()

    assert texts(found) == ["line 11", "line 12", "line 13", "line 14"]
    assert marks(found) == [LogMark.ROTATED]
    assert texts(Tail(log.parent, cursor=found[0].cursor).all()) == ["line 12", "line 13", "line 14"]


def test_resume_when_its_file_is_gone_says_that_something_is_missing(log: Path) -> None:
    cursor = Tail(log.parent, lines=1).all()[-1].cursor
    log.rename(log.parent / f"{NAME}.2.gz")
    log.write_text(lines(20, 21))

    found = Tail(log.parent, cursor=cursor, lines=1).all()

    assert (marks(found), texts(found)) == ([LogMark.GAP], ["line 21"])
