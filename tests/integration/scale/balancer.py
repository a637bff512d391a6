"""A TCP load balancer as an operator would put in front of several processes: passes bytes on, ends no TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 64 * 1024


class Balancer:
    """Gives each connection to the next backend in turn; one that refuses is passed over."""

    def __init__(self) -> None:
        self.backends: list[int] = []
        """Ports of this machine."""
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: dict[int, set[asyncio.StreamWriter]] = {}

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            backend = await self._dial()
            if backend is not None:
                port, up_reader, up_writer = backend
                self._lines.setdefault(port, set()).update((writer, up_writer))
                await asyncio.gather(_pass_on(reader, up_writer), _pass_on(up_reader, writer))
                self._lines.get(port, set()).difference_update((writer, up_writer))
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _dial(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self.backends)):
            self._turn += 1
            port = self.backends[self._turn % len(self.backends)]
            with contextlib.suppress(OSError):
                return (port, *await asyncio.open_connection("127.0.0.1", port))
        return None

    def drop(self, port: int) -> None:
        """Its health check failed: no new connections, and the ones it has are reset."""
        self.backends = [backend for backend in self.backends if backend != port]
        for writer in self._lines.pop(port, set()):
            writer.transport.abort()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balancer() -> AsyncIterator[Balancer]:
    made = Balancer()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
