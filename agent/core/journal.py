"""What the executor must not forget about jobs: which it took, in which state they are, what came out of them.

A row goes only when the agent has stored the result and the job has expired beyond doubt, so a captured job can never
be played again: it is either remembered or too old.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.core import faults
from agent.core.acceptance import CLOCK_TOLERANCE_SECONDS
from agent.core.database import Database, decode_stored
from agent.core.ledger import Ledger
from agent.core.records import JobRow
from agent.core.reserve import Room
from shared.errors import BugError
from shared.protocol.job import Job, JobMode, JobResult, JobState

JOURNAL_FILE: Final = "journal.db"
MAX_REPORTED_GAPS: Final = 64
MAX_PRUNED_LIST: Final = 1000
"""After so many later jobs have come and gone, a number that never arrived never will: the watermark passes it."""

_COLUMNS: Final = "job_id, seq, subject, state, payload, attempts, is_cancel_requested, result, is_stored"
_START: Final = "state = 'started', attempts = attempts + 1"
_RESULT = msgspec.msgpack.Decoder(JobResult)
_ENCODER = msgspec.msgpack.Encoder()


class Journal:
    """Jobs and the executor's own few facts; `ledger` holds transactions and what the node has."""

    def __init__(self, state_dir: Path | None, room: Room | None = None) -> None:
        """Open it; `room` where a reserve is kept for a full disk."""
        self.database = Database(state_dir / JOURNAL_FILE if state_dir is not None else None, room)
        self.ledger = Ledger(self.database)

    def close(self) -> None:
        """Write what is pending and close."""
        self.database.close()

    # --- facts about the executor itself ----------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """Changes when the journal was lost."""
        value = self._get("journal_epoch")
        if value is None:
            raise BugError("a journal without an epoch")
        return value

    @property
    def quarantine(self) -> str:
        """Why no jobs are taken; empty when they are."""
        return self._get("quarantine") or ""

    def set_quarantine(self, reason: str) -> None:
        """Take no jobs until `clear_quarantine`."""
        self._put("quarantine", reason)

    def clear_quarantine(self) -> None:
        """An operator has looked: broken transactions are let go as they are."""
        with self.database.durable():
            self._put("quarantine", "")
            self.ledger.forget_broken()

    @property
    def controller_time(self) -> float:
        """The controller's time in the newest job, by number: seconds since the epoch."""
        return float(self._get("controller_time") or "0")

    @property
    def last_seq(self) -> int:
        """Highest job number ever taken."""
        return int(self._get("last_seq") or "0")

    @property
    def low_watermark(self) -> int:
        """Every job up to this number was settled and forgotten."""
        return int(self._get("low_watermark") or "0")

    @property
    def _first_seq(self) -> int:
        """Where this journal begins: what came before it is no gap, the journal before it may have had it."""
        return int(self._get("first_seq") or "1")

    def seq_gaps(self) -> tuple[int, ...]:
        """Numbers below `last_seq` that never arrived: somebody in between dropped them. The newest MAX_REPORTED_GAPS.

        The newest, because numbers that were withdrawn before they were sent stay gaps until the watermark passes them.
        """
        watermark, last = max(self.low_watermark, self._first_seq - 1), self.last_seq
        pruned = {int(value) for value in (self._get("pruned_seqs") or "").split(",") if value}
        pruned = {seq for seq in pruned if seq > watermark}
        count = self.database.row("SELECT COUNT(*) FROM jobs WHERE seq > ?", watermark)
        if count is not None and count[0] + len(pruned) >= last - watermark:
            return ()  # asked with every heartbeat, so the usual answer is a cheap one
        present = {row[0] for row in self.database.rows("SELECT seq FROM jobs WHERE seq > ?", watermark)} | pruned
        gaps = (seq for seq in range(last - 1, watermark, -1) if seq not in present)
        return tuple(sorted(itertools.islice(gaps, MAX_REPORTED_GAPS)))

    def _get(self, key: str) -> str | None:
        row = self.database.row("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])

    def _put(self, key: str, value: str) -> None:
        with self.database.durable():
            self.database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def add_job(self, job: Job, payload: bytes, *, subject: str, refusal: JobResult | None = None) -> None:
        """Take a job with its verified bytes, or remember that it was refused; on disk when this returns."""
        faults.at("job.before_journal")
        state = JobState.RECEIVED if refusal is None else JobState.REFUSED
        with self.database.durable():
            self.database.execute(
                "INSERT INTO jobs (job_id, seq, subject, generation, is_apply, state, payload, expires_at, result,"
                " is_stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                job.job_id,
                job.seq,
                subject,
                job.generation,
                job.mode is JobMode.APPLY,
                state.value,
                payload,
                job.expires_at,
                None if refusal is None else _ENCODER.encode(refusal),
                refusal is not None,
            )
            if job.seq > self.last_seq:
                # The newest word counts, also when it is an earlier one: the controller's clock was put right. An old
                # job cannot do that, for its number is an old one.
                self._put("controller_time", repr(job.issued_at))
            if self.last_seq == 0:
                self._put("first_seq", str(job.seq))
            self._put("last_seq", str(max(job.seq, self.last_seq)))
        faults.at("job.after_journal")

    def find_job(self, job_id: str) -> JobRow | None:
        """The job with this id."""
        row = self.database.row(f"SELECT {_COLUMNS} FROM jobs WHERE job_id = ?", job_id)  # noqa: S608 - a constant
        return None if row is None else _job_row(row)

    def is_seq_taken(self, seq: int) -> bool:
        """Whether another job has this number."""
        return self.database.row("SELECT 1 FROM jobs WHERE seq = ?", seq) is not None

    def newest_queued_generation(self, subject: str) -> int:
        """Highest generation of the subject that waits or runs; 0 for none."""
        row = self.database.row(
            "SELECT MAX(generation) FROM jobs WHERE subject = ? AND is_apply AND state IN ('received', 'started')",
            subject,
        )
        return 0 if row is None or row[0] is None else int(row[0])

    def list_unfinished(self) -> list[JobRow]:
        """Jobs that wait or run, in the order of their numbers."""
        return self._list("state IN ('received', 'started')")

    def list_unstored(self) -> list[JobRow]:
        """Jobs with a result that the agent has not stored yet."""
        return self._list("result IS NOT NULL AND NOT is_stored")

    def list_unstored_ids(self) -> list[str]:
        """The same jobs' ids, for whoever takes one result after the other."""
        sql = "SELECT job_id FROM jobs WHERE result IS NOT NULL AND NOT is_stored ORDER BY seq"
        return [row[0] for row in self.database.rows(sql)]

    def start_job(self, job_id: str) -> None:
        """It runs now."""
        self._update(job_id, _START)
        faults.at("job.after_start")

    def start_noop(self, job_id: str) -> None:
        """The same, on disk with its result: a job that touches nothing may begin twice, so it saves an fsync."""
        with self.database.soft():
            self.database.execute(f"UPDATE jobs SET {_START} WHERE job_id = ?", job_id)  # noqa: S608 - a constant
        faults.at("job.after_start")

    def requeue_job(self, job_id: str) -> None:
        """It waits again: its effects were unwound."""
        self._update(job_id, "state = 'received'")

    def request_cancel(self, job_id: str) -> None:
        """Remember the wish, so that a crash does not forget it."""
        self._update(job_id, "is_cancel_requested = 1")

    def finish_job(self, result: JobResult) -> None:
        """Store the node's final word; it is offered until the agent has stored it."""
        with self.database.durable():
            self.database.execute(
                "UPDATE jobs SET state = ?, result = ?, is_stored = 0 WHERE job_id = ?",
                result.state.value,
                _ENCODER.encode(result),
                result.job_id,
            )

    def mark_stored(self, job_id: str) -> None:
        """The agent has the result on its own disk."""
        self._update(job_id, "is_stored = 1")

    def prune(self, *, now: float) -> int:
        """Forget jobs that are stored and have expired beyond doubt; returns how many."""
        limit = now - 2 * CLOCK_TOLERANCE_SECONDS
        with self.database.durable():
            gone = [row[0] for row in self.database.rows(f"SELECT seq {_PRUNABLE}", limit)]
            if not gone:
                return 0
            self.database.execute(f"DELETE {_PRUNABLE}", limit)
            self._advance_watermark(set(gone))
        return len(gone)

    def _advance_watermark(self, gone: set[int]) -> None:
        """Move the watermark over numbers without a gap; the others are kept as a list so that gaps stay known."""
        pruned = gone | {int(value) for value in (self._get("pruned_seqs") or "").split(",") if value}
        mark = self.low_watermark
        while mark + 1 in pruned or len(pruned) > MAX_PRUNED_LIST:
            mark += 1
            pruned.discard(mark)
        self._put("low_watermark", str(mark))
        self._put("pruned_seqs", ",".join(str(seq) for seq in sorted(pruned) if seq > mark))

    def _list(self, condition: str) -> list[JobRow]:
        sql = f"SELECT {_COLUMNS} FROM jobs WHERE {condition} ORDER BY seq"  # noqa: S608 - both are constants
        return [_job_row(row) for row in self.database.rows(sql)]

    def _update(self, job_id: str, assignment: str) -> None:
        with self.database.durable():
            self.database.execute(f"UPDATE jobs SET {assignment} WHERE job_id = ?", job_id)  # noqa: S608 - a constant


_PRUNABLE: Final = "FROM jobs WHERE is_stored AND state NOT IN ('received', 'started') AND expires_at < ?"


def _job_row(row: tuple[Any, ...]) -> JobRow:
    job_id, seq, subject, state, payload, attempts, is_cancel_requested, result, is_stored = row
    return JobRow(
        job_id=job_id,
        seq=seq,
        subject=subject,
        state=JobState(state),
        payload=payload,
        attempts=attempts,
        is_cancel_requested=bool(is_cancel_requested),
        result=None if result is None else decode_stored(_RESULT, result),
        is_stored=bool(is_stored),
    )
