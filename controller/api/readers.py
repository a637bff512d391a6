"""How many answers that last there may be at once: news, logs that are followed, exports.

Each keeps a connection, memory, and often a stream from a node for as long as its reader likes, and a rate of requests
does not bound that. Counted by this process alone, because it is this process's memory and connections that they take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from controller.api import scopes
from controller.api.errors import RateLimitedError
from controller.core.auth.identities import Identity
from controller.core.policies.registry import PlatformPolicies

RETRY_AFTER_SECONDS: Final = 30
_EVERYBODY: Final = "everybody"


class _Bound(NamedTuple):
    """A number of readers, and how many there may be."""

    key: str
    maximum: int | None
    """None: they are counted, and nobody is refused."""
    policy: str
    whose: str


class Readers:
    """Counts them. One in a process."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are now."""
        return self._counts[_EVERYBODY]

    def admit(self, scope: Mapping[str, Any], identity: Identity) -> None:
        """Count one reader, until the request or WebSocket of this scope is over, whichever way it ends.

        Raises:
            RateLimitedError: `too_many_readers`: there are as many as there may be of this person, their tenant or all.
        """
        bounds = tuple(_bounds_of(identity, scopes.rules_of(scope)))
        for bound in bounds:
            if bound.maximum is not None and self._counts[bound.key] >= bound.maximum:
                raise _refusal(bound)
        keys = [bound.key for bound in bounds]
        self._counts.update(keys)
        scopes.endings_of(scope).callback(self._release, keys)

    def _release(self, keys: list[str]) -> None:
        for key in keys:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


def _bounds_of(identity: Identity, rules: PlatformPolicies) -> Iterator[_Bound]:
    """An administrator who views as somebody takes none of that person's, and is of the platform all the while."""
    reader = identity.actor.impersonator or f"user/{identity.user_id}"
    yield _Bound(reader, rules.readers_user_max, "readers_user_max", "of yours")
    tenant = None if identity.is_impersonated else identity.tenant
    if tenant is not None:
        kind, tenant_id = tenant
        yield _Bound(f"{kind}/{tenant_id}", rules.readers_tenant_max, "readers_tenant_max", f"of your {kind}")
    yield _Bound(_EVERYBODY, None if tenant is None else rules.readers_max, "readers_max", "of everybody")


def _refusal(bound: _Bound) -> RateLimitedError:
    return RateLimitedError(
        f"{bound.maximum} readers {bound.whose} are open, and there may be no more at once",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        hint="Close one (a page that shows news, a command that follows), then try again. An administrator can change "
        f"the policy {bound.policy}.",
        code="too_many_readers",
    )
