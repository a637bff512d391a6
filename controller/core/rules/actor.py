"""Who a rule is when it acts: its maker, as far as they may now what they might when they made it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.identities import Standing, reach_of
from controller.core.auth.models import User
from controller.core.auth.sessions import read_permissions
from controller.core.context import Actor, Reach, ReachKind, Role
from controller.core.permissions import EVERYTHING
from controller.core.rules.actions import require_may_act
from controller.core.rules.models import PLATFORM, Rule
from controller.core.rules.views import RuleAction
from shared.errors import ForbiddenError


async def find_actor(session: AsyncSession, rule: Rule, action: RuleAction) -> tuple[Actor | None, str]:
    """The actor; or None, and why the rule may not act any more. For a session that sees everybody's rows."""
    user = await session.get(User, rule.maker_id, populate_existing=True) if rule.maker_id is not None else None
    if user is None:
        return None, f"{rule.maker_name}, who answers for it, is gone"
    if user.disabled_at is not None:
        return None, f"{user.username}, who answers for it, is shut out"
    permissions = await read_permissions(session, user)
    standing = Standing(user.role, user.reseller_id, user.client_id, permissions)
    reach = reach_of(user.id, standing)
    if owner_of(reach) != rule.owner:
        return None, f"{user.username}, who answers for it, does not work for its owner any more"
    actor = Actor(
        kind="rule",
        id=rule.name,
        name=f"rule {rule.name}",
        role=Role(user.role),
        scopes=frozenset(rule.grants),
        permissions=EVERYTHING if permissions is None else frozenset(permissions),
        reach=reach,
        user_id=user.id,
    )
    try:
        actor.require("rules", "write")
        require_may_act(actor, action)
    except ForbiddenError:
        return None, f"{user.username}, who answers for it, may not do this any more"
    return actor, ""


def owner_of(reach: Reach) -> str:
    """Whose rules somebody makes; empty: nobody's."""
    if reach.is_everything:
        return PLATFORM
    return f"reseller/{reach.id}" if reach.kind is ReachKind.RESELLER and reach.id else ""
