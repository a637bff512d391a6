"""Use cases of rules."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import Actor, Change, OpContext
from controller.core.events.catalogue import Catalogue, EventType, fits
from controller.core.fields import not_found, require_id, require_text
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.rules.actions import require_action, require_may_act
from controller.core.rules.actor import owner_of
from controller.core.rules.conditions import Condition, require_conditions
from controller.core.rules.models import PLATFORM, Rule, RuleRun, RunState
from controller.core.rules.runner import skip_waiting
from controller.core.rules.views import (
    RuleAction,
    RuleCreate,
    RulePage,
    RuleRunPage,
    RuleUpdate,
    RuleView,
    state_of,
    view_rule,
    view_run,
)
from controller.core.tenancy.catalogue import list_held
from shared.errors import ConflictError, ForbiddenError, InvalidInputError, QuotaExceededError

RULES_MAX: Final = 100
"""Of the platform."""
RESELLER_RULES_MAX: Final = 20
"""Of each reseller."""


async def list_rules(ctx: OpContext, page: PageRequest) -> RulePage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    require_rules(ctx.actor, "read")
    statement = select(Rule)
    condition = contains((Rule.name, Rule.description), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    return RulePage(items=tuple(view_rule(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_rule(ctx: OpContext, rule_id: str) -> RuleView:
    """One rule.

    Raises:
        ForbiddenError, NotFoundError
    """
    require_rules(ctx.actor, "read")
    return view_rule(await get_rule(ctx, rule_id))


async def create_rule(ctx: FleetContext, params: RuleCreate, catalogue: Catalogue) -> RuleView:
    """Add a rule; it follows what happens from now on.

    Raises:
        ForbiddenError: Also when they could not do themselves what the rule is to do.
        InvalidInputError
        ConflictError: There is one of this name.
        QuotaExceededError: There are very many.
    """
    owner = require_rules(ctx.actor, "write")
    await _require_room(ctx, owner, params.name)
    events = catalogue.require_patterns(params.events, is_for_tenants=owner != PLATFORM)
    row = Rule(
        name=params.name,
        owner=owner,
        description=require_text("description", params.description, high=500),
        events=events,
        conditions=_require_conditions(catalogue, owner, events, params.conditions),
        action=await require_action(ctx, params.action, owner),
        is_enabled=params.is_enabled,
        runs_per_hour=params.runs_per_hour,
        maker_id=ctx.actor.user_id or None,
        maker_name=ctx.actor.name,
        grants=list_held(ctx.actor),
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(row)
    await ctx.session.flush()
    record(ctx, Change("rule.create", f"rule/{row.id}", row.name, after=state_of(row)))
    return view_rule(row)


async def update_rule(ctx: FleetContext, rule_id: str, params: RuleUpdate, catalogue: Catalogue) -> RuleView:
    """Change a rule; who does so answers for it from now on, and must be able to do themselves what it does.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    owner = require_rules(ctx.actor, "write")
    row = await get_rule(ctx, rule_id)
    _require_own(row, owner)
    before = state_of(row)
    if params.events is not UNSET:
        row.events = catalogue.require_patterns(params.events, is_for_tenants=owner != PLATFORM)
    if params.events is not UNSET or params.conditions is not UNSET:
        kept = tuple(msgspec.convert(one, Condition) for one in row.conditions)
        wanted = kept if params.conditions is UNSET else params.conditions
        row.conditions = _require_conditions(catalogue, owner, row.events, wanted)
    action = msgspec.convert(row.action, RuleAction) if params.action is UNSET else params.action
    row.action = await require_action(ctx, action, owner)
    if params.description is not UNSET:
        row.description = require_text("description", params.description, high=500)
    if params.is_enabled is not UNSET:
        row.is_enabled = params.is_enabled
    if params.runs_per_hour is not UNSET:
        row.runs_per_hour = params.runs_per_hour
    _take_over(ctx, row)
    if state_of(row) != before:
        row.updated_at = ctx.now
        await ctx.session.flush()
        record(ctx, Change("rule.update", f"rule/{row.id}", row.name, before=before, after=state_of(row)))
    return view_rule(row)


async def delete_rule(ctx: OpContext, rule_id: str) -> None:
    """Remove a rule with its history; what waits is not done.

    Raises:
        ForbiddenError, NotFoundError
    """
    require_rules(ctx.actor, "write")
    row = await get_rule(ctx, rule_id)
    before = state_of(row)
    await ctx.session.delete(row)
    await ctx.session.flush()
    record(ctx, Change("rule.delete", f"rule/{row.id}", row.name, before=before))


