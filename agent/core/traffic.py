"""Bytes that the sites of accounts served and took, by calendar month (UTC): counted once, from their access logs.

Invariant: a file's mark and what was added up to it are written together, so nothing is counted twice and nothing that
is still in a log is missed, whatever ends this process. A file is known by its inode and its first bytes: it may be
renamed, copied or packed between two rounds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from agent.core.traffic_marks import ABSENT_SECONDS, Known, Mark, match
from agent.core.traffic_store import FILE_NAME, TrafficStore
from agent.system.access_lines import LineCounter, cut_lines
from agent.system.access_logs import (
    HEAD_BYTES_MAX,
    PIECE_BYTES,
    LogFile,
    Stream,
    list_logs,
    opened_folder,
    opened_log,
    read_up_to,
    skip,
)
from shared.protocol.local import TrafficUse
from shared.specs.site import SITE_LOGS_DIR

ROUND_SECONDS: Final = 30.0
"""A round that takes longer ends; the next one begins with the accounts that had to wait."""
COMMIT_SECONDS: Final = 1.0
"""So often, at least, is what was counted written: a node with thousands of sites would else write all the time."""

_log = logging.getLogger(__name__)


class TrafficTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Where and for how long is counted."""

    state_dir: Path
    logs_dir: Path = Path(SITE_LOGS_DIR)
    round_seconds: float = ROUND_SECONDS
    piece_bytes: int = PIECE_BYTES
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""


def count_traffic(terms: TrafficTerms, accounts: Iterable[tuple[str, int]]) -> tuple[TrafficUse, ...]:
    """One round over the logs of these accounts (name and uid); what was counted by now of this month and the last.

    Blocks; for a thread.

    Raises:
        OSError, sqlite3.Error: Nothing can be kept; the next round counts what this one did not.
    """
    now = terms.now()
    store = TrafficStore(terms.state_dir / FILE_NAME, now)
    try:
        store.keep_accounts(accounts)
        return _Round(terms, store, now).run()
    finally:
        store.close()


class _Log(msgspec.Struct, frozen=True):
    """One log of an account, and its folder's descriptor."""

    folder: int
    account: str
    name: str

    def read_head(self, file: LogFile) -> bytes:
        """How the file begins; empty when it is gone."""
        with opened_log(self.folder, file) as stream:
            return b"" if stream is None else read_up_to(stream, HEAD_BYTES_MAX)


class _Round:
    """One pass over all logs, as far as its time allows."""

    def __init__(self, terms: TrafficTerms, store: TrafficStore, now: float) -> None:
        self._terms = terms
        self._store = store
        self._now = now
        self._lines = LineCounter(now)
        self._until = time.monotonic() + terms.round_seconds
        self._since = store.since
        self._has_counted = False

    def run(self) -> tuple[TrafficUse, ...]:
        waiting = self._store.list_accounts()
        while waiting and not self._is_over:
            with self._store.transaction():
                commit_at = time.monotonic() + COMMIT_SECONDS
                while waiting and time.monotonic() < commit_at and not self._is_over:
                    if self._count_account(waiting[0], min(commit_at, self._until)):
                        self._store.note_counted(waiting.pop(0), self._now)
        with self._store.transaction():
            self._store.forget_months(self._lines.months)
        return tuple(
            TrafficUse(account=account, source=source, month=month, traffic_bytes=amount)
            for account, source, month, amount in self._store.list_totals()
        )

    @property
    def _is_over(self) -> bool:
        """Even a round without time counts a piece, so a slow node goes on as well."""
        return self._has_counted and time.monotonic() >= self._until

    def _count_account(self, account: str, until: float) -> bool:
        """Whether all of it was counted."""
        with opened_folder(f"{self._terms.logs_dir}/{account}") as folder:
            if folder is None:
                return True
            try:
                for log, files in list_logs(folder).items():
                    if not self._count_log(_Log(folder, account, log), files, until):
                        return False
            except OSError as error:
                _log.warning("the logs of %s cannot be counted: %s", account, error)
        return True

    def _count_log(self, log: _Log, files: list[LogFile], until: float) -> bool:
        """Whether all of it was counted; at least a piece of it was, if there is something new."""
        last = self._store.read_until(log.account, log.name)
        known = match(files, self._store.read_marks(log.account, log.name), log.read_head)
        self._note_moves(log, known)
        if last is None:
            self._store.note_until(log.account, log.name, self._since)
        newest = known.newest_rank(files)
        for file in files:
            if file.name in known.copies:
                continue
            mark = known.marks.get(file.name)
            if mark is None:
                mark = Mark(inode=file.inode, floor=self._floor_of(file, last, newest))
            elif mark.is_all_of(file) and not mark.absent_since:
                continue
            if not self._count_file(log, file, mark, until):
                return False
        return True

    def _note_moves(self, log: _Log, known: Known) -> None:
        for inode, _ in known.moved:
            self._store.drop_mark(log.account, log.name, inode)
        for _, mark in known.moved:
            self._store.put_mark(log.account, log.name, mark)
        for mark in known.absent:
            if not mark.absent_since:
                mark.absent_since = self._now
                self._store.put_mark(log.account, log.name, mark)
            elif self._now - mark.absent_since > ABSENT_SECONDS:
                self._store.drop_mark(log.account, log.name, mark.inode)

    def _floor_of(self, file: LogFile, last: float | None, newest: int | None) -> float:
        """From which time on the lines of a file count that nobody has read before.

        All do in a file that was begun after those that are known. Of any other, and when none of the known ones is
        there any more, only what is later than everything that was counted.
        """
        if last is None:
            return self._since
        return 0.0 if newest is not None and file.rank < newest else last

    def _count_file(self, log: _Log, file: LogFile, mark: Mark, until: float) -> bool:
        """Whether it was read to its end."""
        with opened_log(log.folder, file) as stream:
            if stream is None:
                return True  # renamed or packed since it was listed: the next round finds it
            head = read_up_to(stream, HEAD_BYTES_MAX)
            is_complete = self._read_on(log, (stream, file), mark, until)
        mark.note_head(head)
        mark.absent_since = 0.0
        mark.size, mark.changed_ns = (file.size, file.changed_ns) if is_complete else (-1, 0)
        if is_complete:
            mark.floor = 0.0  # it is about what was there before anybody looked
        self._store.put_mark(log.account, log.name, mark)
        return is_complete

    def _read_on(self, log: _Log, opened: tuple[Stream, LogFile], mark: Mark, until: float) -> bool:
        stream, file = opened
        if not skip(stream, file, mark.offset):
            return True  # cut off behind its first lines: there is nothing that was not counted
        rest = b""
        while True:
            data = read_up_to(stream, self._terms.piece_bytes)
            is_full = len(data) == self._terms.piece_bytes
            rest += data
            end = cut_lines(rest, is_full=is_full)
            self._add(log, rest[:end], mark.floor)
            mark.offset, rest = mark.offset + end, rest[end:]
            if not is_full:
                return True
            if time.monotonic() >= until:
                return False

    def _add(self, log: _Log, lines: bytes, floor: float) -> None:
        tally = self._lines.count(lines, floor)
        for month, amount in tally.bytes_of_month.items():
            self._store.add(log.account, month, amount)
        if tally.until:
            self._store.note_until(log.account, log.name, tally.until)
        self._has_counted = True
