"""Whoever reads for long is asked again, all the while: a session or token that ended is over here as well.

A request is judged once, before it is answered. An answer that goes on for hours (events, a log that is followed) would
outlive a revoked token, somebody who was disabled or has another role, and an account that went to somebody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from litestar.connection import ASGIConnection
from litestar.datastructures import Headers

from controller.api.edge import find_secret
from controller.api.guards import require_own_password, require_second_factor
from controller.core.auth.identities import Identity
from controller.core.auth.policy import require_let_in, require_not_denied
from controller.core.auth.service import Authenticator
from shared.errors import UnauthenticatedError

ASK_AGAIN_SECONDS: Final = 5.0
"""Nothing is told for longer than this to somebody who may not hear it any more."""


@dataclass(slots=True)
class Vigil:
    """Over one reader."""

    authenticator: Authenticator
    secret: str = field(repr=False)
    address: str
    settle: Callable[[Identity], Awaitable[None]] | None = None
    """Told who they are now, each time: it raises when this very thing is not theirs to read any more."""
    clock: Callable[[], float] = monotonic
    _asked_at: float = float("-inf")

    async def ask(self) -> Identity:
        """Who they are now, asked of the database.

        Raises:
            UnauthenticatedError: Nobody we know (any more).
            ForbiddenError: They may not come from there, or have to do something else first.
        """
        self._asked_at = self.clock()
        policy = await self.authenticator.policies.current()
        require_not_denied(policy, self.address)
        require_let_in(policy, self.address)
        found = await self.authenticator.find_identity(self.secret, self.address) if self.secret else None
        if found is None:
            raise UnauthenticatedError("the session or token is not valid (any more)", hint="Sign in again.")
        require_own_password(found)
        require_second_factor(found, policy)
        return found

    async def keep(self) -> None:
        """Pass when they may still read; asked again when that is some seconds ago.

        Raises:
            UnauthenticatedError, ForbiddenError, NotFoundError
        """
        if self.clock() - self._asked_at < ASK_AGAIN_SECONDS:
            return
        identity = await self.ask()
        if self.settle is not None:
            await self.settle(identity)


def secret_of(connection: ASGIConnection) -> str:  # type: ignore[type-arg] # of whichever kind
    """What the connection's headers show; empty: nothing."""
    return find_secret(Headers.from_scope(connection.scope))[0]


def address_of(connection: ASGIConnection) -> str:  # type: ignore[type-arg] # of whichever kind
    """Where it comes from; empty when the server does not say."""
    return connection.client.host if connection.client else ""
