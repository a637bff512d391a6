"""How nginx is doing."""

from __future__ import annotations

from agent.contract.facts import Probe
from agent.modules.web import layout
from shared.protocol.health import HealthCheck, ModuleHealth
from shared.specs.module import ModuleSpec

UNKNOWN_HOST = "unknown-host.wcp360.invalid"


class WebHealth:
    """nginx runs, answers, and would start again with the configuration that lies there."""

    async def check_health(self, spec: ModuleSpec, probe: Probe) -> ModuleHealth:
        """Read only."""
        unit = await probe.unit(layout.UNIT)
        service = HealthCheck(
            name="service",
            is_good=unit.is_running,
            note=f"{layout.UNIT} is {'running' if unit.is_running else 'failed' if unit.has_failed else 'not running'}",
        )
        answer = await probe.http_get(host_name=UNKNOWN_HOST, path="/")
        listening = HealthCheck(
            name="listening",
            is_good=answer is not None,
            note="nginx answers requests" if answer is not None else "nginx does not answer",
        )
        words = await probe.find_config_fault(layout.SITES_TREE.name)
        config = HealthCheck(name="config", is_good=words is None, note=words or "nginx accepts the configuration")
        installed = await probe.packages(("nginx", "nginx-core", "nginx-light"))
        return ModuleHealth(
            name=spec.name,
            checks=(service, listening, config),
            version=next(iter(installed.values()), ""),
            last_reload_at=unit.changed_at,
            units=(layout.UNIT,),
        )
