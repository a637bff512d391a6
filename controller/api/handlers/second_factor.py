"""One's own second factor."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api.guards import ENROLLING, require_identity
from controller.api.handlers.auth import Proof, SessionView, render_user, session_cookie
from controller.api.rate_limit import LoginThrottle
from controller.core.auth.factor_service import begin_factor, confirm_factor, remove_factor, renew_codes, show_factor
from controller.core.auth.service import Authenticator
from controller.core.auth.sessions import require_person
from controller.core.operations import Operations

_TAGS = ["second-factor"]


class SecondFactorView(msgspec.Struct, frozen=True, kw_only=True):
    """What one has."""

    is_enabled: Annotated[bool, Meta(description="Codes of a device, or a passkey.")]
    has_codes: bool
    passkeys: Annotated[int, Meta(description="How many; see /passkeys.")]
    since: datetime | None
    recovery_codes_left: int
    is_required: Annotated[bool, Meta(description="Whether one's role must have a second factor.")]


class SecondFactorBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A secret for the device; it counts once a first code was confirmed."""

    secret: Annotated[str, Meta(description="For typing, in base32. Shown once.")]
    uri: Annotated[str, Meta(description="For a QR code: otpauth://totp/...")]


class CodeConfirmation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first code that the device shows."""

    code: Annotated[str, Meta(min_length=6, max_length=10, examples=["123456"])]


class RecoveryCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Codes for when the device is lost."""

    recovery_codes: Annotated[list[str], Meta(description="Each is good for one time. Shown once.")]


class SecondFactorConfirmed(msgspec.Struct, frozen=True, kw_only=True):
    """The session under its new secret, and codes for when the device is lost."""

    session: SessionView
    recovery_codes: Annotated[
        list[str], Meta(description="Each is good for one time. Shown once; none when there was a passkey already.")
    ]


@get(
    "/second-factor",
    operation_id="show-second-factor",
    tags=_TAGS,
    opt={ENROLLING: True},
    summary="Show my second factor",
)
async def show_second_factor(
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> SecondFactorView:
    """Show whether one has a second factor, and must have one."""
    identity = require_identity(request)
    state = await operations.read(
        identity.actor, request_id, lambda ctx: show_factor(ctx, authenticator.factors, identity)
    )
    policy = await authenticator.policies.current()
    return SecondFactorView(
        is_enabled=state.is_enabled,
        has_codes=state.has_codes,
        passkeys=state.passkeys,
        since=state.since,
        recovery_codes_left=state.recovery_codes_left,
        is_required=identity.actor.role.value in policy.second_factor_roles,
    )


@post(
    "/second-factor",
    operation_id="begin-second-factor",
    tags=_TAGS,
    status_code=201,
    opt={ENROLLING: True},
    summary="Begin a second factor",
)
async def begin_second_factor(
    data: JSONBody[Proof],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> SecondFactorBegun:
    """Make a secret for one's device; asks for the password, so that a stolen session cannot add its own device."""
    identity = require_identity(request)
    require_person(identity, "begin a second factor")
    await login_throttle.require_proof(identity.user_id, has_code=bool(data.code))
    await authenticator.require_proof(identity, password=data.password, code=data.code, passkey=data.passkey)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: begin_factor(ctx, authenticator.factors, identity)
    )
    return SecondFactorBegun(secret=outcome.resource.secret, uri=outcome.resource.uri)


@post(
    "/second-factor/confirm",
    operation_id="confirm-second-factor",
    tags=_TAGS,
    status_code=200,
    opt={ENROLLING: True},
    summary="Confirm a second factor",
)
async def confirm_second_factor(
    data: JSONBody[CodeConfirmation],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> Response[SecondFactorConfirmed]:
    """Let it count from now on; ends all other sessions and gives this one a new secret."""
    identity = require_identity(request)
    require_person(identity, "confirm a second factor")
    await login_throttle.require_proof(identity.user_id)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: confirm_factor(ctx, authenticator.factors, identity, data.code)
    )
    sign_in = outcome.resource.sign_in
    view = SessionView(token=sign_in.secret, expires_at=sign_in.identity.expires_at, user=render_user(sign_in.identity))
    confirmed = SecondFactorConfirmed(session=view, recovery_codes=outcome.resource.recovery_codes)
    return Response(confirmed, status_code=200, cookies=[session_cookie(sign_in)])


@post(
    "/second-factor/disable",
    operation_id="disable-second-factor",
    tags=_TAGS,
    status_code=204,
    summary="Disable my second factor",
)
async def disable_second_factor(
    data: JSONBody[Proof],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> None:
    """Be asked for codes no more; without a passkey the password alone is enough again. Asks for a proof."""
    identity = require_identity(request)
    require_person(identity, "disable a second factor")
    await login_throttle.require_proof(identity.user_id, has_code=bool(data.code))
    await authenticator.require_proof(identity, password=data.password, code=data.code, passkey=data.passkey)
    await operations.change(identity.actor, request_id, lambda ctx: remove_factor(ctx, authenticator.factors, identity))


@post(
    "/second-factor/recovery-codes",
    operation_id="renew-recovery-codes",
    tags=_TAGS,
    status_code=201,
    summary="Make new recovery codes",
)
async def renew_recovery_codes(
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> RecoveryCodes:
    """Make ten new recovery codes; all older ones are worth nothing from now on."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: renew_codes(ctx, authenticator.factors, identity)
    )
    return RecoveryCodes(recovery_codes=outcome.resource)


ROUTES = (
    show_second_factor,
    begin_second_factor,
    confirm_second_factor,
    disable_second_factor,
    renew_recovery_codes,
)
