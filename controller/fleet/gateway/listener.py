"""A listening socket that lets in only so many connections a second; the others wait in the kernel's queue.

A TLS handshake costs 3 ms of this process, and a greeting is a transaction. When ten thousand agents come back at once,
whoever is let in is served promptly, and whoever waits costs nothing; asyncio itself would begin a thousand handshakes
at the same moment. While the database is crowded fewer are let in than the pace allows: more greetings than it commits
would in the end all wait too long, and begin again. What waits too long outside gives up and comes back later by itself
(agent/link/backoff.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog

BACKLOG: Final = 4096
"""Source: listen(2), the kernel's own limit net.core.somaxconn since Linux 5.4."""
BURST_SHARE: Final = 0.25
"""Of a second's worth at once, after a quiet time."""
_RECOVER_SECONDS: Final = 1.0
CROWDED_SECONDS: Final = 0.1
"""Longest wait of one connection for a crowd to go: some come in whatever happens, so that no load shuts agents out."""
_LOOK_SECONDS: Final = 0.01

_log = structlog.get_logger("controller.gateway")


class Pace:
    """A token bucket: when the next one may pass."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._credit = max(1.0, BURST_SHARE * per_second) * self._interval
        self._free_at = 0.0

    def take(self, now: float) -> float:
        """Count one; returns how many seconds it has to wait."""
        self._free_at = max(self._free_at, now - self._credit) + self._interval
        return max(0.0, self._free_at - now)


class PacedListener(socket.socket):
    """What asyncio takes for a listening socket: it becomes readable when the next connection may come in.

    Underneath it is one end of a socket pair. The task at the other end accepts from the real socket.
    """

    def __init__(self, real: socket.socket, *, per_second: float, is_crowded: Callable[[], bool]) -> None:
        inner, self._bell = socket.socketpair()
        super().__init__(inner.family, inner.type, inner.proto, fileno=inner.detach())
        self._real = real
        self._real.settimeout(0)
        self._bell.settimeout(0)
        self._pace = Pace(per_second)
        self._is_crowded = is_crowded
        self._waiting: deque[tuple[socket.socket, Any]] = deque()
        self._pump = asyncio.get_running_loop().create_task(self._accept_for_ever(), name="gateway-accept")

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """The real socket listens already."""

    def getsockname(self) -> Any:
        """Where the real socket listens."""
        return self._real.getsockname()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that may come in.

        Raises:
            BlockingIOError: There is none now.
        """
        if not self.recv(1) or not self._waiting:
            raise BlockingIOError
        return self._waiting.popleft()

    def close(self) -> None:
        """Stop listening; what was accepted and not let in is closed. Again: nothing happens."""
        if self.fileno() < 0:
            return
        # Before the descriptor is closed: the task's own clean-up comes later, when its number may be somebody else's.
        asyncio.get_running_loop().remove_reader(self._real.fileno())
        self._pump.cancel()
        for connection, _ in self._waiting:
            connection.close()
        self._waiting.clear()
        self._real.close()
        self._bell.close()
        super().close()

    async def _accept_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # First the pace, then the connection: nobody is taken out of the kernel's queue to wait here.
            wait_seconds = self._pace.take(loop.time())
            if wait_seconds > 0:
                await asyncio.sleep(wait_seconds)
            give_up_at = loop.time() + CROWDED_SECONDS
            while self._is_crowded() and loop.time() < give_up_at:  # noqa: ASYNC110 - a number, not an event
                await asyncio.sleep(_LOOK_SECONDS)
            try:
                self._waiting.append(await self._accept_living())
            except OSError as error:  # too many open files, or no memory: both pass
                _log.warning("gateway.accept_failed", error=str(error))
                await asyncio.sleep(_RECOVER_SECONDS)
                continue
            with contextlib.suppress(BlockingIOError):  # full of rings already: it is readable all the more
                self._bell.send(b"\x00")

    async def _accept_living(self) -> tuple[socket.socket, Any]:
        """The first in the kernel's queue that still waits; those that gave up cost nothing of the pace."""
        while True:
            connection, address = await asyncio.get_running_loop().sock_accept(self._real)
            if not has_hung_up(connection):
                return connection, address
            connection.close()
            await asyncio.sleep(0)  # there may be thousands, and accepting what waits already gives nobody a turn


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end closed already, also when what it said before was not read yet.

    Source: poll(2), POLLRDHUP.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


async def open_listener(
    host: str, port: int, *, per_second: float, is_crowded: Callable[[], bool] = lambda: False
) -> PacedListener:
    """Listen on the first address that the host stands for; `is_crowded` is asked before each connection.

    Raises:
        OSError: The address is not ours, or the port is taken.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    real = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    return PacedListener(real, per_second=per_second, is_crowded=is_crowded)


def drain_seconds(count: int, *, per_second: float, at_least: float) -> float:
    """Window over which so many agents shall spread their return, so that nobody waits in vain."""
    return max(at_least, 1.25 * count / per_second)
