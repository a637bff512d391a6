"""Signing in and out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.api.edge import SESSION_COOKIE
from controller.api.guards import PUBLIC, require_identity
from controller.api.rate_limit import RateLimiter
from controller.core.auth.service import Authenticator, Device, Identity, SignIn

_TAGS = ["auth"]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person types to sign in."""

    username: Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["admin"])]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=256, examples=["correct horse battery staple"])]


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new password for oneself."""

    current_password: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    new_password: Annotated[str, msgspec.Meta(min_length=12, max_length=256)]


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in."""

    id: str
    username: str
    role: str
    kind: str
    """user (a person's session) or token."""
    scopes: list[str]
    must_change_password: bool
    expires_at: datetime | None
    """When this session or token ends; null: never."""


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A new session. Browsers use the cookie; programs send `token` as a bearer token."""

    token: str
    expires_at: datetime | None
    user: UserView


def render_user(identity: Identity) -> UserView:
    """The view of whoever asks."""
    return UserView(
        id=identity.user_id,
        username=identity.username,
        role=identity.actor.role.value,
        kind=identity.actor.kind,
        scopes=sorted(identity.actor.scopes),
        must_change_password=identity.must_change_password,
        expires_at=identity.expires_at,
    )


@post("/auth/login", operation_id="login", tags=_TAGS, status_code=200, opt={PUBLIC: True}, summary="Sign in")
async def login(
    data: JSONBody[Credentials],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_limiter: NamedDependency[RateLimiter],
    request_id: NamedDependency[str],
) -> Response[SessionView]:
    """Begin a session: sets the cookie for browsers and returns the same secret for programs."""
    address = request.client.host if request.client else ""
    key = f"{address} {data.username.strip().lower()}"
    login_limiter.require(key)
    device = Device(address=address, user_agent=request.headers.get("user-agent", ""), request_id=request_id)
    sign_in = await authenticator.sign_in(data.username, data.password, device)
    login_limiter.forgive(key)
    view = SessionView(token=sign_in.secret, expires_at=sign_in.identity.expires_at, user=render_user(sign_in.identity))
    return Response(view, cookies=[_session_cookie(sign_in)])


@post("/auth/logout", operation_id="logout", tags=_TAGS, status_code=204, summary="Sign out")
async def logout(
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    request_id: NamedDependency[str],
) -> Response[None]:
    """End the session that asks; an API token stays valid until it is revoked."""
    await authenticator.sign_out(require_identity(request), request_id)
    return Response(None, status_code=204, cookies=[_cookie("", max_age_seconds=0)])


@get("/auth/me", operation_id="show-me", tags=_TAGS, summary="Who am I?")
async def show_me(request: Request[Any, Any, Any]) -> UserView:
    """Show whoever asks, and what they may do."""
    return render_user(require_identity(request))


@post("/auth/password", operation_id="change-password", tags=_TAGS, status_code=204, summary="Change my password")
async def change_password(
    data: JSONBody[PasswordChange],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_limiter: NamedDependency[RateLimiter],
    request_id: NamedDependency[str],
) -> Response[None]:
    """Replace one's own password; all sessions of the user end, this one included."""
    identity = require_identity(request)
    login_limiter.require(f"password {identity.user_id}")
    await authenticator.change_password(identity, data.current_password, data.new_password, request_id)
    return Response(None, status_code=204, cookies=[_cookie("", max_age_seconds=0)])


def _session_cookie(sign_in: SignIn) -> Cookie:
    expires_at = sign_in.identity.expires_at
    lifetime = (expires_at - datetime.now(expires_at.tzinfo)).total_seconds() if expires_at else 0
    return _cookie(sign_in.secret, max_age_seconds=int(lifetime))


def _cookie(value: str, *, max_age_seconds: int) -> Cookie:
    return Cookie(
        key=SESSION_COOKIE, value=value, max_age=max_age_seconds, path="/", secure=True, httponly=True, samesite="lax"
    )


ROUTES = (login, logout, show_me, change_password)
