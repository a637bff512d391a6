"""The module as core sees it."""

from __future__ import annotations

from agent.contract.facts import Probe
from agent.contract.module import Module, Plan, Verification
from agent.modules.php import layout
from agent.modules.php.facts import PhpHostFacts, PoolFacts, read_php_host, read_pool
from agent.modules.php.health import PhpHealth
from agent.modules.php.plan_host import plan_host
from agent.modules.php.plan_pool import plan_pool
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec


class PhpHostConverger:
    """PHP's packages, the templates of all masters, and what puts them to sleep."""

    spec_type = ModuleSpec

    async def observe(self, spec: ModuleSpec, probe: Probe) -> PhpHostFacts:
        return await read_php_host(spec, probe)

    def plan(self, spec: ModuleSpec, presence: Presence, facts: PhpHostFacts) -> Plan:
        return plan_host(spec, presence, facts)

    async def verify(self, spec: ModuleSpec, presence: Presence, probe: Probe) -> Verification:  # noqa: ARG002 - as above
        is_wanted = presence is Presence.ENABLED
        units = {name: await probe.unit(name) for name in (layout.TARGET, layout.SLEEP_TIMER)}
        wrong = [name for name, unit in units.items() if unit.is_running != is_wanted]
        state = "up" if is_wanted else "down"
        note = f"{', '.join(wrong)} should be {state}" if wrong else f"{', '.join(units)} are {state}"
        return Verification(is_good=not wrong, note=note)


class PoolConverger:
    """One account's PHP of one version."""

    spec_type = PhpPoolSpec

    async def observe(self, spec: PhpPoolSpec, probe: Probe) -> PoolFacts:
        return await read_pool(spec, probe)

    def plan(self, spec: PhpPoolSpec, presence: Presence, facts: PoolFacts) -> Plan:
        return plan_pool(spec, presence, facts)

    async def verify(self, spec: PhpPoolSpec, presence: Presence, probe: Probe) -> Verification:
        """PHP listens, and whatever of it runs is inside the account's slice; or nothing of it is left running."""
        socket = await probe.unit(layout.pool_socket_unit(spec.version, spec.uid))
        service = await probe.unit(layout.pool_service_unit(spec.version, spec.uid))
        if presence is not Presence.ENABLED:
            is_down = not socket.is_running and not service.is_running
            return Verification(is_good=is_down, note=f"PHP {spec.version} {'is down' if is_down else 'still runs'}")
        if not socket.is_running:
            return Verification(is_good=False, note=f"PHP does not listen at {spec.socket_path}")
        if service.has_failed:
            return Verification(is_good=False, note=f"the master of PHP {spec.version} failed to start")
        if not service.is_running:
            return Verification(is_good=True, note=f"PHP {spec.version} listens and sleeps")
        is_inside = (await probe.slice(spec.uid)).is_active
        place = "inside" if is_inside else "outside"
        note = f"PHP {spec.version} listens and runs {place} user-{spec.uid}.slice"
        return Verification(is_good=is_inside, note=note)


MODULE = Module(
    name="php",
    version="1",
    host=PhpHostConverger(),
    convergers=(PoolConverger(),),
    config_trees=tuple(layout.config_tree(version) for version in layout.KNOWN_VERSIONS),
    health=PhpHealth(),
)
