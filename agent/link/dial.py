"""One connection to the gateway: TLS 1.3, our certificate, the pinned authority, subprotocol fleet.v1."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from agent.link.authorities import find_authorities
from agent.link.certificate import parse_not_after
from agent.link.ending import EndKind, SessionEnd
from agent.link.settings import AgentSettings, NodePaths
from shared.errors import InvalidInputError
from shared.protocol.frames import MAX_FRAME_BYTES, SUBPROTOCOL

OPEN_SECONDS: Final = 30.0
UNSENT_BYTES: Final = 16 * 1024
"""What may wait behind our own queue: one chunk of a stream, so that whatever is more urgent overtakes the others."""
DEAD_LINE_SECONDS: Final = 90.0
"""A line that is cut without a word is noticed after at most this: asked after a third, given up two thirds later."""
_REVOKED_STATUSES: Final = (401, 403)
_SENTENCES: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    # A server that wants another client certificate and a server that dies look the same here.
    (
        (InvalidMessage, EOFError, ConnectionResetError, ssl.SSLError),
        "the gateway cut the connection: it goes away, or refuses our certificate",
    ),
    ((TimeoutError,), "the gateway did not answer in time: is its port open?"),
    ((ConnectionRefusedError,), "the gateway's port is closed"),
)


class DialError(Exception):
    """There is no session. `end` says what that means for the next attempt."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end.message)
        self.end = end


class Dialer:
    """Opens connections for one enrolled node. Files are read at each attempt: a new certificate needs no restart."""

    def __init__(
        self, settings: AgentSettings, paths: NodePaths, *, dead_line_seconds: float = DEAD_LINE_SECONDS
    ) -> None:
        self.settings = settings
        self.paths = paths
        self._dead_line_seconds = dead_line_seconds

    async def dial(self) -> ClientConnection:
        """Connect.

        Raises:
            DialError: It did not work.
        """
        context = self._make_context()
        try:
            connection = await connect(
                self.settings.gateway_url,
                ssl=context,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,  # 90 kB of zlib windows for frames of 300 bytes
                max_size=MAX_FRAME_BYTES,
                max_queue=16,
                write_limit=UNSENT_BYTES,
                open_timeout=OPEN_SECONDS,
                ping_interval=self._dead_line_seconds / 3,
                ping_timeout=self._dead_line_seconds * 2 / 3,
                user_agent_header=None,
                proxy=None,  # a proxy of the environment would end the mutual TLS
            )
        except (OSError, InvalidHandshake, EOFError) as error:
            raise DialError(explain_dial_failure(error)) from error
        limit_unsent(connection)
        return connection

    def _make_context(self) -> ssl.SSLContext:
        try:
            not_after = parse_not_after(self.paths.node_pem.read_text(encoding="ascii"))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(find_authorities(self.settings, self.paths))
            context.load_cert_chain(self.paths.node_pem)
        except (OSError, InvalidInputError, UnicodeDecodeError) as error:
            raise DialError(SessionEnd(EndKind.LOST, f"the node's certificate cannot be used: {error}")) from error
        # TLS 1.3 shows an expired client certificate only as a cut connection, so we look ourselves.
        if not_after <= datetime.now(UTC):
            raise DialError(
                SessionEnd(
                    EndKind.EXPIRED,
                    f"the node's certificate ended at {not_after:%Y-%m-%d %H:%M} UTC",
                )
            )
        return context


def limit_unsent(connection: ClientConnection) -> None:
    """Keep the kernel from taking megabytes ahead: what lies in a socket cannot be overtaken any more.

    Source: tcp(7), TCP_NOTSENT_LOWAT. Measured at 10 Mbit/s beside a full stream: p99 of a heartbeat 300 ms, not 400.
    """
    connected = connection.transport.get_extra_info("socket")
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def explain_dial_failure(error: BaseException) -> SessionEnd:
    """What a failed attempt means, in a sentence for an operator."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _REVOKED_STATUSES:
            message = f"the controller does not accept this node any more (HTTP {status})"
            return SessionEnd(EndKind.REVOKED, message, _parse_retry_after(error))
        return SessionEnd(EndKind.LOST, f"the gateway answered HTTP {status}", _parse_retry_after(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return SessionEnd(EndKind.DISTRUST, f"the gateway's certificate is not to be trusted: {error.verify_message}")
    for kinds, sentence in _SENTENCES:
        if isinstance(error, kinds):
            return SessionEnd(EndKind.LOST, sentence)
    return SessionEnd(EndKind.LOST, f"the gateway cannot be reached: {error}")


def _parse_retry_after(error: InvalidStatus) -> float | None:
    value = error.response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
