"""What the edge knows about a request, kept in the ASGI scope's state for handlers, errors and logs."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, Final

from controller.core.auth.identities import Identity
from controller.core.auth.policy import SecurityPolicy
from controller.core.policies.registry import PlatformPolicies

_REQUEST_ID: Final = "wcp_request_id"
_IDENTITY: Final = "wcp_identity"
_REJECTED: Final = "wcp_credential_rejected"
_POLICY: Final = "wcp_security_policy"
_RULES: Final = "wcp_security_rules"
_LIMIT_HEADERS: Final = "wcp_limit_headers"
_ENDINGS: Final = "wcp_endings"

Scope = MutableMapping[str, Any]


def _state(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    state: Mapping[str, Any] = scope.get("state") or {}
    return state


def remember_endings(scope: Scope, endings: AsyncExitStack) -> None:
    """Set once by the edge, before anything else."""
    scope.setdefault("state", {})[_ENDINGS] = endings


def endings_of(scope: Mapping[str, Any]) -> AsyncExitStack:
    """What is called when this request or WebSocket is over: answered, broken off, failed or cancelled."""
    endings: AsyncExitStack = _state(scope)[_ENDINGS]
    return endings


def remember_request_id(scope: Scope, request_id: str) -> None:
    """Set once by the edge."""
    scope.setdefault("state", {})[_REQUEST_ID] = request_id


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id of this request; empty outside of one."""
    return str(_state(scope).get(_REQUEST_ID, ""))


def remember_identity(scope: Scope, identity: Identity | None, *, is_rejected: bool) -> None:
    """Set once by the edge. `is_rejected`: a secret was shown, and it is not valid."""
    state = scope.setdefault("state", {})
    state[_IDENTITY] = identity
    state[_REJECTED] = is_rejected


def identity_of(scope: Mapping[str, Any]) -> Identity | None:
    """Who asks; None for nobody we know."""
    identity: Identity | None = _state(scope).get(_IDENTITY)
    return identity


def is_credential_rejected(scope: Mapping[str, Any]) -> bool:
    """True when a secret was shown that is not valid."""
    return bool(_state(scope).get(_REJECTED, False))


def remember_policy(scope: Scope, policy: SecurityPolicy) -> None:
    """Set once by the edge: what holds for this request."""
    scope.setdefault("state", {})[_POLICY] = policy


def policy_of(scope: Mapping[str, Any]) -> SecurityPolicy:
    """What holds for this request."""
    policy: SecurityPolicy = _state(scope).get(_POLICY) or SecurityPolicy()
    return policy


def remember_rules(scope: Scope, rules: PlatformPolicies) -> None:
    """Set once by the edge: the platform's policies as they are for this request."""
    scope.setdefault("state", {})[_RULES] = rules


def rules_of(scope: Mapping[str, Any]) -> PlatformPolicies:
    """The platform's policies as they are for this request."""
    rules: PlatformPolicies = _state(scope).get(_RULES) or PlatformPolicies()
    return rules


def remember_limit_headers(scope: Scope, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Set once by the edge: what the answer says of the caller's rate limits, whoever makes it."""
    scope.setdefault("state", {})[_LIMIT_HEADERS] = headers


def limit_headers_of(scope: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """What the answer says of the caller's rate limits; empty before anybody asked."""
    headers: tuple[tuple[bytes, bytes], ...] = _state(scope).get(_LIMIT_HEADERS, ())
    return headers
