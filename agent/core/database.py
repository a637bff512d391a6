"""The journal's file: SQLite in WAL mode with full synchronisation, checked when it is opened.

One connection, one thread. `durable()` is on disk when it returns; `soft()` is written with the next durable one, for
marks whose loss only means that something idempotent happens again.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from shared.errors import UnavailableError

SCHEMA_VERSION: Final = 1
"""Readable by the release before and the release after; a change adds columns and tables only."""

_CORRUPT: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""Source: https://www.sqlite.org/rescode.html"""

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


class Database:
    """An open journal file; `None` as path keeps it in memory (simulated agents)."""

    def __init__(self, path: Path | None) -> None:
        self.set_aside: Path | None = None
        """Where a corrupt journal was moved to when this one was opened."""
        connection = _open(path)
        if connection is None and path is not None:
            self.set_aside = _set_aside(path)
            connection = _open(path)
        if connection is None:
            raise UnavailableError(f"the journal {path} cannot be opened", hint="Look at the disk.")
        self._connection = connection
        self._depth = 0

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        found: list[tuple[Any, ...]] = self._connection.execute(sql, values).fetchall()
        return found

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        found: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        return found

    def execute(self, sql: str, *values: Any) -> int:
        """Run one writing statement inside `durable()` or `soft()`; returns the new row's number."""
        return self._connection.execute(sql, values).lastrowid or 0

    @contextmanager
    def durable(self) -> Iterator[None]:
        """All or nothing, and on disk at the end. May be nested; the outermost one counts."""
        self._begin()
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")

    @contextmanager
    def soft(self) -> Iterator[None]:
        """Visible at once, on disk with the next durable write."""
        self._begin()
        yield

    def close(self) -> None:
        """Write what is pending and close."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._connection.close()

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")


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
