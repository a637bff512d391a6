"""A gateway in wrong hands: it has the controller's certificate and reads, drops, repeats, changes and invents frames.

It stands between the nodes and the real gateway. What it never has is a key that signs jobs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from shared.protocol.envelope import JOB_TYPE, Envelope, sign_envelope
from shared.protocol.frames import (
    GATEWAY_PATH,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Frame,
    decode_to_agent,
    decode_to_controller,
    encode_frame,
)
from shared.protocol.job import Job, encode_job
from tests.faults.processes import wait_until
from tests.faults.stage import SimNode, Stage

FrameT = TypeVar("FrameT", bound=Frame)
Rule = Callable[[Frame], Iterable[Frame]]
"""What becomes of one frame: itself, nothing, several, another."""


def pass_on(frame: Frame) -> Iterable[Frame]:
    return (frame,)


class RogueGateway:
    """Passes frames on unless a rule says otherwise."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.down: Rule = pass_on
        """For frames to the agent."""
        self.up: Rule = pass_on
        """For frames to the controller."""
        self.sent: dict[str, list[Frame]] = {}
        """Node id to what the real gateway sent it."""
        self.said: dict[str, list[Frame]] = {}
        """Node id to what it said."""
        self._agents: dict[str, ServerConnection] = {}
        self._server: Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def start(self) -> None:
        folder = self._stage.folder / "rogue"
        folder.mkdir()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_make_certificate(self._stage.data_dir / "pki", folder))
        context.load_verify_locations(self._stage.data_dir / "pki/ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            ssl=context,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_FRAME_BYTES,
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # --- what a test does ---------------------------------------------------------------------------------------------

    async def inject(self, node: SimNode, frame: Frame) -> None:
        """Send the agent something of our own."""
        async with asyncio.timeout(60):
            while True:
                await wait_until(lambda: node.node_id in self._agents, what="a session to send into")
                try:
                    await self._agents[node.node_id].send(encode_frame(frame))
                except ConnectionClosed:  # the session of a node that was just killed
                    await asyncio.sleep(0.05)
                else:
                    return

    def frames_to(self, node: SimNode, kind: type[FrameT]) -> list[FrameT]:
        return [frame for frame in self.sent.get(node.node_id, ()) if isinstance(frame, kind)]

    def frames_of(self, node: SimNode, kind: type[FrameT]) -> list[FrameT]:
        return [frame for frame in self.said.get(node.node_id, ()) if isinstance(frame, kind)]

    async def wait_answer(self, node: SimNode, kind: type[FrameT], is_it: Callable[[FrameT], bool]) -> FrameT:
        """The first frame of the node that is it."""
        await wait_until(lambda: any(map(is_it, self.frames_of(node, kind))), what=f"{kind.__name__} of {node.name}")
        return next(frame for frame in self.frames_of(node, kind) if is_it(frame))

    # --- the line -----------------------------------------------------------------------------------------------------

    async def _serve(self, agent: ServerConnection) -> None:
        node = self._find_node(agent)
        context = ssl.create_default_context(cafile=str(self._stage.data_dir / "pki/ca.pem"))
        context.load_cert_chain(node.paths.node_pem)
        url = f"wss://127.0.0.1:{self._stage.gateway_port}{GATEWAY_PATH}"
        subprotocols = [Subprotocol(SUBPROTOCOL)]
        try:
            async with connect(
                url, ssl=context, subprotocols=subprotocols, compression=None, max_size=MAX_FRAME_BYTES, proxy=None
            ) as controller:
                self._agents[node.node_id] = agent
                await self._converse(node, agent, controller)
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError):
            await agent.close(1012)

    async def _converse(self, node: SimNode, agent: ServerConnection, controller: ClientConnection) -> None:
        ways = (self._pump_up(node, agent, controller), self._pump_down(node, agent, controller))
        tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._agents.get(node.node_id) is agent:
            del self._agents[node.node_id]

    async def _pump_up(self, node: SimNode, agent: ServerConnection, controller: ClientConnection) -> None:
        async for raw in agent:
            frame = decode_to_controller(_binary(raw))
            assert frame is not None
            self.said.setdefault(node.node_id, []).append(frame)
            for out in self.up(frame):
                await controller.send(encode_frame(out))

    async def _pump_down(self, node: SimNode, agent: ServerConnection, controller: ClientConnection) -> None:
        async for raw in controller:
            frame = decode_to_agent(_binary(raw))
            assert frame is not None
            self.sent.setdefault(node.node_id, []).append(frame)
            for out in self.down(frame):
                await agent.send(encode_frame(out))

    def _find_node(self, agent: ServerConnection) -> SimNode:
        shown = agent.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        for node in self._stage.nodes.values():
            held = x509.load_pem_x509_certificate(node.paths.node_pem.read_bytes())
            if held.public_bytes(serialization.Encoding.DER) == shown:
                return node
        raise LookupError("a certificate that no node has")


def _binary(raw: str | bytes) -> bytes:
    assert isinstance(raw, bytes)
    return raw


@asynccontextmanager
async def rogue_gateway(stage: Stage) -> AsyncIterator[RogueGateway]:
    """Every node of the stage dials this one."""
    rogue = RogueGateway(stage)
    await rogue.start()
    for node in stage.nodes.values():
        node.proxy.upstream_port = rogue.port
    try:
        yield rogue
    finally:
        await rogue.stop()


def _make_certificate(pki: Path, folder: Path) -> Path:
    """A server certificate of the fleet's own authority, for the local host."""
    authority = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    assert isinstance(signer, EllipticCurvePrivateKey)
    key = generate_private_key(SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rogue")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    path = folder / "rogue.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def read_job_keys(stage: Stage) -> dict[str, Ed25519PrivateKey]:
    """The keys that really sign: for tests that ask what happens beyond a good signature."""
    found = {}
    for path in (stage.data_dir / "pki").glob("job-*.key"):
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        found[path.stem.removeprefix("job-")] = key
    return found


def sign_job(stage: Stage, job: Job) -> Envelope:
    """As the controller would."""
    return sign_envelope(JOB_TYPE, encode_job(job), read_job_keys(stage))
