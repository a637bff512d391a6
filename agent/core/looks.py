"""Looking around on request (drift, health, what homes hold): each merged with others that ask for the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.core.context import NodeContext
from agent.core.drift import DriftCheck
from agent.core.health import read_health
from agent.core.merged_requests import MergedRequests
from agent.core.usage import UsageRounds
from shared.protocol.local import (
    DriftFound,
    FromExecutor,
    HealthFound,
    RequestDrift,
    RequestHealth,
    RequestUsage,
)


class Looks:
    """Takes requests; the answers go to whoever listens to the executor."""

    def __init__(
        self,
        node: NodeContext,
        drift: DriftCheck,
        tell: Callable[[FromExecutor], None],
        spawn: Callable[[Awaitable[None]], None],
    ) -> None:
        self._node = node
        self._drift = drift
        self._tell = tell
        self._usage = UsageRounds(node)
        self._drift_requests = MergedRequests(self._report_drift, spawn)
        self._health_requests = MergedRequests(self._report_health, spawn)
        self._usage_requests = MergedRequests(self._report_usage, spawn)

    def ask(self, frame: RequestDrift | RequestHealth | RequestUsage) -> None:
        """Have somebody look, now or after the look that is under way."""
        match frame:
            case RequestDrift():
                self._drift_requests.add(frame.subjects, may_repair=frame.may_repair)
            case RequestHealth():
                self._health_requests.add()
            case RequestUsage():
                self._usage.after = frame.after
                self._usage_requests.add()

    async def _report_drift(self, subjects: tuple[str, ...], may_repair: bool) -> None:  # noqa: FBT001 - a callback
        report, _ = await self._drift.check(subjects, may_repair=may_repair)
        self._tell(DriftFound(report=report))

    async def _report_health(self, _subjects: tuple[str, ...], _may_repair: bool) -> None:  # noqa: FBT001 - a callback
        self._tell(HealthFound(report=await read_health(self._node)))

    async def _report_usage(self, _subjects: tuple[str, ...], _may_repair: bool) -> None:  # noqa: FBT001 - a callback
        self._tell(await self._usage.count())
