"""A node as a process: the real link and the real executor over a host whose every effect is on disk at once.

`python -m tests.faults.node_process ROOT [--dead-line SECONDS]`, where ROOT is the folder of an enrolled agent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.bootstrap import build_registry
from agent.contract.actions import AnyAction, ReloadUnit
from agent.contract.host import UndoRecord
from agent.core.registry import Registry
from agent.link.settings import NodePaths
from agent.logs import configure_logging
from agent.simulator.agent import SimulatedAgent
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import HostState

HOST_FILE = "durable-host.msgpack"


class DurableState(msgspec.Struct, kw_only=True):
    """The host and its counter, which change together or not at all."""

    host: HostState
    counts: dict[str, int] = {}
    """Digest of an action to how often it holds: applied and not undone. Reloads are no effect that counts."""
    labels: dict[str, str] = {}


class DurableHost(MemoryHost):
    """Dies with nothing half done: an effect and its count reach the disk in one rename."""

    def __init__(self, path: Path, registry: Registry, *, pace_seconds: float = 0.0) -> None:
        super().__init__(config_trees=tuple(registry.config_trees.values()))
        self._path = path
        self._pace_seconds = pace_seconds
        self._durable = read_durable_state(path) or DurableState(host=self.state)
        for name in HostState.__struct_fields__:
            table, stored = getattr(self.state, name), dict(getattr(self._durable.host, name))
            table.clear()
            table.update(stored)
        self._durable.host = self.state

    async def apply(self, action: AnyAction) -> None:
        if self._pace_seconds:
            await asyncio.sleep(self._pace_seconds)
        await super().apply(action)
        self._count(action, 1)

    async def undo(self, action: AnyAction, record: UndoRecord) -> None:
        await super().undo(action, record)
        self._count(action, -1)

    def _count(self, action: AnyAction, by: int) -> None:
        if not isinstance(action, ReloadUnit):
            digest = hashlib.sha256(msgspec.msgpack.encode(action)).hexdigest()[:16]
            # What was registered and never applied may be undone: that takes nothing back.
            self._durable.counts[digest] = max(0, self._durable.counts.get(digest, 0) + by)
            self._durable.labels[digest] = f"{type(action).__name__} {getattr(action, 'path', '')}"
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.msgpack.encode(self._durable))
        temporary.rename(self._path)


def read_durable_state(path: Path) -> DurableState | None:
    """The host as a killed node left it."""
    with contextlib.suppress(FileNotFoundError):
        return msgspec.msgpack.decode(path.read_bytes(), type=DurableState)
    return None


def host_file(root: Path) -> Path:
    return NodePaths(root).executor_state_dir / HOST_FILE


async def run(root: Path, *, dead_line_seconds: float, pace_seconds: float) -> None:
    registry = build_registry()
    host = DurableHost(host_file(root), registry, pace_seconds=pace_seconds)
    agent = SimulatedAgent(root.name, NodePaths(root), registry, host=host, dead_line_seconds=dead_line_seconds)
    task = asyncio.create_task(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--dead-line", type=float, default=90.0)
    parser.add_argument("--pace", type=float, default=0.0)
    options = parser.parse_args(arguments)
    configure_logging(sys.stdout)
    os.umask(0o077)
    asyncio.run(run(options.root, dead_line_seconds=options.dead_line, pace_seconds=options.pace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
