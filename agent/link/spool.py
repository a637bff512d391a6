"""Events that must not be lost, on disk until the controller has committed them.

Results are never dropped. Drift reports are news about a state that is checked again anyway: a newer report about the
same subjects replaces an older one, and when there are too many the oldest go.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from agent.link import faults
from shared.protocol.frames import MAX_FRAME_BYTES, DriftReport, Event
from shared.protocol.job import JobResult, PlannedChange
from shared.protocol.update import UpdateReport

MAX_DRIFT_REPORTS: Final = 200
_ROOM_FOR_HEADER: Final = 1024
_MAX_BODY_BYTES: Final = MAX_FRAME_BYTES - _ROOM_FOR_HEADER

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS event_subject ON event (kind, subject);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counter (name, value) VALUES ('head', 0), ('acked', 0);
"""

_RESULT = msgspec.msgpack.Decoder(JobResult)
_DRIFT = msgspec.msgpack.Decoder(DriftReport)
_UPDATE = msgspec.msgpack.Decoder(UpdateReport)
_ENCODER = msgspec.msgpack.Encoder()


class Spool:
    """A numbered log with a cumulative acknowledgement. Safe to call from several threads."""

    def __init__(self, path: Path | None, *, max_drift_reports: int = MAX_DRIFT_REPORTS) -> None:
        """Open or create the file; None keeps everything in memory (simulated agents)."""
        self._lock = threading.Lock()
        self._max_drift_reports = max_drift_reports
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=30.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        # FULL: a commit returns after fsync. The executor forgets a result once we say that we have it.
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @property
    def head(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._read_counter("head")

    @property
    def acked(self) -> int:
        """Everything up to this number is in the controller's database."""
        return self._read_counter("acked")

    def append_result(self, result: JobResult) -> int:
        """Keep a result and return its number; one that waits here already keeps the number it has.

        Raises:
            sqlite3.Error: It is not on disk (disk full, I/O error); do not tell the executor that it is.
        """
        return self._append("result", result.job_id, _encode_result(result), replaces=False)

    def append_drift(self, report: DriftReport) -> int:
        """Keep a drift report, in the place of an older one about the same subjects.

        Raises:
            sqlite3.Error: It is not on disk.
        """
        return self._append("drift", "\n".join(report.subjects), _encode_drift(report), replaces=True)

    def append_update(self, report: UpdateReport) -> int:
        """Keep how an update ended; one that waits here already keeps the number it has.

        Raises:
            sqlite3.Error: It is not on disk.
        """
        return self._append("update", report.attempt_id, _ENCODER.encode(report), replaces=False)

    def list_after(self, number: int, *, limit: int) -> list[Event]:
        """The next events behind a number, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT number, kind, body FROM event WHERE number > ? ORDER BY number LIMIT ?", (number, limit)
            ).fetchall()
        return [_decode_event(*row) for row in rows]

    def ack(self, events_upto: int) -> None:
        """Forget everything up to this number: the controller has committed it."""
        with self._transaction() as db:
            upto = min(events_upto, self._counter(db, "head"))
            db.execute("DELETE FROM event WHERE number <= ?", (upto,))
            db.execute("UPDATE counter SET value = max(value, ?) WHERE name = 'acked'", (upto,))

    def continue_after(self, events_acked: int) -> None:
        """Take up the controller's count when it is ahead of ours: this file was lost or restored.

        Numbers that the controller has seen already must not be used again, or it would take new events for old ones.
        """
        with self._transaction() as db:
            head = self._counter(db, "head")
            if events_acked <= head:
                return
            waiting = db.execute("SELECT number FROM event ORDER BY number DESC").fetchall()
            shift = events_acked - self._counter(db, "acked")
            for (number,) in waiting:
                db.execute("UPDATE event SET number = ? WHERE number = ?", (number + shift, number))
            db.execute("UPDATE counter SET value = ? WHERE name = 'acked'", (events_acked,))
            db.execute(
                "UPDATE counter SET value = max(?, coalesce((SELECT max(number) FROM event), 0)) WHERE name = 'head'",
                (events_acked,),
            )

    def _append(self, kind: str, subject: str, body: bytes, *, replaces: bool) -> int:
        with self._transaction() as db:
            if replaces:
                db.execute("DELETE FROM event WHERE kind = ? AND subject = ?", (kind, subject))
                self._drop_oldest_drifts(db)
            else:
                row = db.execute("SELECT number FROM event WHERE kind = ? AND subject = ?", (kind, subject)).fetchone()
                if row is not None:
                    return int(row[0])
            number = self._counter(db, "head") + 1
            db.execute(
                "INSERT INTO event (number, kind, subject, body) VALUES (?, ?, ?, ?)", (number, kind, subject, body)
            )
            db.execute("UPDATE counter SET value = ? WHERE name = 'head'", (number,))
            return number

    def _drop_oldest_drifts(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM event WHERE number IN "
            "(SELECT number FROM event WHERE kind = 'drift' ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (self._max_drift_reports - 1,),
        )

    def _read_counter(self, name: Literal["head", "acked"]) -> int:
        with self._lock:
            return self._counter(self._db, name)

    def _counter(self, db: sqlite3.Connection, name: Literal["head", "acked"]) -> int:
        return int(db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has taken it back already
                    self._db.execute("ROLLBACK")
                raise
            faults.at("spool.before_commit")
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            faults.at("spool.after_commit")


def _encode_result(result: JobResult) -> bytes:
    """Encode, without the diffs if it would not fit a frame: a result that cannot be sent would block the rest."""
    raw = _ENCODER.encode(result)
    if len(raw) <= _MAX_BODY_BYTES:
        return raw
    return _ENCODER.encode(msgspec.structs.replace(result, changes=tuple(map(_without_diff, result.changes))))


def _without_diff(change: PlannedChange) -> PlannedChange:
    return msgspec.structs.replace(change, diff="(left out: the result was too large)" if change.diff else "")


def _encode_drift(report: DriftReport) -> bytes:
    raw = _ENCODER.encode(report)
    if len(raw) <= _MAX_BODY_BYTES:
        return raw
    findings = tuple(msgspec.structs.replace(finding, diff="") for finding in report.findings)
    return _ENCODER.encode(msgspec.structs.replace(report, findings=findings))


def _decode_event(number: int, kind: str, body: bytes) -> Event:
    if kind == "result":
        return Event(number=number, kind="result", result=_RESULT.decode(body))
    if kind == "update":
        return Event(number=number, kind="update", update=_UPDATE.decode(body))
    return Event(number=number, kind="drift", drift=_DRIFT.decode(body))
