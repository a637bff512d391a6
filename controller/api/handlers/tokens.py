"""API tokens of whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from controller.api.guards import require_identity
from controller.core.auth.models import ApiToken
from controller.core.auth.service import Authenticator
from controller.core.auth.tokens import TokenCreate as TokenParams
from controller.core.auth.tokens import create_token as create_token_use_case
from controller.core.auth.tokens import find_names
from controller.core.auth.tokens import list_tokens as list_tokens_query
from controller.core.auth.tokens import revoke_token as revoke_token_use_case
from controller.core.context import OpContext
from controller.core.http import DRY_RUN_RESPONSES, DryRun, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["tokens"]


class TokenCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new API token."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["deploy pipeline"])]
    scopes: Annotated[
        list[str],
        msgspec.Meta(
            min_length=1,
            max_length=32,
            description="`*`, `*:read`, `*:write`, or NOUN:read and NOUN:write.",
            examples=[["sites:write", "*:read"]],
        ),
    ] = msgspec.field(default_factory=lambda: ["*"])
    expires_at: Annotated[
        Annotated[datetime, msgspec.Meta(tz=True)] | None,
        msgspec.Meta(description="When it ends; null: when it is revoked."),
    ] = None
    allowed_networks: Annotated[
        list[str],
        msgspec.Meta(
            max_length=200,
            description="Where it may be used from, in CIDR notation; empty: everywhere its user may be.",
            examples=[["203.0.113.0/24"]],
        ),
    ] = []


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """An API token, without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, msgspec.Meta(description="Exact to five minutes.")]
    last_address: Annotated[str, msgspec.Meta(description="Where it was used from the last time; empty: never used.")]
    use_count: Annotated[int, msgspec.Meta(description="Requests it signed; other processes tell within minutes.")]
    allowed_networks: Annotated[list[str], msgspec.Meta(description="Empty: from everywhere.")]
    parent_id: Annotated[
        str | None, msgspec.Meta(description="The token that made it; it is revoked with that one. Null: you made it.")
    ]
    parent_name: Annotated[str, msgspec.Meta(description="Of the token that made it; else empty.")]


class TokenSecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just made."""

    token: TokenView
    secret: Annotated[str, msgspec.Meta(description="Shown once; nobody can read it again.", examples=["wcp_..."])]


class TokenPage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, newest first."""

    items: tuple[TokenView, ...]
    next_cursor: str | None


def render_token(row: ApiToken, names: Mapping[str, str]) -> TokenView:
    """The view of a token; `names` of tokens by id has its parent's."""
    return TokenView(
        id=row.id,
        name=row.name,
        scopes=list(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        last_address=row.last_address,
        use_count=row.use_count,
        allowed_networks=list(row.allowed_networks or ()),
        parent_id=row.parent_id,
        parent_name=names.get(row.parent_id or "", ""),
    )


@get("/tokens", operation_id="list-tokens", tags=_TAGS, summary="List my API tokens")
async def list_tokens(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    authenticator: NamedDependency[Authenticator],
    request_id: NamedDependency[str],
    limit: FromQuery[int] = DEFAULT_LIMIT,
    cursor: FromQuery[str | None] = None,
) -> TokenPage:
    """Show one's own tokens that are not revoked."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    identity.actor.require("tokens", "read")
    await authenticator.identities.write_uses()

    async def query(ctx: OpContext) -> TokenPage:
        found = await list_tokens_query(ctx, identity.user_id, page)
        names = await find_names(ctx, {row.parent_id for row in found.rows if row.parent_id is not None})
        return TokenPage(items=tuple(render_token(row, names) for row in found.rows), next_cursor=found.next_cursor)

    return await operations.read(identity.actor, request_id, query)


@post("/tokens", operation_id="create-token", tags=_TAGS, status_code=201, summary="Create an API token")
async def create_token(
    data: JSONBody[TokenCreate],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    authenticator: NamedDependency[Authenticator],
    request_id: NamedDependency[str],
) -> TokenSecretView:
    """Make a token with its own scopes; its secret is in this answer and nowhere else.

    What a token makes has no more than that token, and is revoked with it.
    """
    identity = require_identity(request)
    params = TokenParams(
        user_id=identity.user_id,
        name=data.name,
        scopes=tuple(data.scopes),
        expires_at=data.expires_at,
        allowed_networks=tuple(data.allowed_networks),
        asked=await authenticator.identities.obligations.find(identity.client_id),
    )
    outcome = await operations.change(identity.actor, request_id, lambda ctx: create_token_use_case(ctx, params))
    token = render_token(outcome.resource.row, {identity.credential_id: identity.actor.name})
    return TokenSecretView(token=token, secret=outcome.resource.secret)


@delete(
    "/tokens/{token_id:str}",
    operation_id="revoke-token",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Revoke a token",
)
async def revoke_token(
    *,
    token_id: FromPath[str],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """End a token at once, and all that it made, directly or through others; dry_run=true says which."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor,
        request_id,
        lambda ctx: revoke_token_use_case(ctx, identity.user_id, token_id),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=204)


ROUTES = (list_tokens, create_token, revoke_token)
