"""A TCP proxy on loopback that does to a line what networks do: cut it, slow it, swallow what it carries."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
"""Closing sends RST instead of FIN. Source: socket(7), SO_LINGER."""
UPSTREAM_SECONDS = 20.0


class Direction(enum.Enum):
    """Which way bytes go."""

    UP = "up"
    """From the agent to the controller."""
    DOWN = "down"


@dataclass
class Line:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    delay_seconds: float = 0.0
    swallowed: set[Direction] = field(default_factory=set)
    """Bytes of these directions vanish, as behind a firewall that lost its state: the line is dead and nobody says so."""
    cut_after: dict[Direction, int] = field(default_factory=dict)
    """Cut in the middle of whatever it is, once this many more bytes have passed."""
    is_open: bool = True

    def swallow(self, *directions: Direction) -> None:
        self.swallowed.update(directions or Direction)

    def cut(self) -> None:
        """Reset both sides."""
        self.is_open = False
        reset(self.client)
        reset(self.server)

    def cut_server_side(self) -> None:
        """Only the far side learns that the line is gone; the near side sends into nothing."""
        self.swallow()
        reset(self.server)


def reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


class TcpProxy:
    """Passes connections on; new ones go to `upstream_port` as it is at that moment."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.lines: list[Line] = []
        self.is_refusing = False
        """New connections are reset at once."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_lines(self) -> list[Line]:
        return [line for line in self.lines if line.is_open]

    def cut_all(self) -> None:
        for line in self.open_lines:
            line.cut()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.is_refusing:
                reset(writer)
                return
            up_reader, up_writer = await self._connect()
            line = Line(writer, up_writer)
            self.lines.append(line)
            await asyncio.gather(
                self._pass_on(line, Direction.UP, reader, up_writer),
                self._pass_on(line, Direction.DOWN, up_reader, writer),
            )
        except (OSError, asyncio.CancelledError):  # cancelled by stop(), which waits for it
            reset(writer)
        finally:
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A controller that is just starting is waited for: dialling again is the agent's business in other tests."""
        async with asyncio.timeout(UPSTREAM_SECONDS):
            while True:
                try:
                    return await asyncio.open_connection("127.0.0.1", self.upstream_port)
                except OSError:
                    await asyncio.sleep(0.05)

    async def _pass_on(
        self, line: Line, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK):
                if line.delay_seconds:
                    await asyncio.sleep(line.delay_seconds)
                if direction in line.swallowed:
                    continue
                left = line.cut_after.get(direction)
                if left is not None and len(chunk) >= left:
                    writer.write(chunk[:left])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    line.cut()
                    return
                if left is not None:
                    line.cut_after[direction] = left - len(chunk)
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        if direction not in line.swallowed:
            line.is_open = False
            with contextlib.suppress(OSError):
                writer.close()


@asynccontextmanager
async def tcp_proxy(upstream_port: int) -> AsyncIterator[TcpProxy]:
    """A proxy in front of a port of this machine."""
    proxy = TcpProxy(upstream_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
