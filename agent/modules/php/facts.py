"""What planning PHP and its pools needs to know of the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from agent.contract.compare import read_paths, read_units
from agent.contract.facts import PathFact, Probe, UnitFact
from agent.modules.php import layout
from agent.modules.php.versions import order_versions, parse_versions
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec

STATIC_FILES: Final = (
    f"{layout.UNIT_DIR}/{layout.TARGET}",
    f"{layout.UNIT_DIR}/{layout.SLEEP_TIMER}",
    f"{layout.UNIT_DIR}/{layout.SLEEP_SERVICE}",
    layout.SLEEP_PROGRAM,
)


class PhpHostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """PHP as the host has it, of the versions that are asked for, that are there, and that could be there."""

    available: tuple[str, ...]
    """Versions that apt could install, lowest first."""
    present: tuple[str, ...]
    """Versions that this module has installed earlier, lowest first."""
    offered: tuple[str, ...]
    """Packages of all these versions that apt could install."""
    installed: tuple[str, ...]
    """Packages of all these versions that are installed."""
    paths: dict[str, PathFact | None]
    """Our folders and files."""
    units: dict[str, UnitFact]
    """Our target and timer, and Debian's own masters."""
    pools: dict[str, int]
    """How many pools each present version has."""


class PoolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One pool as the host has it."""

    is_version_present: bool
    is_module_enabled: bool
    config: PathFact | None
    settings_dir: PathFact | None
    settings: PathFact | None
    """The file with what sites have chosen."""
    fence_dir: PathFact | None
    fence: PathFact | None
    """What keeps this master from running programs."""
    socket: UnitFact
    service: UnitFact


async def read_php_host(spec: ModuleSpec, probe: Probe) -> PhpHostFacts:
    present = _known_versions(await probe.list_directory(layout.CONFIG_DIR) or ())
    names = await probe.available_packages("php*-fpm")
    available = _known_versions(name.removeprefix("php").removesuffix("-fpm") for name in names)
    versions = order_versions({*present, *available, *parse_versions(spec)})
    packages = tuple(name for version in versions for name in layout.removable_packages(version))
    folders = (layout.CONFIG_ROOT, layout.CONFIG_DIR, layout.SOCKETS_ROOT, *map(layout.version_dir, versions))
    templates = [path for v in versions for path in (layout.socket_template(v), layout.service_template(v))]
    units = (layout.TARGET, layout.SLEEP_TIMER, *map(layout.debian_unit, versions))
    return PhpHostFacts(
        available=available,
        present=present,
        offered=await _read_offered(versions, probe),
        installed=tuple(sorted(await probe.packages(packages))),
        paths=await read_paths(probe, (*folders, *STATIC_FILES, *templates)),
        units=await read_units(probe, units),
        pools={version: await _count_pools(version, probe) for version in present},
    )


async def read_pool(spec: PhpPoolSpec, probe: Probe) -> PoolFacts:
    target = await probe.unit(layout.TARGET)
    return PoolFacts(
        is_version_present=await probe.path(layout.socket_template(spec.version)) is not None,
        is_module_enabled=target.is_enabled,
        config=await probe.path(layout.pool_file(spec.version, spec.uid)),
        settings_dir=await probe.path(layout.settings_dir(spec.version, spec.uid)),
        fence_dir=await probe.path(layout.fence_dir(spec.version, spec.uid)),
        fence=await probe.path(layout.fence_file(spec.version, spec.uid)),
        settings=await probe.path(layout.settings_file(spec.version, spec.uid)),
        socket=await probe.unit(layout.pool_socket_unit(spec.version, spec.uid)),
        service=await probe.unit(layout.pool_service_unit(spec.version, spec.uid)),
    )


async def _read_offered(versions: tuple[str, ...], probe: Probe) -> tuple[str, ...]:
    offers = [await probe.available_packages(f"php{version}-*") for version in versions]
    return tuple(name for offer in offers for name in offer)


async def _count_pools(version: str, probe: Probe) -> int:
    names = await probe.list_directory(layout.version_dir(version)) or ()
    return sum(name.endswith(".conf") for name in names)


def _known_versions(names: Iterable[str]) -> tuple[str, ...]:
    return order_versions(name for name in names if name in layout.KNOWN_VERSIONS)
