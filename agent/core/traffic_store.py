"""What was counted of the access logs, and how far: SQLite, so that both are on disk together or not at all.

A file of its own beside the journal: losing it loses the traffic since the controller heard of it last, and nothing
else. Whoever begins a new one begins to count at that moment: what logs hold from before was counted by the old one.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Final

from agent.core.traffic_marks import Mark

FILE_NAME: Final = "traffic.db"
SCHEMA_VERSION: Final = 1
BUSY_SECONDS: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts (
    account TEXT PRIMARY KEY, uid INTEGER NOT NULL, source TEXT NOT NULL, counted_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE logs (
    account TEXT NOT NULL REFERENCES accounts (account) ON DELETE CASCADE, log TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (account, log)
) WITHOUT ROWID;
CREATE TABLE marks (
    account TEXT NOT NULL REFERENCES accounts (account) ON DELETE CASCADE, log TEXT NOT NULL, inode INTEGER NOT NULL,
    offset INTEGER NOT NULL, head_length INTEGER NOT NULL, head BLOB NOT NULL, floor REAL NOT NULL,
    size INTEGER NOT NULL, changed_ns INTEGER NOT NULL, absent_since REAL NOT NULL,
    PRIMARY KEY (account, log, inode)
) WITHOUT ROWID;
CREATE TABLE totals (
    account TEXT NOT NULL REFERENCES accounts (account) ON DELETE CASCADE, month TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (account, month)
) WITHOUT ROWID;
"""

_FIELD_NAMES: Final = tuple(field.name for field in fields(Mark))
_FIELDS: Final = ", ".join(_FIELD_NAMES)

_log = logging.getLogger(__name__)


class TrafficStore:
    """An open file; for one thread."""

    def __init__(self, path: Path, now: float) -> None:
        """Open it, or begin anew when it is damaged. `now`: seconds since the epoch.

        Raises:
            sqlite3.Error: It cannot be opened, or was written by a later release.
        """
        self._connection = _open(path, now)
        # A clock that was ahead when counting began would hide everything until then.
        self._connection.execute("UPDATE meta SET value = min(value, ?) WHERE key = 'since'", (now,))

    @property
    def since(self) -> float:
        """When counting began, in seconds since the epoch."""
        return float(self._connection.execute("SELECT value FROM meta WHERE key = 'since'").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and on disk at the end."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # A full disk has taken it back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def keep_accounts(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Begin counting for accounts (name and uid) that are new, and forget those that are gone.

        Whoever has the name of one that went (another uid) has another counter.
        """
        uids = dict(wanted)
        known = dict(self._connection.execute("SELECT account, uid FROM accounts").fetchall())
        gone = [(name,) for name, uid in known.items() if uids.get(name) != uid]
        fresh = [(name, uid, f"{uid}x{secrets.token_hex(4)}") for name, uid in uids.items() if known.get(name) != uid]
        if gone or fresh:
            with self.transaction():
                self._connection.executemany("DELETE FROM accounts WHERE account = ?", gone)
                self._connection.executemany("INSERT INTO accounts VALUES (?, ?, ?, 0)", fresh)

    def list_accounts(self) -> list[str]:
        """All names; the one that was counted longest ago first."""
        found = self._connection.execute("SELECT account FROM accounts ORDER BY counted_at, account")
        return [row[0] for row in found]

    def note_counted(self, account: str, at: float) -> None:
        """The account had its turn. `at`: seconds since the epoch."""
        self._connection.execute("UPDATE accounts SET counted_at = ? WHERE account = ?", (at, account))

    def read_marks(self, account: str, log: str) -> list[Mark]:
        """How far the files of a log were counted."""
        found = self._connection.execute(f"SELECT {_FIELDS} FROM marks WHERE account = ? AND log = ?", (account, log))  # noqa: S608 - our own names
        return [Mark(**dict(zip(_FIELD_NAMES, row, strict=True))) for row in found]

    def read_until(self, account: str, log: str) -> float | None:
        """The latest time of a counted line; None: the log was never seen."""
        row = self._connection.execute(
            "SELECT until FROM logs WHERE account = ? AND log = ?", (account, log)
        ).fetchone()
        return None if row is None else float(row[0])

    def put_mark(self, account: str, log: str, mark: Mark) -> None:
        """Keep how far a file was counted."""
        values = [getattr(mark, name) for name in _FIELD_NAMES]
        self._connection.execute(
            f"INSERT OR REPLACE INTO marks (account, log, {_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
            (account, log, *values),
        )

    def drop_mark(self, account: str, log: str, inode: int) -> None:
        """The file is gone."""
        self._connection.execute("DELETE FROM marks WHERE account = ? AND log = ? AND inode = ?", (account, log, inode))

    def note_until(self, account: str, log: str, until: float) -> None:
        """Lines of up to this time were counted."""
        self._connection.execute(
            "INSERT INTO logs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
            (account, log, until),
        )

    def add(self, account: str, month: str, amount: int) -> None:
        """So many bytes more."""
        self._connection.execute(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            (account, month, amount),
        )

    def forget_months(self, kept: Iterable[str]) -> None:
        """Only these months stay: nobody asks for others."""
        first, second = kept
        self._connection.execute("DELETE FROM totals WHERE month NOT IN (?, ?)", (first, second))

    def list_totals(self) -> list[tuple[str, str, str, int]]:
        """Account, its counter's name, month and bytes of everything that was counted."""
        return self._connection.execute(
            "SELECT account, source, month, bytes FROM totals JOIN accounts USING (account) ORDER BY account, month"
        ).fetchall()


def _open(path: Path, now: float) -> sqlite3.Connection:
    try:
        return _connect(path, now)
    except sqlite3.DatabaseError as error:
        if not str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise
        _log.error("the counts of traffic in %s are damaged; counting begins anew: %s", path, error)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _connect(path, now)


def _connect(path: Path, now: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        connection.execute("PRAGMA journal_mode=WAL")
        # What was told to the controller must not be forgotten by a power failure, or it would be counted again.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise sqlite3.OperationalError("the counts of traffic were written by a later release")
        if version == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO meta VALUES ('since', {float(now)!r});"  # noqa: S608 - a number
                f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        stack.pop_all()
    return connection
