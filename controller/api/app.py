"""Builds the ASGI application: Litestar with our handlers, inside the edge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from litestar import Litestar, Request

from controller.api import scopes
from controller.api.edge import Edge, EdgeParts
from controller.api.given import Given
from controller.api.guards import make_guard, require_identity
from controller.api.handlers import (
    api_usage,
    auth,
    docs,
    events,
    health,
    members,
    rate_limits,
    roles,
    second_factor,
    security,
    sessions,
    tokens,
    users,
)
from controller.api.handlers.health import Probes
from controller.api.lifespan import Lifespan
from controller.api.rate_gate import RateGate
from controller.api.rate_limit import LoginThrottle
from controller.api.readers import Readers
from controller.api.routing import compile_routes
from controller.core.api_usage.recorder import UsageRecorder
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.events.publisher import EventPublisher
from controller.core.operations import Operations
from controller.core.rate_limits.counters import Counters, MemoryCounters
from controller.core.rate_limits.policy import RateBook
from controller.core.rate_limits.tiers import TierBook
from controller.metrics.registry import HttpMetrics
from shared.errors import FleetError

_OWN_ROUTES: Final = (
    *auth.ROUTES,
    *sessions.ROUTES,
    *second_factor.ROUTES,
    *security.ROUTES,
    *rate_limits.ROUTES,
    *api_usage.ROUTES,
    *tokens.ROUTES,
    *users.ROUTES,
    *roles.ROUTES,
    *members.ROUTES,
    *events.ROUTES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What handlers are given; bootstrap builds it."""

    operations: Operations
    authenticator: Authenticator
    publisher: EventPublisher
    probes: Probes
    metrics: HttpMetrics
    own_origin: str
    """The controller's public URL."""
    usage: UsageRecorder
    counters: Counters = field(default_factory=MemoryCounters)
    """Of rate limits; in this process alone, unless bootstrap knows better."""
    readers: Readers = field(default_factory=Readers)
    """Who gets an answer that lasts."""
    api_routes: Sequence[Any] = ()
    """Handlers below /api/v1 beside the ones of this package."""
    root_routes: Sequence[Any] = ()
    """Handlers with paths of their own, for example /install.sh."""
    dependencies: dict[str, Any] | None = None
    """More objects for handlers, by the name of their parameter."""
    lifespan: Sequence[Lifespan] = ()


@dataclass(frozen=True, slots=True)
class Application:
    """`asgi` is what a server serves; `litestar` knows the routes and the OpenAPI document."""

    asgi: Edge
    litestar: Litestar


def create_app(parts: Parts) -> Application:
    """Put the application together."""
    gate = RateGate(RateBook(parts.operations.database), parts.counters)
    parts.metrics.ask_readers(lambda: parts.readers.count)
    values = _list_values(parts, gate)
    routes = compile_routes(
        (*_OWN_ROUTES, *parts.api_routes),
        (*health.ROUTES, *docs.ROUTES, *parts.root_routes),
        frozenset(values),
        _ASKED,
    )
    edge = EdgeParts(
        identities=parts.authenticator,
        policies=parts.authenticator.policies,
        rules=parts.authenticator.rules,
        gate=gate,
        tiers=TierBook(parts.operations.database),
        metrics=parts.metrics,
        note_use=parts.usage.note,
        own_origin=parts.own_origin,
        given=Given(
            values=values,
            guard=make_guard(parts.operations.database),
            note_refusal=_make_refusal_note(parts.operations),
        ),
        lifespan=parts.lifespan,
    )
    return Application(asgi=Edge(routes, edge), litestar=routes)


def _make_refusal_note(operations: Operations) -> Callable[[Exception, Any], Coroutine[Any, Any, None]]:
    """Writes down a refusal that never came to Operations: a guard's, or of what touches no row."""

    async def note_refusal(error: Exception, scope: Any) -> None:
        identity = scopes.identity_of(scope)
        if identity is None or not isinstance(error, FleetError):
            return
        client = scope.get("client")
        actor = dataclasses.replace(identity.actor, address=client[0] if client else "")
        await operations.refusals.note(actor, scopes.request_id_of(scope), error)

    return note_refusal


def _list_values(parts: Parts, gate: RateGate) -> dict[str, Any]:
    return {
        "operations": parts.operations,
        "authenticator": parts.authenticator,
        "publisher": parts.publisher,
        "probes": parts.probes,
        "login_throttle": LoginThrottle(parts.authenticator.rules, parts.counters),
        "rate_gate": gate,
        "readers": parts.readers,
        **(parts.dependencies or {}),
    }


def provide_actor(request: Request[Any, Any, Any]) -> Actor:
    """Who asks.

    Raises:
        UnauthenticatedError: Nobody we know.
    """
    return require_identity(request).actor


def provide_request_id(request: Request[Any, Any, Any]) -> str:
    """The id of this request."""
    return scopes.request_id_of(request.scope)


_ASKED: Final = (("actor", provide_actor), ("request_id", provide_request_id))
"""What handlers are given that comes from the request."""
