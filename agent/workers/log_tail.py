"""The worker behind a log tail: the last lines, then what comes, through rotation and truncation."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from agent.workers.beneath import open_beneath, open_root
from agent.workers.channel import Channel
from agent.workers.lines import LineCutter, RateLimit, encode_record
from shared.errors import FleetError, InvalidInputError, NotFoundError
from shared.protocol.grant import LogMark, LogRecord, LogTailArgs
from shared.protocol.worker import WorkerOrder

READ_BYTES: Final = 64 * 1024
POLL_SECONDS: Final = 0.25
LAST_LINES_BYTES: Final = 4 * 1024 * 1024
"""How far back the last lines are looked for."""
ROTATED_SUFFIX: Final = ".1"
"""Where logrotate puts the file before, and leaves it as it is for a day (delaycompress)."""
HANDOVER_POLLS: Final = 8
"""After a rotation the service may write into the old file until it reopens its logs."""


class LogTail:
    """One tail of one file."""

    def __init__(self, order: WorkerOrder, channel: Channel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._order = order
        self._args = parse_args(order.args)
        self._channel = channel
        self._limit = RateLimit(clock)
        self._is_limited = False
        """Only what is followed: the lines that were asked for by number come whole."""
        self._root = -1
        self._file = -1
        self._inode = 0
        self._offset = 0
        """Of the first byte that is in no record yet."""
        self._cutter = LineCutter()
        self._left_lines: int | None = None
        """How many may still be sent; None: any number."""

    def run(self) -> None:
        """Send what was asked for; returns when it is complete or the grant's bytes are used up.

        Raises:
            ChannelClosedError: The agent has gone.
            FleetError: The file cannot be read.
        """
        with contextlib.ExitStack() as stack:
            self._root = open_root(self._order.root)
            stack.callback(os.close, self._root)
            self._file = self._open_current()
            stack.callback(self._close_file)
            self._inode = os.fstat(self._file).st_ino
            self._channel.say_ready()
            self._begin()
            self._read_to_end()
            if not self._args.is_following:
                self._emit_lines(self._cutter.flush())
            self._tell_lost()
            if self._args.is_following:
                self._follow()

    def _open_current(self) -> int:
        try:
            return open_beneath(self._root, self._order.path)
        except NotFoundError as error:
            raise NotFoundError("there is no such log yet", code="no_log") from error

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    # --- where to begin -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        place = parse_cursor(self._args.cursor) if self._args.cursor else None
        if place is None:
            self._begin_at(find_last_lines(self._file, self._args.lines))
            return
        self._left_lines = None if self._args.is_following else self._args.lines
        inode, offset = place
        if inode == self._inode and offset <= os.fstat(self._file).st_size:
            self._begin_at(offset)
        elif not self._resume_in_rotated(inode, offset):
            self._mark(LogMark.GAP)
            self._begin_at(find_last_lines(self._file, self._args.lines))

    def _begin_at(self, offset: int) -> None:
        self._offset = offset
        os.lseek(self._file, offset, os.SEEK_SET)

    def _resume_in_rotated(self, inode: int, offset: int) -> bool:
        """Read the rest of the file before this one, if the cursor is in it."""
        try:
            before = open_beneath(self._root, self._order.path + ROTATED_SUFFIX)
        except FleetError:
            return False
        status = os.fstat(before)
        if status.st_ino != inode or offset > status.st_size:
            os.close(before)
            return False
        current, self._file = self._file, before
        newer, self._inode = self._inode, inode
        self._begin_at(offset)
        self._read_to_end()
        self._switch(current, newer)
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read_to_end(self) -> bool:
        """Send everything up to the present end; whether there was anything."""
        has_read = False
        while not self._is_done and (data := os.read(self._file, READ_BYTES)):
            has_read = True
            self._emit_lines(self._cutter.feed(data))
        return has_read

    @property
    def _is_done(self) -> bool:
        return self._channel.is_exhausted or self._left_lines == 0

    def _emit_lines(self, lines: Iterable[tuple[str, bool, int]]) -> None:
        waiting = bytearray()
        for text, is_cut, size_bytes in lines:
            if self._is_done:
                break
            self._offset += size_bytes
            if self._is_limited and not self._limit.admits(size_bytes):
                continue
            self._tell_lost(waiting)
            waiting += encode_record(LogRecord(cursor=self._cursor, line=text, is_cut=is_cut))
            if self._left_lines is not None:
                self._left_lines -= 1
        if waiting:
            self._channel.send(bytes(waiting))

    @property
    def _cursor(self) -> str:
        return f"{self._inode}:{self._offset}"

    def _tell_lost(self, waiting: bytearray | None = None) -> None:
        mark = self._limit.take_mark(self._cursor)
        if mark is None:
            return
        if waiting is None:
            self._channel.send(encode_record(mark))
        else:
            waiting += encode_record(mark)

    def _mark(self, mark: LogMark) -> None:
        self._channel.send(encode_record(LogRecord(cursor=self._cursor, mark=mark)))

    # --- following ----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        quiet_polls = 0
        self._is_limited = True
        while not self._is_done:
            self._channel.pause(POLL_SECONDS)
            if os.fstat(self._file).st_size < self._offset + self._cutter.pending_bytes:
                self._cutter = LineCutter()
                self._begin_at(0)
                self._mark(LogMark.TRUNCATED)
            has_read = self._read_to_end()
            self._tell_lost()
            newer = self._find_newer()
            quiet_polls = quiet_polls + 1 if newer is not None and not has_read else 0
            if newer is None:
                continue
            if quiet_polls >= HANDOVER_POLLS or os.fstat(newer).st_size > 0:
                self._read_to_end()
                self._switch(newer, os.fstat(newer).st_ino)
                quiet_polls = 0
            else:
                os.close(newer)

    def _find_newer(self) -> int | None:
        """The file that now has the name, if it is another one."""
        try:
            found = open_beneath(self._root, self._order.path)
        except FleetError:
            return None  # between the rename and the new file, or for good: what we have stays open
        if os.fstat(found).st_ino == self._inode:
            os.close(found)
            return None
        return found

    def _switch(self, newer: int, inode: int) -> None:
        self._emit_lines(self._cutter.flush())
        self._close_file()
        self._file, self._inode = newer, inode
        self._cutter = LineCutter()
        self._begin_at(0)
        self._mark(LogMark.ROTATED)
        self._read_to_end()


def parse_args(raw: bytes) -> LogTailArgs:
    """What is wanted.

    Raises:
        InvalidInputError: It is not the kind's Struct.
    """
    try:
        return msgspec.msgpack.decode(raw, type=LogTailArgs)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a log tail: {error}", field="args") from error


def parse_cursor(raw: str) -> tuple[int, int]:
    """Inode and offset.

    Raises:
        InvalidInputError: It is no cursor of ours.
    """
    inode, colon, offset = raw.partition(":")
    if not (colon and inode.isascii() and inode.isdigit() and offset.isascii() and offset.isdigit()):
        raise InvalidInputError("this is no cursor of a log", field="cursor")
    if max(len(inode), len(offset)) > 20:
        raise InvalidInputError("this is no cursor of a log", field="cursor")
    return int(inode), int(offset)


def find_last_lines(file: int, count: int) -> int:
    """The offset where the last `count` lines begin; looks no further back than LAST_LINES_BYTES."""
    size = os.fstat(file).st_size
    if count <= 0:
        return size
    limit = max(0, size - LAST_LINES_BYTES)
    position = size
    # The break that ends the last line separates nothing.
    wanted = count + (1 if size and os.pread(file, 1, size - 1) == b"\n" else 0)
    while position > limit:
        start = max(limit, position - READ_BYTES)
        block = os.pread(file, position - start, start)
        found = block.count(b"\n")
        if found >= wanted:
            return start + _nth_from_end(block, wanted) + 1
        wanted -= found
        position = start
    return limit


def _nth_from_end(block: bytes, number: int) -> int:
    """Where the line break of this number, counted from the end, is."""
    place = len(block)
    for _ in range(number):
        place = block.rfind(b"\n", 0, place)
    return place
