"""How PHP is doing: the switch of all pools, what puts them to sleep, and every pool's configuration."""

from __future__ import annotations

from agent.contract.facts import Probe
from agent.modules.php import layout
from shared.protocol.health import HealthCheck, ModuleHealth
from shared.specs.module import ModuleSpec


class PhpHealth:
    """Sockets can be served, and php-fpm accepts every pool."""

    async def check_health(self, spec: ModuleSpec, probe: Probe) -> ModuleHealth:
        """Read only."""
        units = {name: await probe.unit(name) for name in (layout.TARGET, layout.SLEEP_TIMER)}
        down = [name for name, unit in units.items() if not unit.is_running]
        service = HealthCheck(
            name="service",
            is_good=not down,
            note=f"{', '.join(down)} not running" if down else f"{', '.join(units)} are running",
        )
        versions = await _installed_versions(probe)
        faults = {version: await probe.find_config_fault(layout.tree_name(version)) for version in versions}
        refused = "; ".join(f"PHP {version}: {words}" for version, words in faults.items() if words is not None)
        config = HealthCheck(name="config", is_good=not refused, note=refused or "php-fpm accepts every pool")
        packages = await probe.packages(tuple(f"php{version}-fpm" for version in versions))
        return ModuleHealth(
            name=spec.name,
            checks=(service, config),
            version=", ".join(packages.values()),
            last_reload_at=units[layout.TARGET].changed_at,
            units=tuple(units),
        )


async def _installed_versions(probe: Probe) -> tuple[str, ...]:
    names = await probe.list_directory(layout.CONFIG_DIR) or ()
    return tuple(name for name in names if name in layout.KNOWN_VERSIONS)
