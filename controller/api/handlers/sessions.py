"""One's own sessions, and who tried to sign in with one's name."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from msgspec import Meta

from controller.api.guards import require_identity
from controller.core.auth.attempts import list_own_attempts
from controller.core.auth.models import Session, SignInAttempt
from controller.core.auth.sessions import list_sessions as list_sessions_query
from controller.core.auth.sessions import revoke_other_sessions as revoke_other_sessions_use_case
from controller.core.auth.sessions import revoke_session as revoke_session_use_case
from controller.core.http import Cursor, Limit, PathId
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["sessions"]


class DeviceSessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in on one device."""

    id: str
    user_agent: Annotated[str, Meta(description="What the device calls itself; it may lie.")]
    address: Annotated[str, Meta(description="Where it signed in from.")]
    created_at: datetime
    last_used_at: Annotated[datetime, Meta(description="Exact to five minutes, as is last_address.")]
    last_address: str
    expires_at: datetime
    is_current: Annotated[bool, Meta(description="Whether it is the one that asks.")]
    impersonated_by: Annotated[
        str, Meta(description="The administrator who views as this person with it; empty: it is one's own.")
    ]


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, newest first."""

    items: tuple[DeviceSessionView, ...]
    next_cursor: str | None


class SignInView(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody signed in, or tried to."""

    id: str
    at: datetime
    username: str
    is_success: bool
    reason: Annotated[
        str,
        Meta(
            description="signed_in, wrong_password, unknown_user, disabled, tenant_suspended, network_refused, "
            "code_asked (the password was right), wrong_code, wrong_passkey or passkey_copied (it counted backwards)."
        ),
    ]
    address: str
    user_agent: str
    signals: Annotated[
        list[str], Meta(description="What was unusual about a success: new_network, new_device, impossible_pace.")
    ]


class SignInPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sign-ins, newest first."""

    items: tuple[SignInView, ...]
    next_cursor: str | None


class EndedSessions(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions were ended."""

    ended: int


def render_sign_in(row: SignInAttempt) -> SignInView:
    """The view of an attempt."""
    return SignInView(
        id=row.id,
        at=row.created_at,
        username=row.username,
        is_success=row.is_success,
        reason=row.reason,
        address=row.address,
        user_agent=row.user_agent,
        signals=list(row.signals),
    )


def _render_session(row: Session, own_id: str) -> DeviceSessionView:
    return DeviceSessionView(
        id=row.id,
        user_agent=row.user_agent,
        address=row.address,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        last_address=row.last_address,
        expires_at=row.expires_at,
        is_current=row.id == own_id,
        impersonated_by=row.impersonator_name if row.impersonator_id is not None else "",
    )


@get("/sessions", operation_id="list-sessions", tags=_TAGS, summary="List my sessions")
async def list_sessions(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> SessionPage:
    """Show where one is signed in."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    found = await operations.read(
        identity.actor, request_id, lambda ctx: list_sessions_query(ctx, identity.user_id, page)
    )
    items = tuple(_render_session(row, identity.credential_id) for row in found.rows)
    return SessionPage(items=items, next_cursor=found.next_cursor)


@delete(
    "/sessions/{session_id:str}",
    operation_id="revoke-session",
    tags=_TAGS,
    status_code=204,
    summary="End one of my sessions",
)
async def revoke_session(
    session_id: PathId,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> None:
    """Sign a device out at once."""
    identity = require_identity(request)
    await operations.change(
        identity.actor, request_id, lambda ctx: revoke_session_use_case(ctx, identity.user_id, session_id)
    )


@post(
    "/sessions/revoke-others",
    operation_id="revoke-other-sessions",
    tags=_TAGS,
    status_code=200,
    summary="End all my other sessions",
)
async def revoke_other_sessions(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> EndedSessions:
    """Sign all devices out but the one that asks; an API token that asks ends all."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor,
        request_id,
        lambda ctx: revoke_other_sessions_use_case(ctx, identity.user_id, identity.credential_id),
    )
    return EndedSessions(ended=outcome.resource)


@get("/sign-ins", operation_id="list-sign-ins", tags=_TAGS, summary="List sign-ins with my name")
async def list_sign_ins(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> SignInPage:
    """Show who signed in with one's name, and who tried to, for a year."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    found = await operations.read(
        identity.actor, request_id, lambda ctx: list_own_attempts(ctx, identity.user_id, page)
    )
    return SignInPage(items=tuple(render_sign_in(row) for row in found.rows), next_cursor=found.next_cursor)


ROUTES = (list_sessions, revoke_session, revoke_other_sessions, list_sign_ins)
