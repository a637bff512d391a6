"""TLS of the agents' listener."""

from __future__ import annotations

import asyncio.sslproto
import socket
import ssl
from typing import Final

from websockets.asyncio.server import ServerConnection

from controller.fleet.authority import ServerCertificate
from shared.protocol.envelope import Envelope
from shared.protocol.trust import decode_trust_bundle

# CPython keeps a read buffer of 256 KiB for every TLS connection (asyncio/sslproto.py, SSLProtocol.max_size); with
# 16 KiB a thousand idle agents cost 63 MB instead of 300 MB, measured. Not documented, so a test holds it to account.
TLS_BUFFER_BYTES: Final = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES


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
