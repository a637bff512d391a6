"""Many simulated agents in one process."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import msgspec

from agent.core.registry import Registry
from agent.link.enrolment import Enroller, EnrolmentOptions, EnrolmentOutcome
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.status_file import LinkState
from agent.simulator.agent import SimulatedAgent, ensure_simulated_machine
from shared.errors import InvalidInputError

ENROLMENTS_AT_ONCE: Final = 8
"""Each needs a thread and two TLS handshakes; more would only queue at the controller."""


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which agents, and where they live."""

    controller_url: str
    names: tuple[str, ...]
    state_dir: Path
    tokens: tuple[str, ...] = ()
    """One for each name in order, empty for those that are enrolled already; none at all when all of them are."""
    keeps_state: bool = True


def parse_names(raw: str | None, count: int) -> tuple[str, ...]:
    """Names from a comma-separated list, or sim-1 to sim-N.

    Raises:
        InvalidInputError: No name, the same one twice, or one that is no plain file name.
    """
    names = tuple(part.strip() for part in raw.split(",")) if raw else tuple(f"sim-{n}" for n in range(1, count + 1))
    if not names or len(set(names)) != len(names) or not all(name and Path(name).name == name for name in names):
        raise InvalidInputError("agents need different plain names", field="names")
    return names


class SimulatedFleet:
    """Enrols and runs the agents of a plan."""

    def __init__(self, plan: FleetPlan, registry: Registry) -> None:
        self._plan = plan
        self._registry = registry
        self._tasks: list[asyncio.Task[None]] = []
        self.agents: list[SimulatedAgent] = []

    async def enrol(self) -> list[EnrolmentOutcome]:
        """Enrol each agent that is not yet; in order of the names.

        Raises:
            SetupError: One was refused.
        """
        tokens = _tokens_by_name(self._plan)
        limit = asyncio.Semaphore(ENROLMENTS_AT_ONCE)

        async def enrol_one(name: str) -> EnrolmentOutcome:
            async with limit:
                return await asyncio.to_thread(self._enrol_one, name, tokens.get(name, ""))

        return list(await asyncio.gather(*(enrol_one(name) for name in self._plan.names)))

    def _enrol_one(self, name: str, token: str) -> EnrolmentOutcome:
        paths = self.paths_of(name)
        for folder in (paths.config_dir, paths.tls_dir, paths.executor_state_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not token and paths.agent_toml.exists():
            settings = read_agent_settings(paths)
            return EnrolmentOutcome(node_id=settings.node_id, gateway_url=settings.gateway_url, is_new=False)
        options = EnrolmentOptions(
            controller_url=self._plan.controller_url,
            token=token,
            hostname=name,
            machine_id_hash=ensure_simulated_machine(paths.machine_id).machine_id_hash,
        )
        return Enroller(paths, options, say=lambda _line: None).enrol()

    def paths_of(self, name: str) -> NodePaths:
        """The folder that is the agent's whole machine."""
        return NodePaths(self._plan.state_dir / name)

    def start(self) -> None:
        """Start every agent; each dials at once."""
        for name in self._plan.names:
            agent = SimulatedAgent(name, self.paths_of(name), self._registry, keeps_state=self._plan.keeps_state)
            self.agents.append(agent)
            self._tasks.append(asyncio.create_task(agent.run(), name=f"agent-{name}"))

    @property
    def connected_count(self) -> int:
        """Agents that the controller has welcomed."""
        states = (agent.status.state for agent in self.agents if agent.status is not None)
        return sum(state is LinkState.CONNECTED for state in states)

    async def wait(self) -> None:
        """Until one of the agents ends, which only a mistake or a cancellation makes it do."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """End every agent."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _tokens_by_name(plan: FleetPlan) -> dict[str, str]:
    if plan.tokens and len(plan.tokens) != len(plan.names):
        raise InvalidInputError(
            f"{len(plan.names)} agents need as many tokens; {len(plan.tokens)} were given", field="tokens"
        )
    return dict(zip(plan.names, plan.tokens, strict=False))
