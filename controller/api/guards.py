"""Who may pass before anything of the request is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from controller.api import scopes
from controller.core.auth.identities import Identity
from controller.core.auth.policy import SecurityPolicy
from controller.core.http import API_ROOT
from controller.core.maintenance.gate import OVERRIDE_HEADER, OVERRIDE_VALUE, may_override, require_open
from controller.db.base import utc_now
from controller.db.engine import Database
from shared.errors import ForbiddenError, InvalidInputError, UnauthenticatedError

PUBLIC: Final = "public"
"""A handler with opt={PUBLIC: True} answers everybody; all others want somebody we know."""
ENROLLING: Final = "enrolling"
"""A handler with opt={ENROLLING: True} also answers people who must have a second factor and have none yet."""
ONE_TIME_PASSWORD: Final = "one_time_password"  # noqa: S105 - the name of an option
"""A handler with opt={ONE_TIME_PASSWORD: True} also answers people whose password is good for changing it only."""
STEP_UP_ACTS: Final = frozenset(
    {
        "create-token",
        "delete-account",
        "delete-node",
        "revoke-node",
        "start-ca-rotation",
        "advance-ca-rotation",
        "rollback-ca-rotation",
        "rotate-job-key",
        "revoke-job-key",
        "update-security",
        "set-user-networks",
        "reset-second-factor",
        "impersonate-user",
        "renew-recovery-codes",
        "delete-passkey",
        "create-user",
        "delete-user",
        "update-user",
        "reset-user-password",
        "create-sign-in-link",
    }
)
"""Operation ids of dangerous acts: a person must have proved lately who they are, so that a session that was left open
or stolen cannot do them. A token is exempt: nobody sits there to ask, and its scopes say what it may do. So is a dry
run, which does nothing. Where it depends on what is sent, the handler asks (`require_recent_proof`)."""
_OWN_CREDENTIALS: Final = frozenset({"tokens", "sessions", "second-factor", "passkeys"})
"""Tags of routes about what a person signs in with."""
_NOT_AS_SOMEBODY: Final = frozenset(
    {
        "change-password",
        "set-email",
        "step-up",
        "create-user",
        "create-sign-in-link",
        "reset-user-password",
        "impersonate-user",
        "create-webhook",
        "rotate-webhook-secret",
        "read-notices",
        "update-notice-preference",
    }
)
"""Operation ids besides: each gives out, or asks for, a secret, or would hide from the person what is done."""
DURING_MAINTENANCE: Final = "during_maintenance"
"""A handler with opt={DURING_MAINTENANCE: True} changes something also while the controller is in maintenance."""

DRY_RUN: Final = "dry_run"
"""The parameter of each handler that can say what it would do."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def require_identity(connection: ASGIConnection[Any, Any, Any, Any]) -> Identity:
    """Who asks.

    Raises:
        UnauthenticatedError: Nobody we know.
    """
    identity = scopes.identity_of(connection.scope)
    if identity is not None:
        return identity
    if scopes.is_credential_rejected(connection.scope):
        raise UnauthenticatedError(
            "the session or token is not valid (any more)", hint="Sign in again, or create another token."
        )
    raise UnauthenticatedError(
        "sign in first", hint="POST /api/v1/auth/login, or send 'Authorization: Bearer wcp_...'."
    )


