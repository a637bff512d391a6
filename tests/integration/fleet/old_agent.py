"""A golden agent as a process, and what it said."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.live import wait_until

RUNNER = Path(__file__).resolve().parents[2] / "golden/run_old_agent.py"


@dataclass
class OldAgent:
    """One that runs."""

    process: asyncio.subprocess.Process
    said: list[dict[str, Any]] = field(default_factory=list)

    @property
    def frames(self) -> list[str | None]:
        """Names of the frames it received; None is one that it did not know."""
        return [words["frame"] for words in self.said if "frame" in words]

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    async def tell(self, word: str) -> None:
        """Have it do something, and wait until it is done."""
        assert self.process.stdin is not None
        before = len([words for words in self.said if words.get("did") == word])
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()
        await self.wait(lambda: len([words for words in self.said if words.get("did") == word]) > before)

    async def wait(self, condition: Callable[[], bool]) -> None:
        await wait_until(lambda: condition() or self.process.returncode is not None, timeout_seconds=60.0)
        assert self.process.returncode is None, "the old agent has ended"


@asynccontextmanager
async def running_old_agent(
    sources: Path, url: str, name: str, state_dir: Path, *, token: str = ""
) -> AsyncIterator[OldAgent]:
    """The agent of these sources until the block ends."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1", "WCP360_TOKENS": token}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(RUNNER), url, name, str(state_dir), env=environment, cwd=state_dir.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=16 * 1024 * 1024,
    )  # fmt: skip
    agent = OldAgent(process)
    listening = asyncio.create_task(agent.listen())
    try:
        yield agent
    finally:
        # The end of its input lets it end in order, so that its host in memory is kept for the next one.
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
        await listening
