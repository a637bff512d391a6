"""A small gateway for tests: mutual TLS, welcome, and whatever the test wants to say next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from shared.protocol.frames import (
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    AckEvents,
    Event,
    Frame,
    Hello,
    Reject,
    ToController,
    Welcome,
    decode_to_controller,
    encode_frame,
)
from tests.integration.link.pki import TestAuthority

T = TypeVar("T")


async def wait_until(condition: Callable[[], T], *, timeout_seconds: float = 20.0) -> T:
    """The first true value of the condition."""
    async with asyncio.timeout(timeout_seconds):
        while not (value := condition()):  # noqa: ASYNC110 - conditions are about other processes and sockets, too
            await asyncio.sleep(0.01)
        return value


class FakeGateway:
    """Greets with `greeting`, remembers every frame, acknowledges events when `acks_events` is set."""

    def __init__(self) -> None:
        self.greeting: Callable[[Hello], Frame] = self.make_welcome
        self.after_welcome: Callable[[FakeGateway], Awaitable[None]] | None = None
        self.acks_events = True
        self.http_status: int | None = None
        self.hellos: list[Hello] = []
        self.frames: list[ToController] = []
        self.events_acked = 0
        self.sessions: list[ServerConnection] = []
        self.heartbeat_seconds = 30.0
        self.drift_check_seconds = 3600.0
        self.url = ""
        self._server: Server | None = None

    def make_welcome(self, _hello: Hello) -> Welcome:
        return Welcome(
            capability=1,
            session_epoch=len(self.hellos),
            events_acked=self.events_acked,
            heartbeat_seconds=self.heartbeat_seconds,
            metrics_seconds=30.0,
            drift_check_seconds=self.drift_check_seconds,
            server_time=time.time(),
            bundle_version=1,
        )

    @asynccontextmanager
    async def running(self, authority: TestAuthority, *, port: int = 0) -> AsyncIterator[FakeGateway]:
        server = await serve(
            self._talk,
            "127.0.0.1",
            port,
            ssl=authority.server_context(wants_client=True),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_FRAME_BYTES,
            process_request=self._admit,
        )
        self.url = f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}/agent/v1"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def _admit(self, connection: ServerConnection, _request: Request) -> Response | None:
        if self.http_status is None:
            return None
        return connection.respond(self.http_status, "no\n")  # type: ignore[arg-type]

    async def _talk(self, connection: ServerConnection) -> None:
        try:
            hello = decode_to_controller(await connection.recv(decode=False))
            assert isinstance(hello, Hello)
            self.hellos.append(hello)
            self.sessions.append(connection)
            greeting = self.greeting(hello)
            await connection.send(encode_frame(greeting))
            if isinstance(greeting, Reject):
                return
            if self.after_welcome is not None:
                await self.after_welcome(self)
            async for raw in connection:
                assert isinstance(raw, bytes)
                await self._note(connection, decode_to_controller(raw))
        except ConnectionClosed:
            pass

    async def _note(self, connection: ServerConnection, frame: Any) -> None:
        self.frames.append(frame)
        if isinstance(frame, Event) and self.acks_events:
            self.events_acked = max(self.events_acked, frame.number)
            await connection.send(encode_frame(AckEvents(events_upto=frame.number)))

    async def send(self, frame: Frame) -> None:
        """To the newest session."""
        await self.sessions[-1].send(encode_frame(frame))

    async def send_raw(self, raw: bytes) -> None:
        await self.sessions[-1].send(raw)

    def abort(self) -> None:
        """Cut the newest session without a word, as a power loss does."""
        self.sessions[-1].transport.abort()

    def of(self, kind: type[T]) -> list[T]:
        """Frames of one kind, oldest first."""
        return [frame for frame in self.frames if isinstance(frame, kind)]
