"""Use cases of one's own second factor."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.audit.chain import record
from controller.core.auth.attempts import get_user_of
from controller.core.auth.identities import Identity
from controller.core.auth.models import User
from controller.core.auth.networks import parse_networks, require_still_inside
from controller.core.auth.second_factor import Enrolment, FactorState, SecondFactors
from controller.core.auth.sessions import SignIn, read_permissions, require_person, rotate_session
from controller.core.context import Change, OpContext, Role
from controller.core.tenancy.grants import effective_permissions, find_excess
from shared.errors import ForbiddenError, NotFoundError


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A second factor that counts from now on."""

    sign_in: SignIn
    """The session under a new secret: it may do more than before."""
    recovery_codes: list[str]


async def show_factor(ctx: OpContext, factors: SecondFactors, identity: Identity) -> FactorState:
    """What the person has.

    Raises:
        ForbiddenError: A token without the scope asks.
    """
    ctx.actor.require("sessions", "read")
    return await factors.read_state(ctx.session, identity.user_id)


async def begin_factor(ctx: OpContext, factors: SecondFactors, identity: Identity) -> Enrolment:
    """Make a secret for the person's device.

    Raises:
        ForbiddenError: An API token asks.
        ConflictError: There is a second factor already.
    """
    require_person(identity, "begin a second factor")
    enrolment = await factors.begin(ctx.session, identity.user_id, identity.username)
    record(ctx, _change("user.begin_second_factor", identity))
    return enrolment


async def confirm_factor(ctx: OpContext, factors: SecondFactors, identity: Identity, code: str) -> Confirmed:
    """Let it count, and end the person's other sessions: they began without it.

    Raises:
        ForbiddenError: An API token asks.
        ConflictError: None was begun.
        InvalidInputError: The code is wrong.
    """
    require_person(identity, "confirm a second factor")
    codes = await factors.confirm(ctx.session, identity.user_id, code, ctx.now)
    await factors.end_other_sessions(ctx.session, identity.user_id, identity.credential_id)
    sign_in = await rotate_session(ctx.session, identity, ctx.now)
    record(ctx, _change("user.enable_second_factor", identity))
    return Confirmed(sign_in=sign_in, recovery_codes=codes)


async def renew_codes(ctx: OpContext, factors: SecondFactors, identity: Identity) -> list[str]:
    """New recovery codes in place of all others.

    Raises:
        ForbiddenError: An API token asks.
        NotFoundError: There is no second factor.
    """
    require_person(identity, "renew recovery codes")
    if not (await factors.read_state(ctx.session, identity.user_id)).is_enabled:
        raise NotFoundError("there is no second factor")
    record(ctx, _change("user.renew_recovery_codes", identity))
    return await factors.renew_recovery_codes(ctx.session, identity.user_id)


async def remove_factor(ctx: OpContext, factors: SecondFactors, identity: Identity) -> None:
    """Forget one's own; whoever calls has asked for the password or a code.

    Raises:
        ForbiddenError: An API token asks.
        NotFoundError: There is none.
    """
    require_person(identity, "disable a second factor")
    if not await factors.remove(ctx.session, identity.user_id):
        raise NotFoundError("there are no codes of a device to disable")
    record(ctx, _change("user.disable_second_factor", identity))


async def reset_factor(ctx: OpContext, factors: SecondFactors, username: str) -> None:
    """Forget the one of somebody who lost their device and their codes.

    Raises:
        ForbiddenError
        NotFoundError: There is no such person, or they have none.
    """
    ctx.actor.require("security", "write")
    user = await get_user_of(ctx.session, username)
    await _require_not_above(ctx, user)
    if not await factors.remove_all(ctx.session, user.id):
        raise NotFoundError(f"{user.username} has no second factor")
    record(ctx, Change("user.reset_second_factor", f"user/{user.id}", user.username))


async def set_user_networks(ctx: OpContext, username: str, allow: list[str], deny: list[str]) -> User:
    """Say where a person and their tokens may come from; two empty lists: from everywhere.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: The lists would lock out whoever asks.
    """
    ctx.actor.require("security", "write")
    user = await get_user_of(ctx.session, username)
    await _require_not_above(ctx, user)
    before = user.networks
    lists = {"allow": parse_networks(allow, field="allow"), "deny": parse_networks(deny, field="deny")}
    if user.id == ctx.actor.id:
        require_still_inside(ctx.actor.address, allow=lists["allow"], deny=lists["deny"])
    user.networks = lists if any(lists.values()) else None
    await ctx.session.flush()
    change = Change("user.set_networks", f"user/{user.id}", user.username, before=before, after=user.networks or {})
    record(ctx, change)
    return user


async def show_user_networks(ctx: OpContext, username: str) -> User:
    """Where a person may come from.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("security", "read")
    return await get_user_of(ctx.session, username)


async def _require_not_above(ctx: OpContext, user: User) -> None:
    """Pass unless somebody would weaken or lock out who may more than they do: root, or whom a custom role leaves more.

    Raises:
        ForbiddenError: They would.
    """
    if user.role == Role.ROOT.value and ctx.actor.role is not Role.ROOT:
        raise ForbiddenError(f"only root may change how {user.username} signs in")
    if user.id != ctx.actor.user_id:
        own = await read_permissions(ctx.session, user)
        if find_excess(ctx.actor, effective_permissions(Role(user.role), own)) is not None:
            raise ForbiddenError(f"{user.username} may more than you, so somebody else changes how they sign in")


def _change(action: str, identity: Identity) -> Change:
    return Change(action, f"user/{identity.user_id}", identity.username)
