"""The outermost layer of the API: a request id, who asks, where from, how long it took.

It wraps the whole Litestar application, because Litestar's own middleware does not see requests that match no route,
and those must be logged, counted and answered like all others.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import structlog
from litestar.datastructures import Headers
from structlog.contextvars import bind_contextvars, clear_contextvars

from controller.api import scopes
from controller.api.errors import PROBLEM_MEDIA_TYPE, log_problem, problem_of, render_problem
from controller.api.given import Given, bind_given
from controller.api.lifespan import Lifespan, serve_lifespan
from controller.api.origin import require_own_origin
from controller.api.rate_gate import RateGate
from controller.core.api_usage.recorder import Use
from controller.core.auth.identities import Identity
from controller.core.auth.policy import SecurityPolicy, require_let_in, require_not_denied
from controller.core.policies.registry import PlatformPolicies
from controller.core.rate_limits.keys import Tenant
from controller.core.rate_limits.tiers import TierBook
from controller.db.base import new_id
from controller.metrics.registry import HttpMetrics
from shared.errors import InvalidInputError

SESSION_COOKIE: Final = "__Host-wcp"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis section 4.1.3.2)."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_UNMATCHED: Final = "(no route)"
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FIRST_FAILURE: Final = 400

_SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Defaults for every answer; a handler's own header of the same name wins."""

