"""Real processes that a test kills, stops and wakes."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
EXIT_SECONDS = 40.0


class Parent(Protocol):
    """Started a process and can say how it ended."""

    def poll(self, pid: int) -> int | None: ...


@dataclass
class Child:
    """One process."""

    name: str
    pid: int
    log: Path
    parent: Parent
    _status: int | None = field(default=None, init=False)

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        if self._status is None:
            self._status = self.parent.poll(self.pid)
        return self._status

    def send(self, number: signal.Signals) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def terminate(self) -> int:
        """Ask it to end."""
        self.send(signal.SIGTERM)
        return await self.wait()

    def stop(self) -> None:
        """SIGSTOP: it is there and does nothing."""
        self.send(signal.SIGSTOP)

    def cont(self) -> None:
        self.send(signal.SIGCONT)

    async def wait(self, *, timeout_seconds: float = EXIT_SECONDS) -> int:
        """Its exit status.

        Raises:
            TimeoutError: It lives on.
        """
        async with asyncio.timeout(timeout_seconds):
            while (status := self.status) is None:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.01)
        return status

    def limit_file_size(self, size_bytes: int) -> None:
        """No file may grow beyond this: what a full disk does to it. RLIM_INFINITY heals."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    @property
    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def list_complaints(self) -> list[str]:
        """Lines of its log that are no news of a good day."""
        lines = self.read_log().splitlines()
        return [line for line in lines if '"level":"info"' not in line]

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Zygote:
    """Starts children by forking (zygote.py)."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WCP360_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def start(self, program: str, arguments: Sequence[str], *, env: Mapping[str, str], log: Path) -> Child:
        """Start `controller` or `node` with these arguments."""
        request = {"start": program, "arguments": list(arguments), "env": dict(env), "log": str(log)}
        return Child(f"{program} {arguments}", int(self._ask(request)["pid"]), log, self)

    def poll(self, pid: int) -> int | None:
        status: int | None = self._ask({"poll": pid})["status"]
        return status

    def close(self) -> None:
        """End it; its children die with it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=20)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert answers is not None
        with self._lock:
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
        return answer


@dataclass
class _Spawned:
    process: subprocess.Popen[bytes]

    def poll(self, pid: int) -> int | None:
        return self.process.poll()


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> Child:
    """Start a program afresh: for what must be there from its first instruction, such as another clock."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WCP360_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, cwd=ROOT, env={**environment, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    return Child(" ".join(argv), process.pid, log, _Spawned(process))


async def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 60.0, what: str = "") -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: It did not within the time.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while not condition():  # noqa: ASYNC110 - conditions are of all kinds
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise TimeoutError(f"waited {timeout_seconds:.0f} s in vain: {what}") from error
