"""API tokens: secrets for programs with scopes of their own.

What a token makes is bound to it: it has no more scopes, time or networks, and it is revoked with it. So who finds out
that a secret leaked revokes one token, and whatever somebody made with it meanwhile is over as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.models import ApiToken
from controller.core.auth.networks import is_part_of, parse_networks
from controller.core.auth.package_policy import NOTHING_ASKED, PackagePolicy
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.context import Actor, Change, OpContext
from controller.core.fields import not_found, require_id, require_text
from controller.core.paging import PageRequest, Rows, fetch_page
from controller.core.policies.book import read_policies
from shared.errors import ForbiddenError, InvalidInputError, QuotaExceededError, UnauthenticatedError

NOUN: Final = "tokens"
MAX_SCOPES: Final = 32

_SCOPE = re.compile(r"\*|(?:\*|[a-z][a-z-]{1,30}):(?:read|write)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreate:
    """What a new token is to be."""

    user_id: str
    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    allowed_networks: tuple[str, ...] = ()
    """In CIDR notation; empty: from everywhere."""
    asked: PackagePolicy = NOTHING_ASKED
    """What the packages of the user's accounts say (controller.core.auth.obligations)."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made. `secret` exists nowhere else."""

    row: ApiToken
    secret: str


def parse_scopes(scopes: Collection[str], holder: Actor) -> list[str]:
    """Return the scopes in order, each once.

    A wildcard means all that the holder may at the time of a request: role and custom role narrow a token always.

    Raises:
        InvalidInputError: There is none, or one is not `*`, `*:read`, `*:write`, `NOUN:read` or `NOUN:write`.
        ForbiddenError: The holder does not have one of them: nobody hands out what they have not.
    """
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise InvalidInputError(f"a token has 1 to {MAX_SCOPES} scopes", field="scopes")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise InvalidInputError(f"{scope[:60]!r} is not a scope such as sites:read or *", field="scopes")
        noun, _, verb = scope.rpartition(":")
        is_held = holder.scopes & {"*", scope, f"*:{verb}"} if "*" in scope else holder.may(noun, verb)
        if not is_held:
            raise ForbiddenError(f"{holder.name} has not the scope {scope} and cannot give it")
    return sorted(set(scopes))


async def create_token(ctx: OpContext, params: TokenCreate) -> NewToken:
    """Make a token for the user who asks.

    Raises:
        InvalidInputError: A field is outside its rules.
        ForbiddenError: The actor may not, lacks one of the scopes, no package of their accounts has API tokens, or is a
            token that ends earlier or may not come from there. What is left out is as it is for that token.
        UnauthenticatedError: The actor is a token that was revoked a moment ago.
        QuotaExceededError: `too_many_tokens`: the user has as many as there may be.
    """
    ctx.actor.require(NOUN, "write")
    params.asked.require_tokens(ctx.actor.name)
    if params.expires_at is not None and params.expires_at <= ctx.now:
        raise InvalidInputError("the token would have expired already", field="expires_at")
    networks = parse_networks(params.allowed_networks, field="allowed_networks")
    bounds = await _read_bounds(ctx)
    await _require_room(ctx, params.user_id)
    secret = new_secret(TOKEN_PREFIX)
    row = ApiToken(
        user_id=params.user_id,
        name=require_text("name", params.name, low=1, high=64),
        secret_hash=hash_secret(secret),
        scopes=parse_scopes(params.scopes, ctx.actor),
        expires_at=_within_time(params.expires_at, bounds),
        last_used_at=None,
        revoked_at=None,
        allowed_networks=_within_networks(networks, bounds) or None,
        parent_id=bounds.id if bounds is not None else None,
    )
    ctx.session.add(row)
    await ctx.session.flush()
    record(ctx, _change("token.create", row, before=None, after=_facts(row)))
    return NewToken(row=row, secret=secret)