def require_known_caller(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Public handlers say so, so that forgetting one is safe."""
    if handler.opt.get(PUBLIC):
        return
    identity = require_identity(connection)
    if not identity.is_person:
        return
    policy = scopes.policy_of(connection.scope)
    if not handler.opt.get(ONE_TIME_PASSWORD) and not identity.is_impersonated:
        require_own_password(identity)
    require_own_credentials(identity, connection, handler)
    if not handler.opt.get(ENROLLING):
        require_second_factor(identity, policy)
    if getattr(handler, "operation_id", None) in STEP_UP_ACTS and not _is_dry_run(connection, handler):
        require_recent_proof(connection)


def require_own_password(identity: Identity) -> None:
    """Pass whoever chose their password themselves.

    Raises:
        ForbiddenError: They signed in with a one-time password, which somebody else has seen.
    """
    if identity.is_person and identity.must_change_password:
        raise ForbiddenError(
            "this password was given to you for one time; choose your own first",
            code="password_change_required",
            hint="POST /api/v1/auth/password, or: wcp360 auth change-password; then sign in again.",
        )


def require_own_credentials(
    identity: Identity, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Pass unless an administrator who views as somebody would change what that person signs in with.

    What lasts longer than the view, or takes somebody's place for good, is no part of looking at their panel.

    Raises:
        ForbiddenError
    """
    if not identity.is_impersonated:
        return
    is_reading = isinstance(connection, Request) and connection.method in _READING
    is_credential = not _OWN_CREDENTIALS.isdisjoint(getattr(handler, "tags", None) or ()) and not is_reading
    if is_credential or getattr(handler, "operation_id", None) in _NOT_AS_SOMEBODY:
        raise ForbiddenError(
            f"not while you view as {identity.username}: this is about what people sign in with",
            code="impersonation_forbidden",
            hint="End the view first (wcp360 auth logout), then do it as yourself.",
        )


def require_second_factor(identity: Identity, policy: SecurityPolicy) -> None:
    """Pass whoever has a second factor, or need not have one.

    Raises:
        ForbiddenError: It is required, and they have none yet.
    """
    if (
        identity.is_person
        and not identity.is_impersonated  # the administrator has proved theirs
        and not identity.has_second_factor
        and (identity.needs_second_factor or identity.actor.role.value in policy.second_factor_roles)
    ):
        raise ForbiddenError(
            "a second factor is required here, and you have none yet",
            code="second_factor_enrolment_required",
            hint="Set one up first: wcp360 second-factor begin, then wcp360 second-factor confirm; or a passkey.",
        )


def require_recent_proof(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Pass when the person who asks proved lately who they are, and every token.

    Raises:
        ForbiddenError: They did not.
    """
    identity = require_identity(connection)
    if not identity.is_person:
        return
    rules = scopes.rules_of(connection.scope)
    lately = utc_now() - timedelta(minutes=rules.step_up_minutes)
    if identity.verified_at is None or identity.verified_at < lately:
        raise ForbiddenError(
            f"this needs a proof of who you are from the last {rules.step_up_minutes} minutes",
            code="step_up_required",
            hint="POST /api/v1/auth/step-up, or: wcp360 auth step-up --code CODE (or --password -).",
        )


def require_known_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Pass when the route knows every parameter behind the question mark.

    One that nobody knows would be as if it were not there: a filter with a typing error shows everything, and a change
    without a dry run is made, where the caller wants it not to be.

    Raises:
        InvalidInputError
    """
    # Pages and scrapers at the root get parameters from links and configurations that are not ours.
    if not isinstance(connection, Request) or not connection.scope.get("query_string") or not _is_of_api(connection):
        return
    known = _query_names(handler)
    unknown = next((name for name in connection.query_params if name not in known), None)
    if unknown is None:
        return
    if unknown == DRY_RUN:
        raise InvalidInputError("this has no dry run; nothing was done", field=DRY_RUN)
    hint = f"It knows: {', '.join(sorted(known))}." if known else "It knows none."
    raise InvalidInputError(f"there is no query parameter {unknown[:80]!r} here", field=unknown[:80], hint=hint)


def _is_dry_run(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> bool:
    return connection.query_params.get(DRY_RUN) == "true" and DRY_RUN in _query_names(handler)


def _is_of_api(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    return str(connection.scope["path"]).startswith(f"{API_ROOT}/")


@lru_cache(maxsize=1024)
def _query_names(handler: BaseRouteHandler) -> frozenset[str]:
    """Of the handler itself and of what finds its other parameters."""
    finders = (provider.parsed_fn_signature for provider in handler.resolve_dependencies().values())
    return frozenset(
        field.kwarg_definition.name or name
        for signature in (handler.parsed_fn_signature, *finders)
        for name, field in signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    )


Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Coroutine[Any, Any, None]]


def make_guard(database: Database) -> Guard:
    """The one Litestar guard of the whole application.

    One, and async although half of it waits for nothing: Litestar copies the handler for each guard, and sends a guard
    that is not async to a thread, which costs half of a small request.
    """
    guard_maintenance = make_maintenance_guard(database)

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        require_known_caller(connection, handler)
        require_known_query(connection, handler)
        await guard_maintenance(connection, handler)

    return guard


def make_maintenance_guard(database: Database, clock: Callable[[], datetime] = utc_now) -> Guard:
    """Refuses changes during maintenance before anything of them is read.

    It answers early, and covers what is no `Operations.change`; the change's own transaction looks once more.
    """

    async def guard_maintenance(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if not isinstance(connection, Request) or connection.method in _READING:
            return
        if handler.opt.get(DURING_MAINTENANCE) or _is_dry_run(connection, handler):
            return
        identity = _note_override(connection)
        if identity is None or not may_override(identity.actor):
            await require_open(database, now=clock())

    return guard_maintenance


def _note_override(connection: ASGIConnection[Any, Any, Any, Any]) -> Identity | None:
    """Who asks; the actor knows from now on whether the request comes on purpose."""
    identity = scopes.identity_of(connection.scope)
    if identity is None or connection.headers.get(OVERRIDE_HEADER, "").lower() != OVERRIDE_VALUE:
        return identity
    noted = dataclasses.replace(identity, actor=dataclasses.replace(identity.actor, overrides_maintenance=True))
    scopes.remember_identity(cast("scopes.Scope", connection.scope), noted, is_rejected=False)
    return noted
