"""Lists of networks: who may come from where. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from shared.errors import ConflictError, ForbiddenError, InvalidInputError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NETWORKS: Final = 200
_PLACE_BITS: Final = {4: 24, 6: 48}
"""One household or office has a /48 of IPv6 at most (RFC 6177 section 2); of IPv4 a /24 holds the neighbours."""


def parse_networks(raw: Sequence[str], *, field: str) -> list[str]:
    """Return the networks in canonical form, each once, in order.

    Raises:
        InvalidInputError: There are too many, or one is no address or network in CIDR notation.
    """
    if len(raw) > MAX_NETWORKS:
        raise InvalidInputError(f"at most {MAX_NETWORKS} networks", field=field)
    found = []
    for text in raw:
        try:
            found.append(str(ipaddress.ip_network(text.strip())))
        except ValueError as error:
            raise InvalidInputError(
                f"{text[:60]!r} is no network such as 203.0.113.0/24 or 2001:db8::/32", field=field
            ) from error
    return sorted(set(found))


@lru_cache(maxsize=256)
def _read(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


@lru_cache(maxsize=4096)
def _address_of(raw: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for what is no address, for example a unix socket."""
    try:
        address = ipaddress.ip_address(raw)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_within(raw: str, networks: Sequence[str]) -> bool:
    """Whether the address belongs to one of the networks; an IPv4 address in IPv6 clothes (::ffff:) counts as IPv4."""
    address = _address_of(raw)
    return address is not None and any(address in network for network in _read(tuple(networks)))


def is_part_of(network: str, networks: Sequence[str]) -> bool:
    """Whether all of a network lies in one of the others."""
    part = ipaddress.ip_network(network)
    return any(
        isinstance(part, ipaddress.IPv4Network) == isinstance(whole, ipaddress.IPv4Network)
        and whole.network_address <= part.network_address  # type: ignore[operator] # both of one version
        and part.broadcast_address <= whole.broadcast_address  # type: ignore[operator] # both of one version
        for whole in _read(tuple(networks))
    )


def is_loopback(raw: str) -> bool:
    """Whether the address is this very machine's."""
    address = _address_of(raw)
    return address is not None and address.is_loopback


def place_of(raw: str) -> str:
    """The neighbourhood of an address: /24 of IPv4, /48 of IPv6; empty for what is no address."""
    address = _address_of(raw)
    if address is None:
        return ""
    return str(ipaddress.ip_network(f"{address}/{_PLACE_BITS[address.version]}", strict=False))


def require_network(address: str, *, allow: Sequence[str] = (), deny: Sequence[str] = (), who: str) -> None:
    """Pass when the lists let this address in: what is denied stays out, and an empty allow list allows all.

    Raises:
        ForbiddenError: They do not.
    """
    if (deny and is_within(address, deny)) or (allow and not is_within(address, allow)):
        raise ForbiddenError(
            f"{who} may not come from {address or 'an unknown address'}",
            code="network_refused",
            hint="Come from an allowed network, or have an administrator change the list.",
        )


def require_still_inside(address: str, *, allow: Sequence[str], deny: Sequence[str]) -> None:
    """Pass when whoever sets these lists is let in by them.

    Raises:
        ConflictError: They would shut themselves out.
    """
    try:
        require_network(address, allow=allow, deny=deny, who="you")
    except ForbiddenError as error:
        raise ConflictError(
            f"this would lock you out: you come from {address or 'an unknown address'}",
            code="would_lock_out",
            hint="Allow your own network as well, or do it on the controller's own machine.",
        ) from error
