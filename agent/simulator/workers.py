"""Workers of a simulated node: the real worker in a thread, over files in a folder that stands for the node's own."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Final

import msgspec

from agent.simulator.host_state import HostState
from agent.workers.channel import Channel, accept_agent
from agent.workers.main import serve
from shared.errors import FleetError
from shared.protocol.worker import WorkerOrder

SAMPLE_LINES: Final = 40
_SAMPLE: Final = (
    '203.0.113.{n} - - [23/Nov/2026:06:{n:02}:00 +0000] "GET /page-{n} HTTP/1.1" 200 {size} "-" "Mozilla/5.0 (sample)"'
)

_log = logging.getLogger(__name__)


class MemoryWorkers:
    """WorkerLauncher without systemd and without other users.

    Args:
        state: Which files the simulated host has: a log that it has not is not there.
    """

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._folder: Path | None = None
        self._count = 0

    @property
    def folder(self) -> Path:
        """What stands for `/` of the node; made at the first use, so that an agent at rest has none."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="wcp-sim-"))
        return self._folder

    def path_of(self, path: str) -> Path:
        """Where a file of the node lies."""
        return self.folder / path.lstrip("/")

    async def launch(self, order: WorkerOrder) -> str:
        """See WorkerLauncher.launch."""
        self._ensure_log(order)
        self._count += 1
        path = self.folder / f"{self._count}.sock"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen(1)
        moved = msgspec.structs.replace(order, root=str(self.path_of(order.root)))
        threading.Thread(target=_run, args=(moved, listening, path), name=f"worker-{self._count}", daemon=True).start()
        return str(path)

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _ensure_log(self, order: WorkerOrder) -> None:
        """A file for a log that the simulated host has; an access log with something to look at."""
        root = self.path_of(order.root)
        root.mkdir(parents=True, exist_ok=True)
        path = root / order.path
        if path.exists() or f"{order.root}/{order.path}" not in self._state.paths:
            return
        is_access = order.path.endswith(".access.log")
        lines = (_SAMPLE.format(n=n, size=500 + 7 * n) for n in range(SAMPLE_LINES if is_access else 0))
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _run(order: WorkerOrder, listening: socket.socket, path: Path) -> None:
    try:
        connection = accept_agent(listening, order.peer_uids)
    except FleetError as error:
        _log.warning("%s", error)
        return
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    with connection:
        serve(order, Channel(connection, order.max_bytes))
