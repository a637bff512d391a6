"""What is being changed and what holds: transactions with their undo records, and each resource's last good spec."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec

from agent.contract.actions import AnyAction
from agent.contract.host import UndoRecord
from agent.core.database import Database, decode_stored
from agent.core.records import Applied, Draft, Holding, StepRow, StepState, TransactionRow, TransactionState
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy
from shared.specs.module import ModuleSpec

_ENCODER = msgspec.msgpack.Encoder()
_ACTION: msgspec.msgpack.Decoder[AnyAction] = msgspec.msgpack.Decoder(AnyAction)
_DRAFT = msgspec.msgpack.Decoder(Draft)
_HOLDING = msgspec.msgpack.Decoder(Holding)
_UNDOABLE: Final = "('begun', 'done')"


class Ledger:
    """Tables of the journal's file that concern the host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def durable(self) -> AbstractContextManager[None]:
        """See Database.durable."""
        return self._database.durable()

    # --- transactions -------------------------------------------------------------------------------------------------

    def begin(self, subject: str, job_id: str | None) -> int:
        """Open a transaction; returns its number."""
        with self._database.durable():
            return self._database.execute(
                "INSERT INTO transactions (subject, job_id, state) VALUES (?, ?, 'open')", subject, job_id
            )

    def begin_step(self, transaction: int, resource: str, action: AnyAction, undo: UndoRecord) -> int:
        """Register an action with what was there before: on disk before anything is touched."""
        with self._database.durable():
            return self._database.execute(
                "INSERT INTO steps (transaction_number, resource, action, undo, state) VALUES (?, ?, ?, ?, 'begun')",
                transaction,
                resource,
                _ENCODER.encode(action),
                undo,
            )

    def finish_step(self, step: int) -> None:
        """The action was applied. Losing this mark is harmless: undoing what never ran is allowed."""
        with self._database.soft():
            self._database.execute("UPDATE steps SET state = 'done' WHERE number = ?", step)

    def mark_undone(self, step: int) -> None:
        """The action was taken back. Losing this mark is harmless: undoing twice is undoing once."""
        with self._database.soft():
            self._database.execute("UPDATE steps SET state = 'undone' WHERE number = ?", step)

    def list_undoable(self, transaction: int, resource: str | None = None) -> list[StepRow]:
        """Steps that may have touched the host, newest first; None: of all resources."""
        rows = self._database.rows(
            "SELECT number, resource, action, undo, state FROM steps WHERE transaction_number = ?1"  # noqa: S608 - constants
            f" AND state IN {_UNDOABLE} AND (?2 IS NULL OR resource = ?2) ORDER BY number DESC",
            transaction,
            resource,
        )
        return [
            StepRow(
                number=number,
                resource=name,
                action=decode_stored(_ACTION, action),
                undo=undo,
                state=StepState(state),
            )
            for number, name, action, undo, state in rows
        ]

    def seal(self, transaction: int, draft: Draft) -> None:
        """Pass the point of no return: from here on a crash carries the transaction on instead of unwinding it."""
        with self._database.durable():
            self._database.execute(
                "UPDATE transactions SET state = 'sealed', draft = ? WHERE number = ?",
                _ENCODER.encode(draft),
                transaction,
            )

    def commit(self, transaction: int, draft: Draft, *, subject: str) -> None:
        """Record what holds now and forget the undo records."""
        with self._database.durable():
            if draft.applied is not None:
                self._put_applied(draft.applied)
            for holding in draft.kept:
                self._put_holding(subject, holding)
            for key in draft.dropped:
                self._database.execute("DELETE FROM holdings WHERE subject = ? AND key = ?", subject, key)
            self.forget(transaction)

    def forget(self, transaction: int) -> None:
        """Remove a transaction that was unwound or committed."""
        with self._database.durable():
            self._database.execute("DELETE FROM transactions WHERE number = ?", transaction)

    def mark_broken(self, transaction: int) -> None:
        """An undo failed; the records stay for an operator."""
        with self._database.durable():
            self._database.execute("UPDATE transactions SET state = 'broken' WHERE number = ?", transaction)

    def forget_broken(self) -> None:
        """Remove the transactions that an operator has dealt with."""
        with self._database.durable():
            self._database.execute("DELETE FROM transactions WHERE state = 'broken'")

    def list_transactions(self) -> list[TransactionRow]:
        """Transactions that are not finished, newest first."""
        rows = self._database.rows(
            "SELECT number, subject, job_id, state, draft FROM transactions ORDER BY number DESC"
        )
        return [_transaction_row(row) for row in rows]

    def list_undo_records(self) -> list[UndoRecord]:
        """Of all transactions that are not finished: what the host must still keep."""
        return [row[0] for row in self._database.rows("SELECT undo FROM steps")]

    # --- what holds ---------------------------------------------------------------------------------------------------

    def find_applied(self, subject: str) -> Applied | None:
        """The newest manifest of the subject that became true."""
        row = self._database.row(
            "SELECT subject, generation, digest, presence, drift_policy, seq FROM applied WHERE subject = ?", subject
        )
        if row is None:
            return None
        subject, generation, digest, presence, drift_policy, seq = row
        return Applied(
            subject=subject,
            generation=generation,
            digest=digest,
            presence=Presence(presence),
            drift_policy=DriftPolicy(drift_policy),
            seq=seq,
        )

    def list_subjects(self) -> list[str]:
        """Subjects that have anything on this node, the node itself included."""
        return [row[0] for row in self._database.rows("SELECT DISTINCT subject FROM holdings ORDER BY subject")]

    def holdings(self, subject: str) -> dict[str, Holding]:
        """Resource key to what holds for it."""
        rows = self._database.rows("SELECT key, holding FROM holdings WHERE subject = ? ORDER BY key", subject)
        return {key: decode_stored(_HOLDING, raw) for key, raw in rows}

    def find_owner(self, key: str, *, other_than: str) -> str | None:
        """Another subject that holds this resource."""
        row = self._database.row("SELECT subject FROM holdings WHERE key = ? AND subject <> ?", key, other_than)
        return None if row is None else str(row[0])

    def find_uid(self, subject: str) -> int | None:
        """The uid that the subject has on this node."""
        row = self._database.row("SELECT MAX(uid) FROM holdings WHERE subject = ?", subject)
        return None if row is None else row[0]

    def list_foreign_uids(self, subject: str) -> frozenset[int]:
        """The uids of all other subjects."""
        rows = self._database.rows("SELECT DISTINCT uid FROM holdings WHERE subject <> ? AND uid IS NOT NULL", subject)
        return frozenset(row[0] for row in rows)

    def _put_applied(self, applied: Applied) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO applied (subject, generation, digest, presence, drift_policy, seq)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            applied.subject,
            applied.generation,
            applied.digest,
            applied.presence.value,
            applied.drift_policy.value,
            applied.seq,
        )

    def _put_holding(self, subject: str, holding: Holding) -> None:
        uid = None if isinstance(holding.spec, ModuleSpec) else holding.spec.uid
        self._database.execute(
            "INSERT OR REPLACE INTO holdings (subject, key, holding, uid) VALUES (?, ?, ?, ?)",
            subject,
            holding.spec.key,
            _ENCODER.encode(holding),
            uid,
        )


def _transaction_row(row: tuple[Any, ...]) -> TransactionRow:
    number, subject, job_id, state, draft = row
    return TransactionRow(
        number=number,
        subject=subject,
        job_id=job_id,
        state=TransactionState(state),
        draft=None if draft is None else decode_stored(_DRAFT, draft),
    )
