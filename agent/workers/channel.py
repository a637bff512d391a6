"""The worker's end of its socket: blocking, so that a receiver without room stops the worker and nothing else."""

from __future__ import annotations

import select
import socket
import struct
from typing import Final

from shared.errors import ForbiddenError, UnavailableError
from shared.protocol.streams import MAX_CHUNK_BYTES
from shared.protocol.worker import FromWorker, WorkerData, WorkerEnd, WorkerReady, encode_worker

ACCEPT_SECONDS: Final = 20.0
SEND_BUFFER_BYTES: Final = 64 * 1024
"""What the kernel holds between a worker and an agent that has no room for more."""
_PEER_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid. Source: unix(7), SO_PEERCRED."""


class ChannelClosedError(Exception):
    """The agent has gone; there is nothing left to do."""


class Channel:
    """One connection of the agent."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        connection.setblocking(True)  # noqa: FBT003 - the socket's own method
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._connection = connection
        self._left_bytes = max_bytes
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN | select.POLLRDHUP)

    @property
    def is_exhausted(self) -> bool:
        """All bytes that the grant allows were sent."""
        return self._left_bytes <= 0

    def say_ready(self) -> None:
        """The file is open."""
        self._send(WorkerReady())

    def send(self, data: bytes) -> None:
        """Send what the grant still allows; waits while the receiver has no room.

        Raises:
            ChannelClosedError: The agent has gone.
        """
        allowed = data[: self._left_bytes]
        self._left_bytes -= len(allowed)
        for start in range(0, len(allowed), MAX_CHUNK_BYTES):
            self._send(WorkerData(data=allowed[start : start + MAX_CHUNK_BYTES]))

    def end(self, code: str = "", message: str = "") -> None:
        """The last word."""
        self._send(WorkerEnd(code=code[:64], message=message[:400]))

    def pause(self, seconds: float) -> None:
        """Wait; this kind of worker takes no data, so whatever comes means that the agent is done with it.

        Raises:
            ChannelClosedError: The agent has gone.
        """
        if self._poll.poll(seconds * 1000):
            raise ChannelClosedError

    def _send(self, frame: FromWorker) -> None:
        try:
            self._connection.sendall(encode_worker(frame))
        except OSError as error:
            raise ChannelClosedError from error


def accept_agent(listening: socket.socket, peer_uids: tuple[int, ...]) -> socket.socket:
    """The agent's connection.

    Raises:
        UnavailableError: It did not come.
        ForbiddenError: Somebody else did.
    """
    listening.settimeout(ACCEPT_SECONDS)
    try:
        connection, _ = listening.accept()
    except OSError as error:
        raise UnavailableError("the agent did not come for its stream", code="stream_timeout") from error
    finally:
        listening.close()
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    uid = _PEER_CREDENTIALS.unpack(raw)[1]
    if uid not in peer_uids:
        connection.close()
        raise ForbiddenError(f"uid {uid} may not take this stream", code="wrong_peer")
    return connection
