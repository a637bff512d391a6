"""Passkeys: one's own, and signing in with one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api import scopes
from controller.api.guards import DURING_MAINTENANCE, ENROLLING, PUBLIC, require_identity
from controller.api.handlers.auth import Proof, SessionView, address_of, answer_sign_in, render_user, session_cookie
from controller.api.rate_limit import LoginThrottle, RateLimiter
from controller.core.auth import passkey_service
from controller.core.auth.attempts import Device
from controller.core.auth.models import Passkey
from controller.core.auth.passkeys import Challenge, Credential, PasskeyProof
from controller.core.auth.service import Authenticator
from controller.core.auth.sessions import require_person
from controller.core.http import Cursor, Limit, PathId
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.rate_limits.counters import Counters

_TAGS = ["passkeys"]
Name = Annotated[str, Meta(min_length=1, max_length=64, examples=["laptop"])]


class PasskeyChallengeView(msgspec.Struct, frozen=True, kw_only=True):
    """What the browser's navigator.credentials is to be given; good once and for five minutes."""

    challenge_id: str
    options: Annotated[dict[str, Any], Meta(description="For parseCreationOptionsFromJSON or parseRequestOptions...")]


class PasskeyCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device's new key."""

    challenge_id: Annotated[str, Meta(max_length=40)]
    name: Name
    credential: Credential


class PasskeyUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another name."""

    name: Name


class PasskeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One of one's own."""

    id: str
    name: str
    is_backed_up: Annotated[bool, Meta(description="Whether the key may be on more devices, by somebody's cloud.")]
    created_at: datetime
    last_used_at: datetime | None


class PasskeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Passkeys, newest first."""

    items: tuple[PasskeyView, ...]
    next_cursor: str | None


class PasskeyRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """It counts; the session has a new secret."""

    passkey: PasskeyView
    session: SessionView
    recovery_codes: Annotated[
        list[str], Meta(description="With the first factor: each is good for one time, shown once. Else empty.")
    ]


def make_passkey_limiter(counters: Counters | None = None) -> RateLimiter:
    """Challenges that one address may ask for; each is a row."""
    return RateLimiter("passkey", burst=30, seconds_per_attempt=2.0, counters=counters)


def _render(row: Passkey) -> PasskeyView:
    return PasskeyView(
        id=row.id,
        name=row.name,
        is_backed_up=row.is_backed_up,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )


def _render_challenge(challenge: Challenge) -> PasskeyChallengeView:
    return PasskeyChallengeView(challenge_id=challenge.id, options=challenge.options)


@post(
    "/auth/passkey-challenge",
    operation_id="begin-passkey-proof",
    tags=_TAGS,
    status_code=201,
    opt={PUBLIC: True, DURING_MAINTENANCE: True},
    summary="Ask for a challenge",
)
async def begin_passkey_proof(
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    passkey_limiter: NamedDependency[RateLimiter],
) -> PasskeyChallengeView:
    """Get something to sign: to sign in, or, for somebody signed in, to prove again who they are."""
    await passkey_limiter.require(address_of(request))
    return _render_challenge(await authenticator.begin_passkey_proof(scopes.identity_of(request.scope)))


@post(
    "/auth/passkey",
    operation_id="login-with-passkey",
    tags=_TAGS,
    status_code=200,
    opt={PUBLIC: True, DURING_MAINTENANCE: True},
    summary="Sign in with a passkey",
)
async def login_with_passkey(
    data: JSONBody[PasskeyProof],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    request_id: NamedDependency[str],
) -> Response[SessionView]:
    """Begin a session without name and password: the device says who it is, and asked for a finger, face or PIN."""
    address = address_of(request)
    await login_throttle.require(address, "a passkey's owner", is_known_place=True, has_code=False)
    device = Device(address=address, user_agent=request.headers.get("user-agent", ""), request_id=request_id)
    sign_in = await authenticator.sign_in_with_passkey(data, device)
    await login_throttle.forgive(address, "a passkey's owner", is_known_place=True)
    return answer_sign_in(sign_in)


@get("/passkeys", operation_id="list-passkeys", tags=_TAGS, opt={ENROLLING: True}, summary="List my passkeys")
async def list_passkeys(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> PasskeyPage:
    """Show the devices that one can sign in with."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    found = await operations.read(
        identity.actor, request_id, lambda ctx: passkey_service.list_passkeys(ctx, identity, page)
    )
    return PasskeyPage(items=tuple(_render(row) for row in found.rows), next_cursor=found.next_cursor)


@post(
    "/passkeys/begin",
    operation_id="begin-passkey",
    tags=_TAGS,
    status_code=201,
    opt={ENROLLING: True},
    summary="Begin a passkey",
)
async def begin_passkey(
    *,
    data: JSONBody[Proof],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> PasskeyChallengeView:
    """Ask one's device for a key; asks for a proof, so that a stolen session cannot add its own device."""
    identity = require_identity(request)
    require_person(identity, "register a passkey")
    await login_throttle.require_proof(identity.user_id, has_code=bool(data.code))
    await authenticator.require_proof(identity, password=data.password, code=data.code, passkey=data.passkey)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: passkey_service.begin_passkey(ctx, authenticator.factors, identity)
    )
    return _render_challenge(outcome.resource)


@post(
    "/passkeys",
    operation_id="create-passkey",
    tags=_TAGS,
    status_code=201,
    opt={ENROLLING: True},
    summary="Register a passkey",
)
async def create_passkey(
    *,
    data: JSONBody[PasskeyCreate],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> Response[PasskeyRegistered]:
    """Let the device's key count from now on; with the first factor all other sessions end."""
    identity = require_identity(request)
    require_person(identity, "register a passkey")
    proof = PasskeyProof(challenge_id=data.challenge_id, credential=data.credential)
    outcome = await operations.change(
        identity.actor,
        request_id,
        lambda ctx: passkey_service.create_passkey(ctx, authenticator.factors, identity, proof, data.name),
    )
    made = outcome.resource
    session = SessionView(
        token=made.sign_in.secret,
        expires_at=made.sign_in.identity.expires_at,
        user=render_user(made.sign_in.identity),
    )
    view = PasskeyRegistered(passkey=_render(made.passkey), session=session, recovery_codes=made.recovery_codes)
    return Response(view, status_code=201, cookies=[session_cookie(made.sign_in)])


@patch("/passkeys/{passkey_id:str}", operation_id="update-passkey", tags=_TAGS, summary="Rename a passkey")
async def update_passkey(
    *,
    passkey_id: PathId,
    data: JSONBody[PasskeyUpdate],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> PasskeyView:
    """Call one of one's own otherwise."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: passkey_service.rename_passkey(ctx, identity, passkey_id, data.name)
    )
    return _render(outcome.resource)


@delete(
    "/passkeys/{passkey_id:str}",
    operation_id="delete-passkey",
    tags=_TAGS,
    status_code=204,
    summary="Delete a passkey",
)
async def delete_passkey(
    *,
    passkey_id: PathId,
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> None:
    """Believe this device no more."""
    identity = require_identity(request)
    await operations.change(
        identity.actor,
        request_id,
        lambda ctx: passkey_service.delete_passkey(ctx, authenticator.factors, identity, passkey_id),
    )


ROUTES = (
    begin_passkey_proof,
    login_with_passkey,
    list_passkeys,
    begin_passkey,
    create_passkey,
    update_passkey,
    delete_passkey,
)
