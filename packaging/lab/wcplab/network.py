"""The bridge of a lab, its subnet, and the links of its nodes."""

from __future__ import annotations

import ipaddress
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from wcplab.errors import CannotBootError, LabError
from wcplab.process import run

IP_TIMEOUT_SECONDS = 20.0
NETWORK = ipaddress.ip_network("10.86.0.0/16")
"""Every lab gets one /24 of it. Source: RFC 1918, private addresses; the second byte is arbitrary and rarely used."""
FIRST_SUBNET, LAST_SUBNET = 1, 254
FIRST_NODE_HOST = 11
"""Node number 1 has .11; .1 is this machine, the rest below is kept for a test's own services."""
MAX_NODES = 200


def bridge_name(subnet: int) -> str:
    """The bridge of a subnet: at most 15 characters, as the kernel wants (IFNAMSIZ)."""
    return f"wcplab{subnet}"


def machine_name(subnet: int, index: int) -> str:
    """The name nspawn gets: short, so that the link name it derives ("vb-" and this) is not cut."""
    return f"w{subnet}n{index}"


def link_name(subnet: int, index: int) -> str:
    """The host's end of a node's cable. Source: systemd-nspawn(1), --network-bridge."""
    return f"vb-{machine_name(subnet, index)}"


def host_address(subnet: int) -> str:
    """This machine's address in a lab, where a controller listens."""
    return f"10.86.{subnet}.1"


def node_address(subnet: int, index: int) -> str:
    """A node's address; numbers start at 1."""
    return f"10.86.{subnet}.{FIRST_NODE_HOST + index - 1}"


def choose_subnet(lab: str, used: Iterable[int]) -> int:
    """Pick the subnet of a lab: the same name gets the same one, unless it is taken.

    Raises:
        LabError: all are taken.
    """
    taken, count = set(used), LAST_SUBNET - FIRST_SUBNET + 1
    start = zlib.crc32(lab.encode()) % count
    for step in range(count):
        subnet = FIRST_SUBNET + (start + step) % count
        if subnet not in taken:
            return subnet
    raise LabError("no_subnet", "every subnet of 10.86.0.0/16 is taken", hint="remove labs with `wcp-lab down`")


def parse_used_subnets(route_json: str) -> set[int]:
    """Return which subnets the machine's routes already reach, from `ip -json route show table all`."""
    used: set[int] = set()
    for route in json.loads(route_json or "[]"):
        try:
            network = ipaddress.ip_network(route.get("dst", ""), strict=False)
        except ValueError:
            # "default" and names are no subnets.
            continue
        if network.version == 4 and network.prefixlen > 0 and network.overlaps(NETWORK):
            used.update(_covered(network))
    return used


def _covered(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> range:
    if network.prefixlen <= NETWORK.prefixlen:
        return range(FIRST_SUBNET, LAST_SUBNET + 1)
    return range(network[0].packed[2], network[-1].packed[2] + 1)


def read_used_subnets() -> set[int]:
    """Return which subnets this machine already reaches."""
    found = run(["ip", "-4", "-json", "route", "show", "table", "all"], timeout_seconds=IP_TIMEOUT_SECONDS).check()
    return parse_used_subnets(found.stdout)


def ensure_bridge(subnet: int) -> None:
    """Make the lab's bridge, with this machine's address on it. Idempotent.

    Raises:
        CannotBootError: this machine does not let us make network devices.
    """
    name = bridge_name(subnet)
    if not exists(name):
        # A fixed address of its own: else the bridge takes over that of its lowest port, and every neighbour's
        # ARP entry is wrong whenever a node comes or goes.
        mac = f"02:57:43:50:{subnet:02x}:01"
        made = run(["ip", "link", "add", name, "address", mac, "type", "bridge"], timeout_seconds=IP_TIMEOUT_SECONDS)
        if made.exit_code != 0:
            hint = "the lab needs CAP_NET_ADMIN and a kernel with bridge and veth"
            raise CannotBootError("no_bridge", f"cannot make bridge {name}: {made.stderr.strip()}", hint=hint)
    ip("address", "replace", f"{host_address(subnet)}/24", "dev", name)
    ip("link", "set", "dev", name, "up")


def remove_bridge(subnet: int) -> None:
    """Remove the lab's bridge and what is left of its nodes' links. Idempotent."""
    for link in list_links(subnet):
        run(["ip", "link", "delete", "dev", link], timeout_seconds=IP_TIMEOUT_SECONDS)
    if exists(bridge_name(subnet)):
        ip("link", "delete", "dev", bridge_name(subnet))


def list_links(subnet: int) -> list[str]:
    """Return the hosts' ends of the nodes' links of a subnet."""
    prefix = link_name(subnet, 0)[:-1]
    return sorted(path.name for path in Path("/sys/class/net").glob(f"{prefix}*"))


def exists(link: str) -> bool:
    """Whether this machine has such a network device."""
    return Path("/sys/class/net", link).exists()


def is_cut(link: str) -> bool:
    """Whether the host's end of a node's link was set down."""
    try:
        flags = int(Path("/sys/class/net", link, "flags").read_text(encoding="ascii"), 16)
    except OSError:
        return False
    return not flags & 1  # Source: netdevice(7), IFF_UP


def ip(*arguments: str) -> None:
    """Run the ip program of iproute2.

    Raises:
        LabError: it failed.
    """
    run(["ip", *arguments], timeout_seconds=IP_TIMEOUT_SECONDS).check()
