"""A machine that enrols, and an agent that speaks the real protocol over real TLS."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest
from shared.protocol.envelope import JOB_TYPE, Envelope, verify_envelope
from shared.protocol.frames import (
    SUBPROTOCOL,
    AckEvents,
    AckJob,
    Event,
    Frame,
    Hello,
    OfferJob,
    OfferTrust,
    ToAgent,
    Welcome,
    decode_to_agent,
    encode_frame,
)
from shared.protocol.job import ErrorBody, Job, JobResult, decode_job
from shared.protocol.job import JobState as NodeJobState
from shared.protocol.trust import TrustBundle, open_trust_bundle

if TYPE_CHECKING:
    from tests.integration.fleet.bench import FleetBench

FrameT = TypeVar("FrameT", bound=Frame)
TIMEOUT_SECONDS = 15.0


@dataclass
class Machine:
    """A bare machine with its own keys."""

    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    machine_id_hash: str = field(default_factory=lambda: hashlib.sha256(uuid.uuid4().bytes).hexdigest())
    hostname: str = "web1"

    def csr_pem(self) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chosen by the machine")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return csr.public_bytes(serialization.Encoding.PEM).decode()

    def request(self, token: str, **options: Any) -> EnrolmentRequest:
        values: dict[str, Any] = {
            "token": token,
            "csr_pem": self.csr_pem(),
            "sealing_public_key": bytes(32),
            "machine_id_hash": self.machine_id_hash,
            "hostname": self.hostname,
            "capability": 1,
            "agent_version": "0.1.0",
            "facts": {"memory_bytes": str(4 * 1024**3), "disk_bytes": str(40 * 1024**3)},
        }
        return EnrolmentRequest(**(values | options))


class FakeAgent:
    """Speaks fleet.v1 and verifies every signature, like a real one; does nothing else by itself."""

    def __init__(self, bench: FleetBench, machine: Machine, reply: EnrolmentReply) -> None:
        self.bench = bench
        self.machine = machine
        self.reply = reply
        self.node_id = reply.node_id
        self.journal_epoch = str(uuid.uuid4())
        self.event_number = 0
        root = Ed25519PublicKey.from_public_bytes(reply.root_public_key)
        self._roots = {reply.root_key_id: root}
        self.bundle: TrustBundle = self._open(msgspec.msgpack.decode(reply.trust_bundle, type=Envelope))
        self._connection: ClientConnection | None = None

    def _open(self, envelope: Envelope) -> TrustBundle:
        return open_trust_bundle(envelope, root_keys=self._roots)

    def context(self, directory: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # What create_default_context does on Python 3.13: our certificates must be good enough for it.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self.reply.ca_pem)
        certificate, key = directory / f"{self.node_id}.crt", directory / f"{self.node_id}.key"
        certificate.write_text(self.reply.certificate_pem)
        key.write_bytes(
            self.machine.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context.load_cert_chain(certificate, key)
        return context

    def hello(self, **options: Any) -> Hello:
        values: dict[str, Any] = {
            "capability": 1,
            "oldest_capability": 1,
            "node_id": self.node_id,
            "node_gen": self.reply.node_gen,
            "boot_id": "boot-1",
            "machine_id_hash": self.machine.machine_id_hash,
            "journal_epoch": self.journal_epoch,
            "last_seq": 0,
            "event_head": self.event_number,
            "bundle_version": self.bundle.version,
            "agent_version": "0.1.0",
            "clock": self.bench.clock().timestamp(),
            "modules": {"web": "1"},
        }
        return Hello(**(values | options))

    async def dial(self) -> ClientConnection:
        url = f"wss://127.0.0.1:{self.bench.fleet.gateway.port}/agent/v1"
        return await connect(
            url,
            ssl=self.context(self.bench.settings.data_dir),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            proxy=None,
            max_size=8 * 1024 * 1024,
        )

    async def connect(self, **hello: Any) -> Session:
        """Dial, say hello, be welcome."""
        session = Session(self, await self.dial())
        await session.send(self.hello(**hello))
        session.welcome = await session.expect(Welcome)
        return session

    def verify(self, offer: OfferJob) -> Job:
        """What the executor does before anything else."""
        keys = {
            kid: Ed25519PublicKey.from_public_bytes(key.public_key)
            for kid, key in self.bundle.active_job_keys(self.bench.clock().timestamp()).items()
        }
        payload, _ = verify_envelope(offer.envelope, payload_type=JOB_TYPE, keys=keys)
        job = decode_job(payload)
        assert (job.node_id, job.node_gen, job.cluster_id) == (
            self.node_id,
            self.reply.node_gen,
            self.reply.cluster_id,
        )
        assert (job.job_id, job.seq) == (offer.job_id, offer.seq)
        return job


class Session:
    """One open connection of a fake agent."""

    def __init__(self, agent: FakeAgent, connection: ClientConnection) -> None:
        self.agent = agent
        self.connection = connection
        self.welcome: Welcome = None  # type: ignore[assignment] # set before anybody sees it
        self.passed_over: list[ToAgent] = []

    async def send(self, frame: Frame) -> None:
        await self.connection.send(encode_frame(frame))

    async def receive(self, timeout_seconds: float = TIMEOUT_SECONDS) -> ToAgent:
        async with asyncio.timeout(timeout_seconds):
            raw = await self.connection.recv(decode=False)
        frame = decode_to_agent(raw)
        assert frame is not None
        if isinstance(frame, OfferTrust):
            self.agent.bundle = self.agent._open(frame.envelope)
        return frame

    async def expect(self, kind: type[FrameT]) -> FrameT:
        """The next frame of this kind; others are kept in `passed_over`."""
        while True:
            frame = await self.receive()
            if isinstance(frame, kind):
                return frame
            self.passed_over.append(frame)

    async def take_job(self) -> Job:
        """The next job, verified and acknowledged."""
        job = self.agent.verify(await self.expect(OfferJob))
        await self.send(AckJob(job_id=job.job_id, seq=job.seq, state=NodeJobState.RECEIVED))
        return job

    async def finish(
        self, job: Job, state: NodeJobState = NodeJobState.SUCCEEDED, *, error: ErrorBody | None = None, **options: Any
    ) -> int:
        """Report the result and wait until it is committed; returns the event's number."""
        result = JobResult(job_id=job.job_id, state=state, generation=job.generation, error=error, **options)
        self.agent.event_number += 1
        return await self.send_event(Event(number=self.agent.event_number, kind="result", result=result))

    async def send_event(self, event: Event) -> int:
        await self.send(event)
        ack = await self.expect(AckEvents)
        assert ack.events_upto >= event.number
        return event.number

    async def run_next(self) -> Job:
        """Take a job and report success."""
        job = await self.take_job()
        await self.finish(job)
        return job

    async def wait_closed(self) -> int:
        """The code with which the controller closed."""
        try:
            while True:
                self.passed_over.append(await self.receive())
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd is not None else 1006

    async def close(self) -> None:
        await self.connection.close()
