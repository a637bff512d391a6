"""What a rule would do for a past event: asked as the rule itself, in a transaction that is thrown away."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import select

from controller.core.audit.models import AuditEntry
from controller.core.context import Actor
from controller.core.events.catalogue import Catalogue
from controller.core.operations import FleetContext, Operations
from controller.core.plan import PlanView
from controller.core.rules.actions import Deed, Occasion, act
from controller.core.rules.actor import find_actor
from controller.core.rules.conditions import ConditionResult, all_hold, judge
from controller.core.rules.following import Happening, happening_of, told_to
from controller.core.rules.models import PLATFORM, Rule, RunState
from controller.core.rules.service import get_rule, require_rules
from controller.core.rules.views import RuleAction, RuleTrial, RuleTry
from controller.core.webhooks.audience import LOST, OwnerFinder, Owners
from controller.db.criteria import widened
from controller.jobs.models import Job
from controller.jobs.states import FINAL
from shared.errors import FleetError, InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What was found out before anything is tried."""

    happening: Happening
    is_followed: bool
    conditions: tuple[ConditionResult, ...]
    rule_name: str
    action: RuleAction
    occasion: Occasion
    actor: Actor | None
    problem: str

    @property
    def would_run(self) -> bool:
        """Whether it comes to the action at all."""
        return self.is_followed and all_hold(self.conditions)


async def try_rule(
    operations: Operations, actor: Actor, request_id: str, question: tuple[str, RuleTry, Catalogue]
) -> RuleTrial:
    """Ask; `question`: id of the rule, the event, and all events there are.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    asked = await operations.read(actor, request_id, lambda ctx: _look(ctx, *question))
    deed, plan, error = Deed("", RunState.SKIPPED), None, None
    if asked.would_run and asked.actor is not None:
        try:
            deed, plan = await _dry_run(operations, asked, request_id)
        except FleetError as raised:
            error = raised
    problem = asked.problem if asked.would_run else ""
    return RuleTrial(
        event=asked.happening.name,
        subject=asked.happening.subject,
        is_followed=asked.is_followed,
        conditions=asked.conditions,
        would_run=asked.would_run,
        outcome=deed.words,
        error_code=error.code if error is not None else "forbidden" if problem else "",
        error=error.message if error is not None else problem,
        plan=plan,
    )


async def _dry_run(operations: Operations, asked: _Question, request_id: str) -> tuple[Deed, PlanView | None]:
    actor = asked.actor
    if actor is None:
        return Deed(asked.problem, RunState.SKIPPED), None
    outcome = await operations.change(
        actor, request_id, lambda ctx: act(ctx, asked.action, asked.occasion), is_dry_run=True
    )
    return outcome.resource, outcome.plan


async def _look(ctx: FleetContext, rule_id: str, params: RuleTry, catalogue: Catalogue) -> _Question:
    require_rules(ctx.actor, "write")
    rule = await get_rule(ctx, rule_id)
    happening = await _find_event(ctx, params)
    data = told_to(rule, happening, catalogue.find(happening.name))
    action = msgspec.convert(rule.action, RuleAction)
    with widened(ctx.session):  # a reseller's own user may have a role of the platform
        actor, problem = await find_actor(ctx.session, rule, action)
    return _Question(
        happening=happening,
        is_followed=data is not None,
        conditions=tuple(judge(rule.conditions, data)) if data is not None else (),
        rule_name=rule.name,
        action=action,
        occasion=_occasion(rule, happening, data or {}),
        actor=actor,
        problem=problem,
    )


def _occasion(rule: Rule, happening: Happening, data: dict[str, object]) -> Occasion:
    return Occasion(
        rule_id=rule.id,
        rule_name=rule.name,
        owner=rule.owner,
        event=happening.name,
        subject=happening.subject,
        account_id=happening.account_id,
        client_id=None if rule.owner == PLATFORM else happening.whose.client_id,
        data=data,
    )


async def _find_event(ctx: FleetContext, params: RuleTry) -> Happening:
    """From what the asker can see of the audit log and of jobs.

    Raises:
        InvalidInputError
    """
    if (params.audit_number is None) is (params.job_id is None):
        raise InvalidInputError("give either audit_number or job_id", field="audit_number")
    finder = OwnerFinder(ctx.session)
    if params.job_id is not None:
        job = (await ctx.session.scalars(select(Job).where(Job.id == params.job_id))).first()
        if job is None or job.state not in FINAL:
            raise InvalidInputError(f"there is no job {params.job_id[:80]!r} that has ended", field="job_id")
        return happening_of(job, await finder.of_account(job.account_id))
    statement = select(AuditEntry).where(AuditEntry.number == params.audit_number)
    entry = (await ctx.session.scalars(statement)).first()
    if entry is None:
        raise InvalidInputError(f"there is no audit entry {params.audit_number}", field="audit_number")
    return await _happening_of_entry(entry, finder)


async def _happening_of_entry(entry: AuditEntry, finder: OwnerFinder) -> Happening:
    noun, _, row_id = entry.target.partition("/")
    whose = Owners(
        account_id=None if entry.action in LOST else entry.account_id,
        client_id=entry.client_id,
        reseller_id=await finder.reseller_of(entry.client_id) if entry.client_id is not None else None,
    )
    if noun == "reseller":
        whose = Owners(reseller_id=row_id)
    state = entry.after or entry.before or {}
    if noun == "package" and isinstance(state.get("reseller_id"), str):
        whose = Owners(reseller_id=state["reseller_id"])
    data = {
        "id": row_id,
        "name": entry.target_name,
        "actor": entry.actor,
        "actor_name": entry.actor_name,
        "request_id": entry.request_id,
        "before": entry.before,
        "after": entry.after,
        "is_shortened": False,
    }
    return Happening(name=entry.action, subject=entry.target, data=data, whose=whose, account_id=whose.account_id)
