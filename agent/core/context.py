"""What every part of the executor works with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.contract.host import Host
from agent.contract.workers import WorkerSide
from agent.core.journal import Journal
from agent.core.ledger import Ledger
from agent.core.registry import Registry
from agent.core.traffic import TrafficTerms


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """One node: its host, its modules, its journal and its clock."""

    host: Host
    registry: Registry
    journal: Journal
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Between two tries of an undo."""
    workers: WorkerSide | None = None
    """What streams need; None: this host has none."""
    traffic: TrafficTerms | None = None
    """How traffic is counted; None: this host has no logs."""

    @property
    def ledger(self) -> Ledger:
        """The journal's part that concerns the host."""
        return self.journal.ledger
