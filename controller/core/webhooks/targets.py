"""Where a webhook may go: into the internet, and into private networks that the settings name.

The address is checked when it is used, not when it was entered: a name can lead elsewhere by then (DNS rebinding). So
the caller connects to the very address that was checked here, and never to the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared.errors import InvalidInputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text. Raises OSError when there are none."""

RESOLVE_SECONDS: Final = 5.0
URL_LENGTH_MAX: Final = 2000
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Source: RFC 6052 section 2.1."""


class ForbiddenTargetError(Exception):
    """The URL leads to an address that no webhook may reach, or to none."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and what to ask for there."""

    url: SplitResult
    addresses: tuple[str, ...]
    """Checked, in the resolver's order."""

    @property
    def host(self) -> str:
        """Name for SNI and certificate."""
        return self.url.hostname or ""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """What the machine's own resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Targets:
    """Checks URLs and addresses."""

    def __init__(self, allowed_networks: Sequence[str] = (), resolve: Resolve = resolve_by_system) -> None:
        """`allowed_networks`: private ones that webhooks may reach, for example 10.0.0.0/8."""
        self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allowed_networks)
        self._resolve = resolve

    async def require_acceptable(self, raw: str) -> str:
        """The URL if a webhook may have it. A name that leads nowhere yet is accepted: it is looked at each time.

        Raises:
            InvalidInputError: It is no URL for a webhook, or leads into a network that is not allowed.
        """
        parse_webhook_url(raw)
        try:
            await self.find(raw)
        except ForbiddenTargetError as error:
            raise InvalidInputError(
                str(error), field="url", hint="An operator can allow networks: webhook_allowed_networks."
            ) from error
        except OSError:
            return raw
        return raw

    async def find(self, raw: str) -> Target:
        """Resolve the URL's host and check every address it has.

        Raises:
            ForbiddenTargetError: One of the addresses is not allowed, or plain HTTP is not.
            OSError: The name leads nowhere now.
        """
        url = urlsplit(raw)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise OSError(f"the name {host} was not resolved in time") from error
        except UnicodeError as error:
            raise OSError(f"the name {host[:80]!r} cannot be resolved") from error
        if not found:
            raise OSError(f"the name {host} has no address")
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        for address in addresses:
            self._require_allowed(address, is_plain=url.scheme != "https")
        return Target(url=url, addresses=tuple(dict.fromkeys(str(address) for address in addresses)))

    def _require_allowed(self, address: Address, *, is_plain: bool) -> None:
        reached = unwrap(address)
        if any(reached.version == network.version and reached in network for network in self._allowed):
            return
        if not is_public(reached):
            raise ForbiddenTargetError(f"the address {address} is in a network that webhooks may not reach")
        if is_plain:
            raise ForbiddenTargetError("a webhook into the internet needs https://")


@dataclass(frozen=True, slots=True)
class TargetsByOwner:
    """The networks that an operator opens for its own webhooks are not open for those of resellers and clients."""

    platform: Targets
    tenants: Targets

    def of(self, *, is_tenant: bool) -> Targets:
        """Where endpoints of such an owner may go."""
        return self.tenants if is_tenant else self.platform


def unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does: mapped, 6to4, NAT64; Teredo counts as its client."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether the address belongs to one machine in the internet."""
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def parse_webhook_url(raw: str) -> SplitResult:
    """The URL's parts.

    Raises:
        InvalidInputError: It is too long, no http(s) URL, or holds a password or a fragment.
    """
    try:
        url = urlsplit(raw)
        port = url.port
    except ValueError as error:
        raise InvalidInputError(f"{raw[:80]!r} is no URL: {error}", field="url") from error
    is_printable = raw.isascii() and raw.isprintable() and " " not in raw
    if not is_printable or len(raw) > URL_LENGTH_MAX or url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidInputError("url must be like https://example.com/hook, in ASCII", field="url")
    if url.username is not None or url.password is not None or "#" in raw or port == 0:
        raise InvalidInputError("url must not hold a user name, a password or a fragment", field="url")
    return url
