"""Who may pass before anything of the request is read."""

from __future__ import annotations

from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from controller.api import scopes
from controller.core.auth.service import Identity
from shared.errors import UnauthenticatedError

PUBLIC: Final = "public"
"""A handler with opt={PUBLIC: True} answers everybody; all others want somebody we know."""


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


def guard_identity(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard of the whole application: public handlers say so, so that forgetting one is safe."""
    if not handler.opt.get(PUBLIC):
        require_identity(connection)
