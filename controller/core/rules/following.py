"""Notes, in the transaction of an event, which rules apply to it; what they do comes after the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.events.catalogue import Catalogue, EventType, fits
from controller.core.operations import FleetContext
from controller.core.rules.conditions import all_hold, judge
from controller.core.rules.models import PLATFORM, Rule, RuleRun, RunState
from controller.core.rules.views import request_id_of
from controller.core.webhooks.audience import Owners, narrow_data
from controller.core.webhooks.outbox import data_of
from controller.db.base import new_id, utc_now
from controller.jobs.models import Job
from controller.jobs.tasks import Tasks
from controller.jobs.views import render_notice

RUN_TASK: Final = "rules.run"
DEPTH_MAX: Final = 3
"""So many rules may follow from each other; the next one is stopped, and its history says so."""
HOUR: Final = timedelta(hours=1)
DATA_BYTES_MAX: Final = 64 * 1024
_RULE_ACTOR: Final = "rule/"
_REQUEST: Final = request_id_of("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One event, as rules look at it."""

    name: str
    subject: str
    data: dict[str, Any]
    """As the platform is told."""
    whose: Owners
    account_id: str | None
    """What it is about; also where `whose` names no account."""


class RuleBook:
    """Two ways in, as for webhooks: changes, and results of nodes."""

    def __init__(self, tasks: Tasks, catalogue: Catalogue) -> None:
        self._tasks = tasks
        self._catalogue = catalogue

    def is_there(self) -> ColumnElement[bool]:
        """A follower's (controller.core.reactions)."""
        return exists().where(Rule.is_enabled.is_(True), Rule.paused_at.is_(None))

    async def add_changes(self, ctx: FleetContext, owners: Sequence[Owners]) -> None:
        """The same."""
        found = []
        for change, whose in zip(ctx.changes, owners, strict=True):
            found.append(
                Happening(
                    name=change.action,
                    subject=change.target[:100],
                    data=msgspec.to_builtins(data_of(ctx, change), enc_hook=str),
                    whose=whose,
                    account_id=whose.account_id,
                )
            )
        cause = ctx.request_id if ctx.actor.reference.startswith(_RULE_ACTOR) else ""
        await self._follow(ctx.session, found, cause, ctx.now)

    async def add_result(self, session: AsyncSession, job: Job, whose: Owners) -> None:
        """The same."""
        cause = job.request_id if job.actor.startswith(_RULE_ACTOR) else ""
        await self._follow(session, [happening_of(job, whose)], cause, utc_now())

    async def _follow(self, session: AsyncSession, found: list[Happening], cause: str, now: datetime) -> None:
        rules = await _list_rules(session, found)
        depth = await _read_depth(session, cause) if rules and cause else 0
        counts: Counter[str] = Counter()
        is_any = False
        for happening in found:
            event = self._catalogue.find(happening.name)
            event_id = new_id()
            for rule in rules:
                data = told_to(rule, happening, event)
                if data is None or not all_hold(judge(rule.conditions, data)):
                    continue
                counts[rule.id] = counts[rule.id] or await count_runs(session, rule.id, now)
                if counts[rule.id] > rule.runs_per_hour:
                    continue  # the one before made it too many already
                counts[rule.id] += 1
                session.add(_run_of(rule, happening, data, event_id, depth, now))
                is_any = True
        if is_any:
            await session.flush()
            await self._tasks.add(session, RUN_TASK, {}, dedup_key=RUN_TASK)


def happening_of(job: Job, whose: Owners) -> Happening:
    """The end of a job."""
    return Happening(
        name=f"job.{job.state.value}",
        subject=f"job/{job.id}",
        data=render_notice(job),
        whose=whose,
        account_id=job.account_id,
    )


def told_to(rule: Rule, happening: Happening, event: EventType | None) -> dict[str, Any] | None:
    """What the rule's owner may know of it; None: it is no event that the rule follows, or not of its owner."""
    if not any(fits(pattern, happening.name) for pattern in rule.events):
        return None
    if rule.owner == PLATFORM:
        return happening.data
    is_theirs = rule.owner == f"reseller/{happening.whose.reseller_id}"
    if event is None or not event.is_for_tenants or not is_theirs:
        return None
    return narrow_data(event, happening.data, happening.whose) if "before" in happening.data else happening.data


async def count_runs(session: AsyncSession, rule_id: str, now: datetime) -> int:
    """How often the rule applied within the last hour."""
    statement = select(func.count()).where(
        RuleRun.rule_id == rule_id,
        RuleRun.created_at > now - HOUR,
        RuleRun.is_counted.is_(True),
        RuleRun.state != RunState.STOPPED,
    )
    return int((await session.execute(statement)).scalar_one())


async def _list_rules(session: AsyncSession, found: Iterable[Happening]) -> list[Rule]:
    """In the order in which they were made."""
    resellers = {happening.whose.reseller_id for happening in found} - {None}
    owners = [PLATFORM, *(f"reseller/{reseller_id}" for reseller_id in resellers)]
    statement = select(Rule).where(Rule.is_enabled.is_(True), Rule.paused_at.is_(None), Rule.owner.in_(owners))
    return list(await session.scalars(statement.order_by(Rule.id)))


async def _read_depth(session: AsyncSession, cause: str) -> int:
    """One more than that of the run that caused it. A rule that acts says which run it is; nobody else can."""
    run_id = cause.removeprefix(_REQUEST)
    found = (await session.scalars(select(RuleRun.depth).where(RuleRun.id == run_id))).first()
    return DEPTH_MAX + 1 if found is None else found + 1


def _run_of(
    rule: Rule, happening: Happening, data: Mapping[str, Any], event_id: str, depth: int, now: datetime
) -> RuleRun:
    text = msgspec.json.encode(data, enc_hook=str)
    if len(text) > DATA_BYTES_MAX:
        short = {name: data[name] for name in ("id", "name", "actor", "actor_name") if name in data}
        text = msgspec.json.encode({**short, "is_shortened": True}, enc_hook=str)
    is_stopped = depth > DEPTH_MAX
    is_platform = rule.owner == PLATFORM
    return RuleRun(
        rule_id=rule.id,
        event_id=event_id,
        account_id=None if is_platform else happening.whose.account_id,
        client_id=None if is_platform else happening.whose.client_id,
        event=happening.name,
        subject=happening.subject,
        target_account_id=happening.account_id,
        data=text.decode(),
        depth=depth,
        state=RunState.STOPPED if is_stopped else RunState.PENDING,
        outcome=f"rules led to this event {depth} deep: the chain ends here" if is_stopped else "",
        next_at=now,
        finished_at=now if is_stopped else None,
        created_at=now,
        updated_at=now,
    )
