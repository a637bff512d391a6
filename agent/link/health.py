"""When to look how the modules are doing: at a change of a unit, now and then, and when the controller asks.

A look goes through the executor, which has the rights to test a configuration; it would not rest if it were asked every
few seconds. So between two looks only the states of the units are read, which needs no rights.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.link.outbox import Outbox
from agent.link.port import ExecutorPort
from shared.errors import UnavailableError
from shared.protocol.health import HealthReport, NodeHealth
from shared.protocol.local import RequestHealth

WATCH_SECONDS: Final = 15.0
"""How long a stopped service goes unnoticed."""
LOOK_SECONDS: Final = 1800.0
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")

_log = logging.getLogger(__name__)

UnitStates = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Names of units to the states of those that can be watched; empty: none can."""


def read_unit_states(units: tuple[str, ...], cgroup_root: Path = CGROUP_ROOT) -> tuple[str, ...]:
    """`active` for a service with a process, else `inactive`; other units have none and are only looked at closely.

    Reads the services' cgroups: no process is started for it, and nobody is asked. Empty where there are none.
    Source: systemd.slice(5) (system.slice), Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.procs).
    """
    trees = [cgroup_root / name / "system.slice" for name in ("", "systemd", "unified", "memory", "pids")]
    trees = [tree for tree in trees if tree.is_dir()]
    services = tuple(unit for unit in units if unit.endswith(".service"))
    if not trees or not services:
        return ()
    return tuple("active" if any(_has_process(tree / unit) for tree in trees) else "inactive" for unit in services)


def _has_process(folder: Path) -> bool:
    """In the service's cgroup, or in one below it (a service may delegate)."""
    try:
        if (folder / "cgroup.procs").read_text(encoding="ascii").strip():
            return True
        return any(_has_process(entry) for entry in folder.iterdir() if entry.is_dir())
    except (OSError, ValueError):
        return False


class HealthWatch:
    """Asks the executor, and says what it found when it is news."""

    def __init__(
        self,
        executor: ExecutorPort,
        outbox: Outbox,
        states: UnitStates | None,
        *,
        watch_seconds: float = WATCH_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`states`: None for a machine without systemd; then nothing is looked at but when the controller asks."""
        self._executor = executor
        self._outbox = outbox
        self._read_states = states
        self._watch_seconds = watch_seconds
        self._look_seconds = look_seconds
        self._last: HealthReport | None = None
        self._states: tuple[str, ...] = ()
        self._asked_at = 0.0
        self._is_asked = False

    async def look(self, *, is_asked: bool = False) -> None:
        """Have the executor look. `is_asked`: its answer goes out even if it says nothing new.

        Raises:
            UnavailableError: The executor cannot be reached.
        """
        self._is_asked |= is_asked
        self._asked_at = time.monotonic()
        await self._executor.send(RequestHealth())

    def say_again(self) -> None:
        """A new session knows nothing of what was said in the last one."""
        if self._last is not None:
            self._outbox.put(NodeHealth(report=self._last))

    def take(self, report: HealthReport) -> None:
        """The executor's answer."""
        is_news = self._last is None or _essence(self._last) != _essence(report)
        self._last = report
        self._states = ()  # what they were at the time of the look; read at the next watch
        if is_news or self._is_asked:
            self._is_asked = False
            self._outbox.put(NodeHealth(report=report))

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._read_states is None:
            return
        while True:
            await asyncio.sleep(self._watch_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreads a fleet in time
            try:
                if await self._is_worth_a_look():
                    await self.look()
            except UnavailableError as error:
                _log.warning("the modules' health is not known: %s", error)

    async def _is_worth_a_look(self) -> bool:
        if self._last is None or time.monotonic() - self._asked_at >= self._look_seconds:
            return True
        units = tuple(unit for module in self._last.modules for unit in module.units)
        if not units or self._read_states is None:
            return False
        states = await asyncio.to_thread(self._read_states, units)
        if not states:
            return False
        before, self._states = self._states, states
        # The first reading after a look may differ from what the look saw, so it counts as well.
        is_all_up = all(state == "active" for state in states)
        was_all_up = all(check.is_good for module in self._last.modules for check in module.checks)
        return states != before if before else is_all_up != was_all_up


def _essence(report: HealthReport) -> tuple[object, ...]:
    """What makes two reports differ for whoever reads them."""
    return (report.quarantine, tuple((m.name, m.version, m.last_reload_at, m.checks) for m in report.modules))
