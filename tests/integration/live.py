"""A real controller on free ports: TLS, HTTP, WebSockets and the agents' gateway, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from controller.bootstrap import Controller
from controller.serve import ReadyServer, make_server


class QuietServer(ReadyServer):
    """Leaves the signals of the test run alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class LiveController:
    """A controller that serves."""

    controller: Controller
    server: ReadyServer
    admin_token: str

    @property
    def api_url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    @property
    def ca_file(self) -> Path:
        return self.controller.fleet.authority.ca_path

    @property
    def tls(self) -> ssl.SSLContext:
        """For clients: believes this controller's authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def client(self) -> httpx.AsyncClient:
        """The administrator, over the network."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return httpx.AsyncClient(base_url=self.api_url, verify=self.tls, headers=headers)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 20.0) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: It did not within the time.
    """
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 - conditions are of all kinds; not all have an event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serve_controller(controller: Controller) -> AsyncIterator[QuietServer]:
    """Serve until the block ends; whatever the server raised is raised here."""
    made = make_server(controller)
    server = QuietServer(made.config, controller)
    task = asyncio.create_task(server.serve(), name="live-controller")
    try:
        await wait_until(lambda: server.started or task.done())
        if task.done():
            task.result()
            raise RuntimeError("the controller ended while it started")
        yield server
    finally:
        server.should_exit = True
        await task
