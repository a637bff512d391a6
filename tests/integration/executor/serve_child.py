"""An executor process over a folder, as the tests of the socket start it: serve_child.py BASE IDLE_SECONDS."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from agent.core.context import NodeContext
from agent.core.identity import save_identity
from agent.core.journal import Journal
from agent.core.registry import Registry
from agent.core.server import ExecutorConfig, serve_executor
from tests.integration.executor.bench import MODULE, NOW, DiskHost, identity


class SlowHost(DiskHost):
    """Takes its time, so that a kill finds it at work."""

    async def apply(self, action) -> None:
        await asyncio.sleep(0.005)
        await super().apply(action)


async def main() -> int:
    base, idle_seconds = Path(sys.argv[1]), float(sys.argv[2])
    state_dir = base / "state"
    state_dir.mkdir(parents=True, exist_ok=True)
    save_identity(state_dir, identity())
    node = NodeContext(
        host=SlowHost(base / "host"),
        registry=Registry([MODULE]),
        journal=Journal(state_dir),
        now=lambda: NOW + time.monotonic() % 60,
    )
    config = ExecutorConfig(
        state_dir=state_dir,
        socket_path=base / "executor.sock",
        allowed_uids=frozenset({os.geteuid()}),
        idle_seconds=idle_seconds,
    )
    return await serve_executor(config, node)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
