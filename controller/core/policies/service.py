"""What an administrator sees and decides of the platform's policies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta
from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.context import Change, OpContext
from controller.core.policies.book import read_policies
from controller.core.policies.models import PlatformPolicyRow
from controller.core.policies.registry import (
    KINDS,
    PlatformPolicies,
    PlatformPoliciesUpdate,
    PolicyKind,
    PolicyValue,
    get_kind,
    require_consistent,
)

NOUN: Final = "policies"


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """One policy: what holds, what else may, and who decides."""

    name: str
    group: Annotated[str, Meta(description="What it belongs to.", examples=["sessions"])]
    value: Annotated[PolicyValue, Meta(description="What holds; null: without, as the description says.")]
    default: Annotated[PolicyValue, Meta(description="What holds when nobody decided.")]
    is_default: Annotated[bool, Meta(description="Whether nobody decided, or decided just that.")]
    unit: Annotated[str, Meta(description="Empty: none.", examples=["days"])]
    type: Literal["integer", "boolean", "text"]
    minimum: int | None
    maximum: int | None
    choices: Annotated[tuple[str, ...], Meta(description="The words that it may be; empty: any value in range.")]
    is_nullable: bool
    description: str
    permission: Annotated[str, Meta(description="Who may change it.", examples=["security:write"])]
    needs_step_up: Annotated[bool, Meta(description="Whether a change asks a person to prove who they are.")]
    changed_at: Annotated[datetime | None, Meta(description="Null: it is as by default.")]
    changed_by: str


class PolicyList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, group by group; there are as many as this release has, so the list has no pages."""

    items: tuple[PolicyView, ...]


async def list_policies(ctx: OpContext) -> PolicyList:
    """What holds, and what could.

    Raises:
        ForbiddenError
    """
    ctx.actor.require_platform(NOUN, "read")
    return await _view_all(ctx)


async def show_policy(ctx: OpContext, name: str) -> PolicyView:
    """One policy.

    Raises:
        ForbiddenError
        NotFoundError: There is none of this name.
    """
    ctx.actor.require_platform(NOUN, "read")
    get_kind(name)
    return next(view for view in (await _view_all(ctx)).items if view.name == name)


async def update_policies(ctx: OpContext, params: PlatformPoliciesUpdate) -> PolicyList:
    """Change those that are given, all or none of them; returns all.

    Raises:
        ForbiddenError: Of one of them that is given.
        InvalidInputError: They do not go together with each other, or with the others (`policy_conflict`).
    """
    ctx.actor.require_platform(NOUN, "read")
    given = given_of(params)
    _require_may_change(ctx, given)
    await _apply(ctx, given)
    return await _view_all(ctx)


async def reset_policy(ctx: OpContext, name: str) -> PolicyView:
    """Let the default hold again; doing it twice is the same.

    Raises:
        ForbiddenError
        NotFoundError: There is none of this name.
        InvalidInputError: The default does not go together with another policy (`policy_conflict`).
    """
    ctx.actor.require_platform(NOUN, "read")
    kind = get_kind(name)
    _require_may_change(ctx, (name,))
    await _apply(ctx, {name: kind.default})
    return await show_policy(ctx, name)


def given_of(params: PlatformPoliciesUpdate) -> dict[str, Any]:
    """The values of a body that are there."""
    return {name: value for name, value in msgspec.structs.asdict(params).items() if value is not UNSET}


def _require_may_change(ctx: OpContext, names: Collection[str]) -> None:
    for noun in sorted({KINDS[name].noun for name in names}) or [NOUN]:
        ctx.actor.require_platform(noun, "write")


async def _apply(ctx: OpContext, given: Mapping[str, Any]) -> None:
    before = await read_policies(ctx.session)
    after: PlatformPolicies = msgspec.structs.replace(before, **given)
    require_consistent(after)
    changed = [name for name in given if getattr(after, name) != getattr(before, name)]
    rows = {row.name: row for row in await ctx.session.scalars(select(PlatformPolicyRow))}
    for name, value in given.items():
        await _store(ctx, KINDS[name], value, rows.get(name))
    await ctx.session.flush()
    for name in changed:  # an entry for each, so that the story of one can be read by its target
        record(
            ctx,
            Change(
                action="policy.update",
                target=f"policy/{name}",
                target_name=name,
                before={"value": getattr(before, name)},
                after={"value": getattr(after, name)},
            ),
        )


async def _store(ctx: OpContext, kind: PolicyKind, value: PolicyValue, row: PlatformPolicyRow | None) -> None:
    if value == kind.default:
        if row is not None:
            await ctx.session.delete(row)
        return
    if row is None:
        row = PlatformPolicyRow(name=kind.name, created_at=ctx.now, updated_at=ctx.now)
        ctx.session.add(row)
    elif row.value == value:
        return
    row.value, row.changed_by, row.updated_at = value, ctx.actor.name[:200], ctx.now


async def _view_all(ctx: OpContext) -> PolicyList:
    policies = await read_policies(ctx.session)
    rows = {row.name: row for row in await ctx.session.scalars(select(PlatformPolicyRow))}
    return PolicyList(items=tuple(_view(kind, policies, rows.get(kind.name)) for kind in KINDS.values()))


def _view(kind: PolicyKind, policies: PlatformPolicies, row: PlatformPolicyRow | None) -> PolicyView:
    value = getattr(policies, kind.name)
    return PolicyView(
        name=kind.name,
        group=kind.group,
        value=value,
        default=kind.default,
        is_default=value == kind.default,
        unit=kind.unit,
        type=kind.type,
        minimum=kind.minimum,
        maximum=kind.maximum,
        choices=kind.choices,
        is_nullable=kind.is_nullable,
        description=kind.description,
        permission=f"{kind.noun}:write",
        needs_step_up=kind.is_sensitive,
        changed_at=row.updated_at if row is not None else None,
        changed_by=row.changed_by if row is not None else "",
    )
