"""How the modules of a node are doing, and the controller's wish to be left alone for a while.

All of it may be lost: health is said again with every session and every change, quiet with every session.
"""

from __future__ import annotations

import msgspec

from shared.protocol.frame import Frame


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    """service, config, listening or promise."""
    is_good: bool
    note: str = ""


class ModuleHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One module that the node was told to have enabled."""

    name: str
    checks: tuple[HealthCheck, ...]
    version: str = ""
    """Of the service, as its package says; empty where there is none."""
    last_reload_at: float = 0.0
    """When the service last started or reloaded, seconds since the epoch; 0: not known."""
    units: tuple[str, ...] = ()
    """Units that must be active; the agent watches them between two looks."""

    @property
    def is_healthy(self) -> bool:
        """Whether everything is good."""
        return all(check.is_good for check in self.checks)


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """All modules of the node that are enabled."""

    modules: tuple[ModuleHealth, ...] = ()
    checked_at: float = 0.0
    quarantine: str = ""
    """Why the executor takes no jobs; empty when it does."""


class NodeHealth(Frame, frozen=True, kw_only=True, tag="health"):
    """Agent: how the modules are doing."""

    report: HealthReport


class CheckHealth(Frame, frozen=True, kw_only=True, tag="health_check"):
    """Controller: look now. Changes nothing, so it needs no signature."""


class Quiet(Frame, frozen=True, kw_only=True, tag="quiet"):
    """Controller: do not repair drift by yourself until then (0: do again). It can only forbid: no signature."""

    until: float
    """Seconds since the epoch, by the node's clock."""
    reason: str = ""
