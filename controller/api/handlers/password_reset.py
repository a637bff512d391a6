"""A forgotten password, and the e-mail address that a link for another one goes to."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api.guards import PUBLIC, require_identity
from controller.api.handlers.auth import Proof, address_of
from controller.api.rate_limit import LoginThrottle, RateLimiter
from controller.core.auth.emails import set_email as set_email_use_case
from controller.core.auth.emails import show_email as show_email_query
from controller.core.auth.resets import PasswordResets
from controller.core.auth.secrets import hash_secret
from controller.core.auth.service import Authenticator
from controller.core.auth.sessions import require_person
from controller.core.operations import Operations
from controller.core.rate_limits.counters import Counters

_TAGS = ["auth"]


class PasswordResetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose password is forgotten."""

    username_or_email: Annotated[str, Meta(min_length=1, max_length=254, examples=["ada@example.com"])]


class PasswordResetConfirmation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The link's token and another password."""

    token: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            description="What follows the # in the mailed link.",
            extra_json_schema={"format": "password"},
        ),
    ]
    password: Annotated[str, Meta(min_length=12, max_length=256)]


class EmailChange(Proof, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another e-mail address for oneself, with the password or a code."""

    email: Annotated[str, Meta(max_length=254, examples=["ada@example.com"])] | None


class EmailView(msgspec.Struct, frozen=True, kw_only=True):
    """Where mails for oneself go."""

    email: str | None
    can_reset_by_mail: Annotated[bool, Meta(description="Whether a forgotten password can be replaced by mail.")]


class ResetThrottle:
    """Slows whoever asks for mails or tries tokens: by address, and by the name or token that they give."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._address = RateLimiter("reset-address", burst=10, seconds_per_attempt=30.0, counters=counters)
        self._name = RateLimiter("reset-name", burst=3, seconds_per_attempt=300.0, counters=counters)
        self._token = RateLimiter("reset-token", burst=10, seconds_per_attempt=30.0, counters=counters)

    async def require_ask(self, address: str, name: str) -> None:
        """Count one wish for a mail; a name of nobody counts as any other.

        Raises:
            RateLimitedError: Too many.
        """
        await self._address.require(f"ask {address}")
        await self._name.require(name.strip().lower())

    async def require_confirm(self, address: str, token: str) -> None:
        """Count one attempt to use a link. One person has one live link, so its token stands for them.

        Raises:
            RateLimitedError: Too many.
        """
        await self._address.require(f"confirm {address}")
        await self._token.require(hash_secret(token))


@post(
    "/auth/password-reset",
    operation_id="request-password-reset",
    tags=_TAGS,
    status_code=204,
    opt={PUBLIC: True},
    summary="Ask for a link for another password",
)
async def request_password_reset(
    data: JSONBody[PasswordResetRequest],
    request: Request[Any, Any, Any],
    password_resets: NamedDependency[PasswordResets],
    reset_throttle: NamedDependency[ResetThrottle],
    request_id: NamedDependency[str],
) -> None:
    """Have a link mailed to whom this name or address belongs; the answer is the same when it belongs to nobody."""
    address = address_of(request)
    await reset_throttle.require_ask(address, data.username_or_email)
    await password_resets.ask(data.username_or_email, address, request_id)


@post(
    "/auth/password-reset/confirm",
    operation_id="confirm-password-reset",
    tags=_TAGS,
    status_code=204,
    opt={PUBLIC: True},
    summary="Choose another password by a link",
)
async def confirm_password_reset(
    data: JSONBody[PasswordResetConfirmation],
    request: Request[Any, Any, Any],
    password_resets: NamedDependency[PasswordResets],
    reset_throttle: NamedDependency[ResetThrottle],
    request_id: NamedDependency[str],
) -> None:
    """Replace the password and end all sessions; sign in with it then, and with the second factor as ever."""
    address = address_of(request)
    await reset_throttle.require_confirm(address, data.token)
    await password_resets.confirm(data.token, data.password, address, request_id)


@get("/auth/email", operation_id="show-email", tags=_TAGS, summary="Show my e-mail address")
async def show_email(
    request: Request[Any, Any, Any],
    password_resets: NamedDependency[PasswordResets],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> EmailView:
    """Show where a link for another password would go."""
    identity = require_identity(request)
    email = await operations.read(identity.actor, request_id, lambda ctx: show_email_query(ctx, identity))
    return _render(email, password_resets)


@put("/auth/email", operation_id="set-email", tags=_TAGS, summary="Set my e-mail address")
async def set_email(
    *,
    data: JSONBody[EmailChange],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    password_resets: NamedDependency[PasswordResets],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> Response[EmailView]:
    """Have mails go to another address, or to none; asks for the password or a code."""
    identity = require_identity(request)
    require_person(identity, "change an e-mail address")
    await login_throttle.require_proof(identity.user_id, has_code=bool(data.code))
    await authenticator.require_proof(identity, password=data.password, code=data.code, passkey=data.passkey)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: set_email_use_case(ctx, identity, data.email)
    )
    return Response(_render(outcome.resource, password_resets), status_code=200)


def _render(email: str | None, resets: PasswordResets) -> EmailView:
    return EmailView(email=email, can_reset_by_mail=email is not None and resets.is_possible)


ROUTES = (request_password_reset, confirm_password_reset, show_email, set_email)
