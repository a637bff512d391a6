"""What planning sshd and the keys of accounts needs to know of the host."""

from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.compare import read_paths
from agent.contract.facts import PathFact, Probe, UnitFact
from agent.modules.ssh import layout
from shared.specs.ssh_access import SshAccessSpec

HOST_PATHS: Final = (layout.KEYS_DIR, layout.PRIVILEGE_DIR, layout.DROP_IN)


class SshHostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """sshd as the host has it."""

    installed: tuple[str, ...]
    """Those of layout.PACKAGES that are installed."""
    unit: UnitFact
    paths: dict[str, PathFact | None]
    """HOST_PATHS."""
    accounts: tuple[str, ...]
    """Names in KEYS_DIR."""


class AccessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One account's keys as the host has them."""

    is_module_there: bool
    """sshd has our rules, and the keys have their folder."""
    config: PathFact | None
    """Its authorized_keys."""


async def read_host(probe: Probe) -> SshHostFacts:
    return SshHostFacts(
        installed=tuple(sorted(await probe.packages(layout.PACKAGES))),
        unit=await probe.unit(layout.UNIT),
        paths=await read_paths(probe, HOST_PATHS),
        accounts=await probe.list_directory(layout.KEYS_DIR) or (),
    )


async def read_access(spec: SshAccessSpec, probe: Probe) -> AccessFacts:
    places = await read_paths(probe, (layout.KEYS_DIR, layout.DROP_IN))
    return AccessFacts(
        is_module_there=all(fact is not None for fact in places.values()),
        config=await probe.path(layout.keys_file(spec.account)),
    )
