"""Use cases of one's own passkeys."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.auth.identities import Identity
from controller.core.auth.models import Passkey
from controller.core.auth.passkeys import Challenge, PasskeyProof
from controller.core.auth.second_factor import SecondFactors
from controller.core.auth.service import asker_of
from controller.core.auth.sessions import SignIn, require_person, rotate_session
from controller.core.context import Change, OpContext
from controller.core.fields import not_found, require_id, require_text
from controller.core.paging import PageRequest, Rows, fetch_page

NOUN = "sessions"


@dataclass(frozen=True, slots=True)
class Registered:
    """A passkey that counts from now on."""

    passkey: Passkey
    sign_in: SignIn
    """The session under a new secret: it may do more than before."""
    recovery_codes: list[str]
    """Empty unless it is the first factor."""


async def list_passkeys(ctx: OpContext, identity: Identity, page: PageRequest) -> Rows[Passkey]:
    """One's own, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    return await fetch_page(ctx.session, select(Passkey).where(Passkey.user_id == identity.user_id), page)


async def begin_passkey(ctx: OpContext, factors: SecondFactors, identity: Identity) -> Challenge:
    """Ask the person's device for a key.

    Raises:
        ForbiddenError: An API token asks.
        ConflictError: The controller has no name, or the person has enough of them.
    """
    require_person(identity, "register a passkey")
    record(ctx, _change("user.begin_passkey", identity))
    return await factors.passkeys.begin_registration(ctx.session, asker_of(identity), identity.username, ctx.now)


async def create_passkey(
    ctx: OpContext, factors: SecondFactors, identity: Identity, proof: PasskeyProof, name: str
) -> Registered:
    """Keep it, and end the person's other sessions when it is the first factor: they began without one.

    Raises:
        ForbiddenError: An API token asks.
        InvalidInputError: The name or the device's answer is not good.
        ConflictError: It is registered already.
    """
    require_person(identity, "register a passkey")
    is_first = not (await factors.read_state(ctx.session, identity.user_id)).is_enabled
    asker = asker_of(identity)
    row = await factors.passkeys.finish_registration(ctx.session, asker, proof, name, ctx.now)
    codes = await factors.welcome(ctx.session, identity.user_id, is_first=is_first)
    if is_first:
        await factors.end_other_sessions(ctx.session, identity.user_id, identity.credential_id)
    sign_in = await rotate_session(ctx.session, identity, ctx.now)
    record(ctx, _change("user.add_passkey", identity, after={"id": row.id, "name": row.name}))
    return Registered(passkey=row, sign_in=sign_in, recovery_codes=codes)


async def rename_passkey(ctx: OpContext, identity: Identity, passkey_id: str, name: str) -> Passkey:
    """Call it otherwise.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require(NOUN, "write")
    row = await _get_own(ctx, identity, passkey_id)
    before, row.name = row.name, require_text("name", name, low=1, high=64)
    await ctx.session.flush()
    record(ctx, _change("user.rename_passkey", identity, before={"name": before}, after={"name": row.name}))
    return row


async def delete_passkey(ctx: OpContext, factors: SecondFactors, identity: Identity, passkey_id: str) -> None:
    """Believe it no more; with the last factor go the recovery codes.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "write")
    row = await _get_own(ctx, identity, passkey_id)
    await ctx.session.delete(row)
    await ctx.session.flush()
    await factors.settle(ctx.session, identity.user_id)
    record(ctx, _change("user.delete_passkey", identity, before={"id": row.id, "name": row.name}))


async def _get_own(ctx: OpContext, identity: Identity, passkey_id: str) -> Passkey:
    row = await ctx.session.get(Passkey, require_id("passkey", passkey_id))
    if row is None or row.user_id != identity.user_id:
        raise not_found("passkey", passkey_id)
    return row


def _change(
    action: str, identity: Identity, before: dict[str, str] | None = None, after: dict[str, str] | None = None
) -> Change:
    return Change(action, f"user/{identity.user_id}", identity.username, before=before, after=after)
