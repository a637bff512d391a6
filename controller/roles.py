"""Which parts of the controller a process runs. `all` is the default; the others are its parts apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one process does."""

    name: str
    serves_api: bool = False
    """REST and the websocket of the UI; keeps nothing between two requests."""
    serves_agents: bool = False
    """The agents' listener; fetches its own nodes' jobs."""
    works: bool = False
    """Signs jobs, sweeps, runs schedules and tasks."""

    @property
    def is_alone(self) -> bool:
        """Whether it needs no other process."""
        return self.serves_api and self.serves_agents and self.works


ALL: Final = Role(name="all", serves_api=True, serves_agents=True, works=True)
API: Final = Role(name="api", serves_api=True)
GATEWAY: Final = Role(name="gateway", serves_agents=True)
WORKER: Final = Role(name="worker", works=True)
ROLES: Final = {role.name: role for role in (ALL, API, GATEWAY, WORKER)}
