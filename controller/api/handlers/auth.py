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
from controller.api.guards import DURING_MAINTENANCE, ENROLLING, ONE_TIME_PASSWORD, PUBLIC, require_identity
from controller.api.rate_limit import LoginThrottle
from controller.core.auth.attempts import Device
from controller.core.auth.identities import Identity
from controller.core.auth.passkeys import PasskeyProof
from controller.core.auth.service import Authenticator, Second
from controller.core.auth.service import step_up as step_up_use_case
from controller.core.auth.sessions import SignIn, require_person
from controller.core.operations import Operations
from controller.core.tenancy.catalogue import list_held

_TAGS = ["auth"]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person types to sign in."""

    username: Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["admin"])]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=256, examples=["correct horse battery staple"])]
    code: Annotated[
        str,
        msgspec.Meta(
            max_length=40,
            description="Second step, after `second_factor_required`: six digits of the device, or a recovery code.",
            examples=["123456"],
        ),
    ] = ""
    passkey: Annotated[
        PasskeyProof | None,
        msgspec.Meta(description="Instead of `code`: a challenge of /auth/passkey-challenge, signed."),
    ] = None


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The password, a code or a passkey; one is enough."""

    password: Annotated[str, msgspec.Meta(max_length=256)] = ""
    code: Annotated[
        str,
        msgspec.Meta(max_length=40, description="Six digits of the device, or a recovery code.", examples=["123456"]),
    ] = ""
    passkey: Annotated[
        PasskeyProof | None, msgspec.Meta(description="A challenge of /auth/passkey-challenge, signed.")
    ] = None


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
    has_second_factor: bool
    """Of a session's user; false for a token."""
    expires_at: datetime | None
    """When this session or token ends; null: never."""
    permissions: Annotated[
        list[str], msgspec.Meta(description="All that one may, role, custom role and scopes together.")
    ]
    impersonated_by: Annotated[
        str, msgspec.Meta(description="The administrator who views as this person; empty: nobody.")
    ]


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
        has_second_factor=identity.has_second_factor,
        expires_at=identity.expires_at,
        permissions=list_held(identity.actor),
        impersonated_by=identity.impersonated_by,
    )


@post(
    "/auth/login",
    operation_id="login",
    tags=_TAGS,
    status_code=200,
    opt={PUBLIC: True, DURING_MAINTENANCE: True},
    summary="Sign in",
)
async def login(
    data: JSONBody[Credentials],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    request_id: NamedDependency[str],
) -> Response[SessionView]:
    """Begin a session: sets the cookie for browsers and returns the same secret for programs.

    Somebody with a second factor is asked for it: send the same again with `code` or `passkey`.
    """
    address = address_of(request)
    is_known = await authenticator.is_known_place(data.username, address)
    await login_throttle.require(address, data.username, is_known_place=is_known, has_code=bool(data.code))
    device = Device(address=address, user_agent=request.headers.get("user-agent", ""), request_id=request_id)
    sign_in = await authenticator.sign_in(data.username, data.password, device, second=Second(data.code, data.passkey))
    await login_throttle.forgive(address, data.username, is_known_place=is_known)
    return answer_sign_in(sign_in)


@post(
    "/auth/step-up",
    operation_id="step-up",
    tags=_TAGS,
    status_code=200,
    opt={DURING_MAINTENANCE: True},
    summary="Prove again who I am",
)
async def step_up(
    data: JSONBody[Proof],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> Response[SessionView]:
    """Prove with the password or a code who one is, for dangerous acts; the session gets a new secret."""
    identity = require_identity(request)
    require_person(identity, "step up")
    await login_throttle.require_proof(identity.user_id, has_code=bool(data.code))
    await authenticator.require_proof(identity, password=data.password, code=data.code, passkey=data.passkey)
    outcome = await operations.change(identity.actor, request_id, lambda ctx: step_up_use_case(ctx, identity))
    return answer_sign_in(outcome.resource)


@post(
    "/auth/logout",
    operation_id="logout",
    tags=_TAGS,
    status_code=204,
    opt={ENROLLING: True, ONE_TIME_PASSWORD: True, DURING_MAINTENANCE: True},
    summary="Sign out",
)
async def logout(
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    request_id: NamedDependency[str],
) -> Response[None]:
    """End the session that asks; an API token stays valid until it is revoked."""
    await authenticator.sign_out(require_identity(request), request_id)
    return Response(None, status_code=204, cookies=[_cookie("", max_age_seconds=0)])


@get(
    "/auth/me",
    operation_id="show-me",
    tags=_TAGS,
    opt={ENROLLING: True, ONE_TIME_PASSWORD: True},
    summary="Who am I?",
)
async def show_me(request: Request[Any, Any, Any]) -> UserView:
    """Show whoever asks, and what they may do."""
    return render_user(require_identity(request))


@post(
    "/auth/password",
    operation_id="change-password",
    tags=_TAGS,
    status_code=204,
    opt={ENROLLING: True, ONE_TIME_PASSWORD: True},
    summary="Change my password",
)
async def change_password(
    data: JSONBody[PasswordChange],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    request_id: NamedDependency[str],
) -> Response[None]:
    """Replace one's own password; all sessions of the user end, this one included."""
    identity = require_identity(request)
    require_person(identity, "change a password")
    await login_throttle.require_proof(identity.user_id)
    await authenticator.change_password(identity, data.current_password, data.new_password, request_id)
    return Response(None, status_code=204, cookies=[_cookie("", max_age_seconds=0)])


def answer_sign_in(sign_in: SignIn) -> Response[SessionView]:
    """The new secret, for programs in the body and for browsers as a cookie."""
    view = SessionView(token=sign_in.secret, expires_at=sign_in.identity.expires_at, user=render_user(sign_in.identity))
    return Response(view, status_code=200, cookies=[session_cookie(sign_in)])


def address_of(request: Request[Any, Any, Any]) -> str:
    """Where the request comes from; empty when the server does not say."""
    return request.client.host if request.client else ""


def session_cookie(sign_in: SignIn) -> Cookie:
    """The cookie of a session, for as long as it lasts."""
    expires_at = sign_in.identity.expires_at
    lifetime = (expires_at - datetime.now(expires_at.tzinfo)).total_seconds() if expires_at else 0
    return _cookie(sign_in.secret, max_age_seconds=int(lifetime))


def _cookie(value: str, *, max_age_seconds: int) -> Cookie:
    return Cookie(
        key=SESSION_COOKIE, value=value, max_age=max_age_seconds, path="/", secure=True, httponly=True, samesite="lax"
    )


ROUTES = (login, step_up, logout, show_me, change_password)
