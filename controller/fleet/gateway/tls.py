"""TLS of the agents' listener."""

from __future__ import annotations

import asyncio.sslproto
import socket
import ssl
from typing import Any, Final
from weakref import WeakKeyDictionary

from websockets.asyncio.server import ServerConnection

from controller.fleet.identity.authority import ServerCertificate
from shared.protocol.envelope import Envelope
from shared.protocol.trust import decode_trust_bundle

# CPython keeps a read buffer of 256 KiB for every TLS connection (asyncio/sslproto.py, SSLProtocol.max_size). Not
# documented, as little as what FrugalProtocol does, so tests hold both to account.
TLS_BUFFER_BYTES: Final = 16 * 1024

_buffers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[bytearray, memoryview]]] = WeakKeyDictionary()


class FrugalProtocol(asyncio.sslproto.SSLProtocol):
    """TLS of asyncio with one read buffer for all connections of an event loop.

    Nothing ever stays in it: the loop asks for the buffer, fills it from the socket and has its content passed on to
    OpenSSL before anybody else gets control. So it is shared within a loop, and never with the loop of another thread.
    Measured: of a thousand idle agents 300 MB with CPython's buffers, 96 with such of 16 KiB, 70 with this and what
    `forget_handshake` does. Shared from the first, since buffers that go after the handshake leave holes in the heap:
    with these it was 86.
    """

    max_size = TLS_BUFFER_BYTES

    def __init__(self, loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> None:
        super().__init__(loop, *args, **options)
        shared = _buffers.get(loop)
        if shared is None:
            own = bytearray(TLS_BUFFER_BYTES)
            shared = _buffers[loop] = (own, memoryview(own))
        self._ssl_buffer, self._ssl_buffer_view = shared


# The event loop looks the name up for each connection (asyncio/selector_events.py), and takes no class from us.
asyncio.sslproto.SSLProtocol = FrugalProtocol  # type: ignore[misc] # see above


def make_server_context(certificate: ServerCertificate, ca_pem: str) -> ssl.SSLContext:
    """TLS 1.3 with a client certificate of our own authority; no resumption, so every connection shows it anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate.chain_path, certificate.key_path)
    context.load_verify_locations(cadata=ca_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def trust_authorities(context: ssl.SSLContext | None, bundle: Envelope) -> None:
    """Take certificates of the bundle's authorities from now on.

    One that the bundle does not name any more stays until the next start: TLS only keeps strangers out, and which
    certificates count is in the database.
    """
    if context is None:
        return
    for der in decode_trust_bundle(bundle.payload).ca_certificates:
        context.load_verify_locations(cadata=der)


def send_at_once(connection: ServerConnection) -> None:
    """Switch Nagle's algorithm off.

    asyncio does it where a socket says that it is TCP, and those that a listener accepts do not always say so. With it
    an offer behind an acknowledgement waits for the agent's delayed ACK: 40 ms for every second frame, measured.
    """
    raw = connection.transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def forget_handshake(connection: ServerConnection) -> None:
    """Let go of what the handshakes left: headers, response, and the certificate in words, some 5 KiB.

    The certificate itself stays with the TLS connection. Call when nobody looks at them any more.
    """
    # Emptied, not dropped: the parser's own frame holds the request as long as the connection lives.
    if connection.request is not None:
        connection.request.headers.clear()
    connection.response = None
    words = connection.transport.get_extra_info("peercert")
    if words:
        words.clear()