async def resume_rule(ctx: FleetContext, rule_id: str) -> RuleView:
    """Let a paused rule act again, on what happens from now on; who does so answers for it.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not paused.
    """
    owner = require_rules(ctx.actor, "write")
    row = await get_rule(ctx, rule_id)
    _require_own(row, owner)
    if row.paused_at is None:
        raise ConflictError("the rule is not paused")
    require_may_act(ctx.actor, msgspec.convert(row.action, RuleAction))
    row.paused_at, row.pause_reason, row.updated_at = None, "", ctx.now
    _take_over(ctx, row)
    # What was counted before somebody looked does not count against it now.
    await _forget_window(ctx.session, row.id)
    await skip_waiting(ctx.session, row.id, ctx.now, "the rule was paused")
    await ctx.session.flush()
    record(ctx, Change("rule.resume", f"rule/{row.id}", row.name, after={"maker": row.maker_name}))
    return view_rule(row)


async def list_runs(ctx: OpContext, rule_id: str, page: PageRequest, *, state: str | None) -> RuleRunPage:
    """What a rule did, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    require_rules(ctx.actor, "read")
    rule = await get_rule(ctx, rule_id)
    statement = select(RuleRun).where(RuleRun.rule_id == rule.id)
    if state is not None:
        statement = statement.where(RuleRun.state == _parse_state(state))
    found = await fetch_page(ctx.session, statement, page)
    return RuleRunPage(items=tuple(view_run(row) for row in found.rows), next_cursor=found.next_cursor)


def require_rules(actor: Actor, verb: str) -> str:
    """Whose rules the actor makes; a rule's history says what the audit log says, so a tenant needs that, too.

    Raises:
        ForbiddenError
    """
    actor.require("rules", verb)
    owner = owner_of(actor.reach)
    if not owner:
        raise ForbiddenError(f"{actor.name} may not {verb} rules")
    if owner != PLATFORM:
        actor.require("audit", "read")
    return owner


async def get_rule(ctx: OpContext, rule_id: str) -> Rule:
    """The rule.

    Raises:
        NotFoundError
    """
    row = await ctx.session.get(Rule, require_id("rule", rule_id))
    if row is None:
        raise not_found("rule", rule_id)
    return row


async def remove_rules_of(session: AsyncSession, reseller_id: str) -> None:
    """A reseller takes its rules along."""
    await session.execute(delete(Rule).where(Rule.owner == f"reseller/{reseller_id}"))


def _require_own(row: Rule, owner: str) -> None:
    """An administrator would make a reseller's rule one that may more than the reseller."""
    if row.owner != owner:
        raise ForbiddenError(
            "a rule is changed by those whose it is", hint="You can delete it, or ask somebody of the reseller."
        )


def _take_over(ctx: OpContext, row: Rule) -> None:
    row.maker_id, row.maker_name, row.grants = ctx.actor.user_id or None, ctx.actor.name, list_held(ctx.actor)


def _require_conditions(
    catalogue: Catalogue, owner: str, patterns: list[str], conditions: tuple[Condition, ...]
) -> list[dict[str, Any]]:
    return require_conditions(conditions, _list_events(catalogue, owner, patterns))


def _list_events(catalogue: Catalogue, owner: str, patterns: list[str]) -> list[EventType]:
    """All that the patterns name, as far as the owner is told of them."""
    return [
        event
        for event in catalogue
        if event.data is not None
        and (owner == PLATFORM or event.is_for_tenants)
        and any(fits(pattern, event.name) for pattern in patterns)
    ]


async def _require_room(ctx: OpContext, owner: str, name: str) -> None:
    own = select(func.count()).select_from(Rule).where(Rule.owner == owner)
    high = RULES_MAX if owner == PLATFORM else RESELLER_RULES_MAX
    if (await ctx.session.scalars(own)).one() >= high:
        raise QuotaExceededError(f"there are {high} rules already", hint="Delete one that nobody needs.")
    if (await ctx.session.scalars(own.where(Rule.name == name))).one():
        raise ConflictError(f"there is a rule {name!r} already", context={"field": "name"})


async def _forget_window(session: AsyncSession, rule_id: str) -> None:
    """The rate begins anew."""
    counted = update(RuleRun).where(RuleRun.rule_id == rule_id, RuleRun.is_counted.is_(True))
    await session.execute(counted.values(is_counted=False).execution_options(synchronize_session=False))


def _parse_state(raw: str) -> RunState:
    try:
        return RunState(raw)
    except ValueError as error:
        known = ", ".join(state.value for state in RunState)
        raise InvalidInputError(f"state is one of {known}", field="state") from error
