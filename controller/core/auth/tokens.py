"""API tokens: secrets for programs with scopes of their own."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.auth.models import ApiToken
from controller.core.auth.networks import parse_networks
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.context import Actor, Change, OpContext
from controller.core.fields import not_found, require_id, require_text
from controller.core.paging import PageRequest, Rows, fetch_page
from shared.errors import ForbiddenError, InvalidInputError

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
        ForbiddenError: The actor may not, or lacks one of the scopes.
    """
    ctx.actor.require(NOUN, "write")
    if params.expires_at is not None and params.expires_at <= ctx.now:
        raise InvalidInputError("the token would have expired already", field="expires_at")
    secret = new_secret(TOKEN_PREFIX)
    row = ApiToken(
        user_id=params.user_id,
        name=require_text("name", params.name, low=1, high=64),
        secret_hash=hash_secret(secret),
        scopes=parse_scopes(params.scopes, ctx.actor),
        expires_at=params.expires_at,
        last_used_at=None,
        revoked_at=None,
        allowed_networks=parse_networks(params.allowed_networks, field="allowed_networks") or None,
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


async def revoke_token(ctx: OpContext, user_id: str, token_id: str) -> None:
    """End a token at once.

    Raises:
        NotFoundError: The user has no such token.
    """
    ctx.actor.require(NOUN, "write")
    row = await ctx.session.get(ApiToken, require_id("token", token_id))
    if row is None or row.user_id != user_id or row.revoked_at is not None:
        raise not_found("token", token_id)
    before = _facts(row)
    row.revoked_at = ctx.now
    record(ctx, _change("token.revoke", row, before=before, after=None))


def _facts(row: ApiToken) -> dict[str, object]:
    return {
        "name": row.name,
        "scopes": list(row.scopes),
        "allowed_networks": list(row.allowed_networks or ()),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }


def _change(action: str, row: ApiToken, *, before: dict[str, object] | None, after: dict[str, object] | None) -> Change:
    return Change(action=action, target=f"token/{row.id}", target_name=row.name, before=before, after=after)