async def list_tokens(ctx: OpContext, user_id: str, page: PageRequest) -> Rows[ApiToken]:
    """Tokens of one user that are not revoked, newest first."""
    ctx.actor.require(NOUN, "read")
    query = select(ApiToken).where(ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
    return await fetch_page(ctx.session, query, page)


async def find_names(ctx: OpContext, token_ids: Collection[str]) -> Mapping[str, str]:
    """The names of these tokens, by their ids."""
    ctx.actor.require(NOUN, "read")
    if not token_ids:
        return {}
    found = await ctx.session.execute(select(ApiToken.id, ApiToken.name).where(ApiToken.id.in_(token_ids)))
    return {row.id: row.name for row in found}


async def revoke_token(ctx: OpContext, user_id: str, token_id: str) -> None:
    """End a token at once, and all that came from it, directly or through others.

    Raises:
        NotFoundError: The user has no such token.
    """
    ctx.actor.require(NOUN, "write")
    row = await ctx.session.get(ApiToken, require_id("token", token_id))
    if row is None or row.user_id != user_id or row.revoked_at is not None:
        raise not_found("token", token_id)
    offspring = await _list_offspring(ctx.session, row.id, ctx.now)
    row.revoked_at = ctx.now
    record(ctx, _change("token.revoke", row, before=_facts(row), after=None))
    for made in offspring:
        made.revoked_at = ctx.now
        record(ctx, _change("token.revoke", made, before=_facts(made), after={"revoked_with": f"token/{row.id}"}))


async def _list_offspring(session: AsyncSession, token_id: str, now: datetime) -> Sequence[ApiToken]:
    """What came from this token and has not ended, the oldest first."""
    made = select(ApiToken.id).where(ApiToken.parent_id == token_id).cte("made", recursive=True)
    made = made.union(select(ApiToken.id).where(ApiToken.parent_id == made.c.id))
    offspring = select(ApiToken).where(ApiToken.id.in_(select(made.c.id)), *_is_living(now))
    return (await session.scalars(offspring.order_by(ApiToken.id))).all()


def _is_living(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return ApiToken.revoked_at.is_(None), or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > now)


async def _require_room(ctx: OpContext, user_id: str) -> None:
    """Also so that whoever has a leaked token cannot make more of it than one revocation takes along in a moment."""
    maximum = (await read_policies(ctx.session)).tokens_max
    living = select(func.count()).select_from(ApiToken).where(ApiToken.user_id == user_id, *_is_living(ctx.now))
    if (await ctx.session.scalar(living) or 0) >= maximum:
        raise QuotaExceededError(
            f"one person has at most {maximum} API tokens",
            code="too_many_tokens",
            hint="Revoke one that nobody uses: `wcp360 tokens list` says when each was used last.",
        )


async def _read_bounds(ctx: OpContext) -> ApiToken | None:
    """The token that asks: nobody gives more than they have, and time and place are part of that. None: a person.

    Changes follow one another, so a token that is not revoked here is not before this change is committed.
    """
    if ctx.actor.kind != "token":
        return None
    row = await ctx.session.get(ApiToken, ctx.actor.id)
    if row is None or row.revoked_at is not None:
        raise UnauthenticatedError("the token is not valid any more", hint="Sign in, or use another token.")
    return row


def _within_time(wanted: datetime | None, bounds: ApiToken | None) -> datetime | None:
    if bounds is None or bounds.expires_at is None:
        return wanted
    if wanted is not None and wanted > bounds.expires_at:
        raise ForbiddenError(f"{bounds.name} ends at {bounds.expires_at:%Y-%m-%dT%H:%MZ} and makes nothing that lasts")
    return wanted or bounds.expires_at


def _within_networks(wanted: list[str], bounds: ApiToken | None) -> list[str]:
    if bounds is None or not bounds.allowed_networks:
        return wanted
    outside = [network for network in wanted if not is_part_of(network, bounds.allowed_networks)]
    if outside:
        raise ForbiddenError(f"{bounds.name} may not come from {outside[0]} and cannot let another token")
    return wanted or list(bounds.allowed_networks)


def _facts(row: ApiToken) -> dict[str, object]:
    return {
        "name": row.name,
        "scopes": list(row.scopes),
        "allowed_networks": list(row.allowed_networks or ()),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        **({"made_by": f"token/{row.parent_id}"} if row.parent_id is not None else {}),
    }


def _change(action: str, row: ApiToken, *, before: dict[str, object] | None, after: dict[str, object] | None) -> Change:
    return Change(action=action, target=f"token/{row.id}", target_name=row.name, before=before, after=after)
