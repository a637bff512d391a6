"""The journal's file: SQLite in WAL mode with full synchronisation, checked when it is opened.

One connection, one thread. `durable()` is on disk when it returns; `soft()` is written with the next durable one, for
marks whose loss only means that something idempotent happens again. A full disk costs the reserve (agent.core.reserve),
and what was being written is written again; a file that proves to be damaged ends the process, so that the next one
sets it aside.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from agent.core import faults
from agent.core.reserve import Room
from shared.errors import FleetError, UnavailableError

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
"""Readable by the release before and the release after; a change adds columns and tables only."""

_CORRUPT: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_FULL: Final = "SQLITE_FULL"
"""Source: https://www.sqlite.org/rescode.html"""
DISK_FULL_CODE: Final = "disk_full"

_log = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, subject TEXT NOT NULL, generation INTEGER NOT NULL,
    is_apply INTEGER NOT NULL, state TEXT NOT NULL, payload BLOB NOT NULL, expires_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, is_cancel_requested INTEGER NOT NULL DEFAULT 0,
    result BLOB, is_stored INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE transactions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, job_id TEXT, state TEXT NOT NULL, draft BLOB
);
CREATE TABLE steps (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_number INTEGER NOT NULL REFERENCES transactions (number) ON DELETE CASCADE,
    resource TEXT NOT NULL, action BLOB NOT NULL, undo BLOB NOT NULL, state TEXT NOT NULL
);
CREATE INDEX steps_by_transaction ON steps (transaction_number, number);
CREATE TABLE applied (
    subject TEXT PRIMARY KEY, generation INTEGER NOT NULL, digest TEXT NOT NULL, presence TEXT NOT NULL,
    drift_policy TEXT NOT NULL, seq INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE holdings (
    subject TEXT NOT NULL, key TEXT NOT NULL, holding BLOB NOT NULL, uid INTEGER, PRIMARY KEY (subject, key)
) WITHOUT ROWID;
CREATE INDEX holdings_by_key ON holdings (key);
"""


class JournalBrokenError(FleetError):
    """The journal cannot be read or written any more: this process must not go on."""

    code = "journal_broken"


class Database:
    """An open journal file; `None` as path keeps it in memory (simulated agents)."""

    def __init__(self, path: Path | None, room: Room | None = None) -> None:
        self.room = room or Room(None)
        self.room.release_if_low()
        self.set_aside: Path | None = None
        """Where a corrupt journal was moved to when this one was opened."""
        connection = _open(path)
        if connection is None and path is not None:
            self.set_aside = _set_aside(path)
            connection = _open(path)
        if connection is None:
            raise UnavailableError(f"the journal {path} cannot be opened", hint="Look at the disk.")
        self._path = path
        self._connection = connection
        self._depth = 0
        self._script: list[tuple[str, tuple[Any, ...]]] = []
        """Statements since BEGIN: a full disk takes them all back, and they are run again once there is room."""

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with _translated():
            found: list[tuple[Any, ...]] = self._connection.execute(sql, values).fetchall()
        return found

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        with _translated():
            found: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        return found

    def execute(self, sql: str, *values: Any) -> int:
        """Run one writing statement inside `durable()` or `soft()`; returns the new row's number.

        Raises:
            UnavailableError: The disk is full (`disk_full`), the reserve is used up, and all of it is taken back.
            JournalBrokenError: The file is damaged, or its disk is.
        """
        self._script.append((sql, values))
        with _translated():
            return self._with_room(lambda: self._connection.execute(sql, values).lastrowid or 0, is_last_replayed=True)

    @contextmanager
    def durable(self) -> Iterator[None]:
        """All or nothing, and on disk at the end. May be nested; the outermost one counts."""
        self._begin()
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            self._script.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            faults.at("database.before_commit")
            self._commit()
            faults.at("database.after_commit")

    @contextmanager
    def soft(self) -> Iterator[None]:
        """Visible at once, on disk with the next durable write."""
        self._begin()
        yield
        faults.at("database.after_soft")

    def declare_broken(self) -> None:
        """Close it and set it aside, for what is stored makes no sense; the next process begins anew."""
        self._connection.close()
        if self._path is not None:
            self.set_aside = _set_aside(self._path)

    def close(self) -> None:
        """Write what is pending and close."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self._connection.close()
        except sqlite3.Error as error:
            # The last write is a mark that may be lost, and the process ends anyway.
            _log.warning("the journal could not be closed in order: %s", error)

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._script.clear()
            with _translated():
                self._connection.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        with _translated():
            try:
                self._with_room(lambda: self._connection.execute("COMMIT"), is_last_replayed=False)
            finally:
                self._script.clear()

    def _with_room(self, write: Callable[[], T], *, is_last_replayed: bool) -> T:
        """Write; if the disk is full, give the reserve up and do all of the transaction again.

        SQLite has taken the transaction back by then, the numbers of new rows included, so they are the same again.
        Source: https://www.sqlite.org/lang_transaction.html, 3.1.
        """
        try:
            return write()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != _FULL or not self.room.release():
                raise
        if self._connection.in_transaction:
            return write()
        self._connection.execute("BEGIN IMMEDIATE")
        for sql, values in self._script[:-1] if is_last_replayed else self._script:
            self._connection.execute(sql, values)
        return write()


def decode_stored(decoder: msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    """Decode what this journal holds.

    Raises:
        JournalBrokenError: It makes no sense: the file was damaged where SQLite cannot see it.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise JournalBrokenError(f"a row of the journal cannot be read: {error}") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name == _FULL:
            hint = "Make room on the node's disk."
            raise UnavailableError("the disk of the journal is full", code=DISK_FULL_CODE, hint=hint) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            raise JournalBrokenError(f"the journal cannot be used: {error}") from error
        raise


def _open(path: Path | None) -> sqlite3.Connection | None:
    """A checked connection, or None when the file is corrupt.

    Raises:
        UnavailableError: The file was written by a later release.
    """
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=10.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            connection.close()
            return None
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            _create(connection)
        elif version > SCHEMA_VERSION:
            connection.close()
            raise UnavailableError("the journal was written by a later release", hint="Install that release again.")
    except sqlite3.DatabaseError as error:
        connection.close()
        if error.sqlite_errorname.startswith(_CORRUPT):
            return None
        raise UnavailableError(f"the journal {path} cannot be opened", hint="Look at the disk.") from error
    return connection


def _create(connection: sqlite3.Connection) -> None:
    epoch = str(uuid.uuid4())
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO meta VALUES ('journal_epoch', '{epoch}');"  # noqa: S608 - a fresh UUID
        f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
    )


def _set_aside(path: Path) -> Path:
    """Move a corrupt journal and its companions out of the way: an operator may want to look at it."""
    target = path.with_name(f"{path.name}.corrupt-{uuid.uuid4().hex[:8]}")
    for suffix in ("", "-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return target
