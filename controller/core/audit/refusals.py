"""Refusals in the audit log: what a node refused, what an actor may not, and who could not sign in.

Whoever is refused can ask again, a thousand times a second; the log is for ever. So each asker has a measure, and what
goes beyond it is counted: the next entry says how many were left out before it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import append_entries
from controller.core.context import Actor, Change, OpContext, Role
from controller.db.engine import Database
from controller.jobs.models import Job
from shared.errors import FleetError, ForbiddenError, NotFoundError
from shared.protocol.job import ErrorBody

ACTOR_BURST: Final = 200
SIGN_IN_BURST: Final = 20
SECONDS_EACH: Final = 3.0
_NOTED: Final = "is_noted"
"""In the context of an error that was written down already, on its way up."""
_MAX_KEYS: Final = 10_000

_log = structlog.get_logger("controller.audit")


@dataclass(slots=True)
class _Measure:
    """Of one asker."""

    free_at: float
    left_out: int = 0


class Refusals:
    """Writes them down, each in a transaction of its own: that of the request was rolled back."""

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._measures: OrderedDict[str, _Measure] = OrderedDict()

    async def note(self, actor: Actor, request_id: str, error: FleetError) -> None:
        """An actor may not, or a tenant asked for what is not theirs (or not there); other errors are passed over."""
        is_foreign = isinstance(error, NotFoundError) and not actor.reach.is_everything
        if error.context.get(_NOTED) or not (is_foreign or isinstance(error, ForbiddenError)):
            return
        error.context[_NOTED] = True
        permission = str(error.context.get("permission", ""))[:90]
        after = {"code": error.code, "reason": error.message[:300], "is_foreign": is_foreign}
        change = Change(
            action="access.refuse", target=f"permission/{permission or '-'}", target_name=permission, after=after
        )
        await self._write(actor, request_id, change, burst=ACTOR_BURST)

    async def note_sign_in(self, username: str, address: str, request_id: str, *, user_id: str | None) -> None:
        """Somebody showed a wrong password, or named nobody. The same work for both: time must not tell them apart."""
        name = "".join(char if char.isprintable() else "?" for char in username[:64])
        actor = Actor(kind="anonymous", id="-", name="somebody", role=Role.CLIENT, scopes=frozenset(), address=address)
        change = Change(
            action="user.refuse_sign_in",
            target=f"user/{user_id or '-'}",
            target_name=name,
            after={"address": address[:64], "is_known": user_id is not None},
        )
        await self._write(actor, request_id, change, burst=SIGN_IN_BURST)

    async def _write(self, actor: Actor, request_id: str, change: Change, *, burst: int) -> None:
        key = f"{actor.reference} {actor.address}"
        left_out = self._take(key, burst)
        if left_out is None:
            return
        if left_out and change.after is not None:
            change.after["left_out"] = left_out
        try:
            async with self._database.write() as session:
                ctx = OpContext(actor=actor, session=session, request_id=request_id, now=self._clock())
                await append_entries(ctx, (change,))
        except SQLAlchemyError as error:
            # The answer to who asked stays a refusal, also while the database does not answer.
            _log.error("audit.refusal_lost", action=change.action, actor=actor.reference, error=str(error))

    def _take(self, key: str, burst: int) -> int | None:
        """How many were left out before this one; None: this one is, too."""
        now = self._monotonic()
        measure = self._measures.setdefault(key, _Measure(now))
        self._measures.move_to_end(key)
        while len(self._measures) > _MAX_KEYS:
            self._measures.popitem(last=False)
        free_at = max(measure.free_at, now)
        if free_at - now > (burst - 1) * SECONDS_EACH:
            measure.left_out += 1
            return None
        left_out, measure.left_out, measure.free_at = measure.left_out, 0, free_at + SECONDS_EACH
        return left_out


async def record_refusal(session: AsyncSession, job: Job, error: ErrorBody | None, now: datetime) -> None:
    """A RefusalObserver (controller.jobs.ports): a changed, replayed or foreign job is somebody's doing."""
    actor = Actor(kind="node", id=job.node_id, name="a node", role=Role.CLIENT, scopes=frozenset())
    ctx = OpContext(actor=actor, session=session, request_id=job.request_id, now=now)
    after: dict[str, Any] = {
        "code": error.code if error else "refused",
        "reason": error.message if error else "",
        "seq": job.seq,
    }
    if job.account_id is not None:
        after["account_id"] = job.account_id
    change = Change(action="job.refuse", target=f"job/{job.id}", target_name=job.label, after=after)
    await append_entries(ctx, (change,))
