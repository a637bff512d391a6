"""Whose counters a request counts on: the one place that says it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from controller.core.auth.identities import Identity

_V6_PREFIX: Final = 64
"""What one customer of a network gets; an attacker has all addresses in it. Source: RFC 6177."""


class Key(NamedTuple):
    """A rate, and whose counter of it."""

    rate: str
    """A field of RateLimits."""
    owner: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """The reseller or client that somebody belongs to."""

    kind: str
    """reseller or client."""
    id: str
    tier: Literal["low", "standard", "high"] | None = None
    """`security.api_rate_tier` of their package; None: they have none."""


def key_of(identity: Identity | None, address: str, *, tenant: Tenant | None = None) -> tuple[Key, ...]:
    """The counters of one request."""
    if identity is None:
        return (Key("anonymous", network_of(address)),)
    return tuple(_keys_of(identity, tenant))


def _keys_of(identity: Identity, tenant: Tenant | None) -> Iterator[Key]:
    if not identity.is_person:
        yield Key("token", identity.credential_id)
    yield Key("user", identity.user_id)
    if tenant is not None:
        yield Key("tenant", f"{tenant.kind}/{tenant.id}")
        if tenant.tier is not None:
            yield Key(f"tier_{tenant.tier}", f"{tenant.kind}/{tenant.id}")


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """What counts as one address."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), _V6_PREFIX), strict=False))