_access_log = structlog.get_logger("controller.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


NoteUse = Callable[[Identity | None, Use], None]
"""Told about every answer, except a health check's."""


class IdentityFinder(Protocol):
    """What the edge needs of controller.core.auth."""

    async def find_identity(self, secret: str, address: str = "") -> Identity | None: ...


class PolicyReader(Protocol):
    """What the edge needs to know of who may come from where."""

    async def current(self) -> SecurityPolicy: ...


class RuleReader(Protocol):
    """What the edge needs to know of the platform's policies."""

    @property
    def latest(self) -> PlatformPolicies: ...

    async def current(self) -> PlatformPolicies: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeParts:
    """What the edge asks and tells."""

    identities: IdentityFinder
    policies: PolicyReader
    rules: RuleReader
    gate: RateGate
    tiers: TierBook
    metrics: HttpMetrics
    note_use: NoteUse
    own_origin: str
    given: Given
    lifespan: Sequence[Lifespan] = ()


class Edge:
    """An ASGI application around another one."""

    def __init__(self, app: AsgiApp, parts: EdgeParts) -> None:
        self._app = app
        self._identities = parts.identities
        self._policies = parts.policies
        self._rules = parts.rules
        self._gate = parts.gate
        self._tiers = parts.tiers
        self._metrics = parts.metrics
        self._note_use = parts.note_use
        self._own_origin = parts.own_origin
        self._given = parts.given
        self._lifespan = parts.lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(self._lifespan, receive, send)
            return
        bind_given(self._given)
        request_id = _request_id_from(Headers.from_scope(scope))  # type: ignore[arg-type] # any scope with headers
        scopes.remember_request_id(scope, request_id)
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        async with AsyncExitStack() as endings:
            scopes.remember_endings(scope, endings)
            if scope["type"] == "websocket":
                await self._admit(scope, receive, send)
            else:
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        answer = _Answer(send, scope)
        try:
            await self._admit(scope, receive, answer.send)
        finally:
            seconds = time.perf_counter() - started
            route = str(scope.get("path_template") or _UNMATCHED)
            self._metrics.observe(scope["method"], route, answer.status, seconds)
            if scope["path"] not in _PROBES:
                identity = scopes.identity_of(scope)
                self._note_use(identity, Use(scope["method"], route, answer.status, seconds, _address_of(scope)))
            if is_logged(self._rules.latest.api_log, scope["method"], answer.status):
                _log_access(scope, route, answer.status, seconds)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks, then let the application answer; the boundary for what fails before it or escapes it."""
        try:
            _require_clean_address(scope)
            await self._identify(scope)
            await self._limit(scope)
        except Exception as error:  # noqa: BLE001 - a boundary: everything becomes a problem document here
            await _answer_problem(scope, send, error)
            return
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> None:
        if scope["path"] in _PROBES:  # answer whatever else fails, the database included
            scopes.remember_identity(scope, None, is_rejected=False)
            return
        headers = Headers.from_scope(scope)  # type: ignore[arg-type] # any scope with headers
        secret, is_cookie = find_secret(headers)
        address = _address_of(scope)
        policy = await self._policies.current()
        scopes.remember_policy(scope, policy)
        scopes.remember_rules(scope, await self._rules.current())
        require_not_denied(policy, address)
        if secret:
            require_let_in(policy, address)
        identity = await self._identities.find_identity(secret, address) if secret else None
        if is_cookie or not secret:
            # Browsers add a cookie to requests that other sites caused; a bearer token only our own callers add.
            require_own_origin(scope, headers, self._own_origin, is_signed_in=identity is not None)
        if identity is not None:  # the audit log says where every change came from
            actor = dataclasses.replace(identity.actor, address=address)
            identity = dataclasses.replace(identity, actor=actor)
        scopes.remember_identity(scope, identity, is_rejected=bool(secret) and identity is None)
        if identity is not None:
            bind_contextvars(actor=identity.actor.reference)

    async def _limit(self, scope: Scope) -> None:
        """Before any work is done, and after we know whose counters it counts on."""
        if scope["path"] in _PROBES:
            return
        identity = scopes.identity_of(scope)
        admission = await self._gate.admit(identity, _address_of(scope), await self._find_tenant(identity))
        scopes.remember_limit_headers(scope, admission.headers)
        if admission.error is not None:
            raise admission.error

    async def _find_tenant(self, identity: Identity | None) -> Tenant | None:
        if identity is None or identity.tenant is None:
            return None
        kind, tenant_id = identity.tenant
        tier = await self._tiers.find_tier(tenant_id) if kind == "client" else None
        return Tenant(kind, tenant_id, tier)


class _Answer:
    """Watches one answer on its way out: remembers the status, adds the headers that every answer has."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._scope = scope
        self.status = 500
        """Stands when nothing was ever sent."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers.extend(header for header in _SECURITY_HEADERS if header[0] not in present)
            headers.append((b"x-request-id", scopes.request_id_of(self._scope).encode()))
            headers.extend(scopes.limit_headers_of(self._scope))
            message["headers"] = headers
        await self._send(message)


def _address_of(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _require_clean_address(scope: Scope) -> None:
    query = scope.get("query_string", b"")
    if "\x00" in scope["path"] or b"%00" in query:
        raise InvalidInputError("the address holds a NUL character")
    # No parameter of ours is a list: of two values each layer would choose another one.
    names = Counter(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    repeated = next((name for name, count in names.items() if count > 1), None)
    if repeated is not None:
        raise InvalidInputError(f"{repeated[:80]!r} is given more than once", field=repeated[:80])


def _request_id_from(headers: Headers) -> str:
    """The caller's id when it is sane enough for a log, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else new_id()


def find_secret(headers: Headers) -> tuple[str, bool]:
    """The secret that a request shows, and whether it is a cookie's; empty: none. A bearer token counts first."""
    bearer = _bearer_from(headers)
    return (bearer, False) if bearer else (_cookie_from(headers) or "", True)


def _bearer_from(headers: Headers) -> str | None:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def _cookie_from(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


async def _answer_problem(scope: Scope, send: Send, error: Exception) -> None:
    problem, headers = problem_of(error, scopes.request_id_of(scope))
    log_problem(problem, error)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000 + problem.status, "reason": problem.detail[:100]})
        return
    raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw_headers.append((b"content-type", PROBLEM_MEDIA_TYPE.encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": render_problem(problem)})


def is_logged(verbosity: str, method: str, status: int) -> bool:
    """Whether a request has a line in the access log, by the policy `api_log`."""
    if verbosity == "all":
        return True
    is_failure = status >= _FIRST_FAILURE
    return verbosity != "none" and (is_failure or (verbosity == "changes" and method not in _READING))


def _log_access(scope: Scope, route: str, status: int, seconds: float) -> None:
    """One line per request: what was asked and by whom, never bodies, cookies or query strings."""
    client = scope.get("client")
    _access_log.info(
        "request",
        method=scope["method"],
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        client=client[0] if client else None,
    )
