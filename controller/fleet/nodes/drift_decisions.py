"""What administrators decide about a finding: to live with it for a while, or not any more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import DriftFindingRow, Node
from controller.fleet.nodes.views import DriftIgnore
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.specs.manifest import DriftPolicy

MAX_IGNORED: Final = timedelta(days=90)
"""Longer is a wish of its own and belongs into the desired state."""


class DriftDecisions:
    """Use cases; each runs in the transaction of its context.

    A node that repairs by itself knows nothing of them, so nothing of it can be ignored, and a node on which something
    is ignored cannot begin to repair by itself.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record

    async def ignore(self, op: FleetOp, finding_id: str, params: DriftIgnore) -> DriftFindingRow:
        """Tell nobody of this finding until then, as long as it stays what it is. Again: another end or reason.

        Raises:
            ForbiddenError, NotFoundError
            InvalidInputError: The time is past, or too far away.
            ConflictError: The node repairs by itself.
        """
        op.actor.require("drift", "write")
        row = await get_finding(op.session, finding_id)
        until = _require_end(params.until, now=op.now)
        node = await op.session.get_one(Node, row.node_id)
        if node.drift_policy is DriftPolicy.REPAIR:
            raise ConflictError(
                f"the node {node.name} repairs drift by itself, so nothing on it can be ignored",
                hint=f"Let it report only: wcp360 nodes update {node.name} --drift-policy report",
            )
        before = _state_of(row)
        row.ignored_until, row.ignored_by, row.ignore_reason = until, op.actor.reference, params.reason
        self._note(op, row, "drift.ignore", before)
        return row

    async def unignore(self, op: FleetOp, finding_id: str) -> DriftFindingRow:
        """The finding is open again; one that is open stays so.

        Raises:
            ForbiddenError, NotFoundError
        """
        op.actor.require("drift", "write")
        row = await get_finding(op.session, finding_id)
        if row.ignored_until is None:
            return row
        before = _state_of(row)
        row.forget_decision()
        self._note(op, row, "drift.unignore", before)
        return row

    def _note(self, op: FleetOp, row: DriftFindingRow, action: str, before: dict[str, Any]) -> None:
        note = ChangeNote(
            action=action,
            target=f"node/{row.node_id}",
            target_name=f"{row.subject}: {row.key}",
            before=before,
            after=_state_of(row),
        )
        self._record(op, note)


async def get_finding(session: AsyncSession, finding_id: str) -> DriftFindingRow:
    """The finding.

    Raises:
        NotFoundError: There is none.
    """
    row = await session.get(DriftFindingRow, finding_id)
    if row is None:
        raise NotFoundError(f"there is no finding {finding_id[:80]!r}", hint="A later check may have cleared it.")
    return row


async def require_nothing_ignored(session: AsyncSession, node: Node, *, now: datetime) -> None:
    """Pass when the node may repair by itself.

    Raises:
        ConflictError: Something on it is ignored, and the node would put it right all the same.
    """
    ignored = exists().where(DriftFindingRow.node_id == node.id, DriftFindingRow.ignored_until > now)
    if await session.scalar(select(ignored)):
        raise ConflictError(
            f"drift on the node {node.name} is ignored, and a node that repairs by itself would not know of it",
            hint="See `wcp360 drift list --is-ignored`; end it with `wcp360 drift unignore FINDING`.",
        )


def _require_end(until: datetime, *, now: datetime) -> datetime:
    if not now < until <= now + MAX_IGNORED:
        raise InvalidInputError(f"it must be in the future, {MAX_IGNORED.days} days at most", field="until")
    return until


def _state_of(row: DriftFindingRow) -> dict[str, Any]:
    until = row.ignored_until
    return {
        "id": row.id,
        "subject": row.subject,
        "key": row.key,
        "ignored_until": until.isoformat() if until is not None else None,
        "ignored_by": row.ignored_by,
        "ignore_reason": row.ignore_reason,
    }
