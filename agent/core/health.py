"""How the enabled modules of this node are doing: read, judged and never changed."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.contract.module import Module
from agent.core.boundary import error_body
from agent.core.context import NodeContext
from shared.protocol.health import HealthCheck, HealthReport, ModuleHealth
from shared.specs.base import Presence
from shared.specs.manifest import NODE_SUBJECT
from shared.specs.module import ModuleSpec

LOOK_SECONDS: Final = 90.0
"""For one module; a validator of a large configuration takes its time."""
MAX_NOTE_CHARACTERS: Final = 1000


async def read_health(node: NodeContext) -> HealthReport:
    """Look at every module that the node was told to have enabled."""
    holdings = node.ledger.holdings(NODE_SUBJECT).values()
    specs = [h.spec for h in holdings if isinstance(h.spec, ModuleSpec) and h.presence is Presence.ENABLED]
    modules = []
    for spec in sorted(specs, key=lambda spec: spec.name):
        module = node.registry.find_module(spec.name)
        if module is not None:
            modules.append(await _read_module(node, module, spec))
    return HealthReport(modules=tuple(modules), checked_at=node.now(), quarantine=node.journal.quarantine)


async def _read_module(node: NodeContext, module: Module, spec: ModuleSpec) -> ModuleHealth:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            if module.health is not None:
                found = await module.health.check_health(spec, node.host)
            else:
                verification = await module.host.verify(spec, Presence.ENABLED, node.host)
                check = HealthCheck(name="promise", is_good=verification.is_good, note=verification.note)
                found = ModuleHealth(name=spec.name, checks=(check,))
    except TimeoutError:
        note = f"not known: the look was not done within {LOOK_SECONDS:.0f} s"
        return ModuleHealth(name=spec.name, checks=(HealthCheck(name="look", is_good=False, note=note),))
    except Exception as error:  # noqa: BLE001 - the executor's boundary: a bug in one module is that one's
        note = f"not known: {error_body(error).message}"[:MAX_NOTE_CHARACTERS]
        return ModuleHealth(name=spec.name, checks=(HealthCheck(name="look", is_good=False, note=note),))
    return found
