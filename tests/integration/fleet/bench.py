"""A fleet with its engine and gateway on free ports, and agents that speak the real protocol over real TLS."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from sqlalchemy import select
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Actor, Change, Role
from controller.core.manifest import ManifestRegistry
from controller.core.operations import FleetContext, Operations
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.fleet import Fleet, FleetParts, FleetPorts
from controller.fleet.models import Node
from controller.fleet.ports import ChangeNote
from controller.fleet.signer import LocalSigner
from controller.fleet.tokens import TokenParams
from controller.jobs.engine import JobEngine
from controller.jobs.models import Job as JobRow
from controller.jobs.models import JobTransition
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.states import JobState
from controller.settings import Settings
from shared.errors import FleetError
from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest, EnrolmentState
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
from shared.protocol.job import ACTION_NOOP, ErrorBody, Job, JobResult, decode_job
from shared.protocol.job import JobState as NodeJobState
from shared.protocol.trust import TrustBundle, open_trust_bundle

ADMIN = Actor(kind="user", id="admin", name="admin", role=Role.ROOT)
FrameT = TypeVar("FrameT", bound=Frame)
TIMEOUT_SECONDS = 15.0


class Clock:
    """The time, moved by hand from where it really is."""

    def __init__(self) -> None:
        self._offset = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self._offset

    def advance(self, **options: float) -> None:
        self._offset += timedelta(**options)


@dataclass
class Ear:
    """A publisher that remembers."""

    heard: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None:
        self.heard.append((topic, event, dict(data)))

    def events(self, topic: str) -> list[str]:
        return [event for heard_topic, event, _ in self.heard if heard_topic == topic]


@dataclass
class FleetBench:
    """Everything a test of the fleet needs."""

    settings: Settings
    database: Database
    engine: JobEngine
    fleet: Fleet
    operations: Operations
    signer: LocalSigner
    ear: Ear
    clock: Clock
    reconverged: list[tuple[str, bool]]

    # --- enrolment ----------------------------------------------------------------------------------------------------

    async def token(self, **options: Any) -> str:
        outcome = await self.operations.change(
            ADMIN, "request-token", lambda ctx: self.fleet.create_token(ctx, TokenParams(**options))
        )
        return outcome.resource.token

    async def post_enrol(self, request: EnrolmentRequest, *, address: str = "10.0.0.1") -> EnrolmentReply:
        """As the API's handler does it."""
        outcome = await self.operations.change(
            SYSTEM, "request-enrol", lambda ctx: self.fleet.enrolments.enrol(ctx, request, address=address)
        )
        if isinstance(outcome.resource, FleetError):
            raise outcome.resource
        return outcome.resource

    async def enrol(self, **options: Any) -> FakeAgent:
        """An approved node with its agent, not connected."""
        machine = Machine()
        reply = await self.post_enrol(machine.request(await self.token(**options)))
        assert reply.state is EnrolmentState.APPROVED
        return FakeAgent(self, machine, reply)

    # --- looking ------------------------------------------------------------------------------------------------------

    async def node(self, node_id: str) -> Node:
        async with self.database.read() as session:
            return (await session.execute(select(Node).where(Node.id == node_id))).scalar_one()

    async def job(self, job_id: str) -> JobRow:
        async with self.database.read() as session:
            return (await session.execute(select(JobRow).where(JobRow.id == job_id))).scalar_one()

    async def jobs(self, node_id: str) -> list[JobRow]:
        async with self.database.read() as session:
            statement = select(JobRow).where(JobRow.node_id == node_id).order_by(JobRow.id)
            return list((await session.execute(statement)).scalars())

    async def path(self, job_id: str) -> list[str]:
        """The states a job went through, in order."""
        async with self.database.read() as session:
            statement = select(JobTransition).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
            return [row.to_state.value for row in (await session.execute(statement)).scalars()]

    async def request(self, node_id: str, **options: Any) -> str:
        """Ask for a job, as a use case does."""
        values: dict[str, Any] = {
            "action": ACTION_NOOP,
            "args": b"",
            "resource_key": f"test/{uuid.uuid4()}",
            "actor": "user/admin",
            "request_id": "request-test",
        }
        async with self.database.write() as session:
            job_request = JobRequest(node_id=node_id, **(values | options))
            job_id = await request_job(session, job_request, now=self.clock())
        self.engine.notify()
        return job_id

    async def wait_state(self, job_id: str, *states: JobState) -> JobRow:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (job := await self.job(job_id)).state not in states:
                await asyncio.sleep(0.01)
            return job

    async def change(self, use_case: Any) -> Any:
        return (await self.operations.change(ADMIN, "request-change", use_case)).resource


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
            assert error.rcvd is not None, "cut without a close frame"
            return error.rcvd.code

    async def close(self) -> None:
        await self.connection.close()


def note_change(ctx: FleetContext, note: ChangeNote) -> None:
    record(
        ctx,
        Change(
            action=note.action,
            target=note.target,
            target_name=note.target_name,
            before=note.before,
            after=note.after,
        ),
    )


def build_bench(database: Database, data_dir: Path, clock: Clock | None = None) -> FleetBench:
    """Put a fleet together; nothing runs yet."""
    settings = Settings(
        data_dir=data_dir,
        gateway_host="127.0.0.1",
        gateway_port=0,
        public_names=("127.0.0.1",),
        controller_url="https://127.0.0.1:8360",
    )
    ear, clock = Ear(), clock or Clock()
    signer = LocalSigner(data_dir / "pki", clock=clock)
    engine = JobEngine(database, signer, publisher=ear, clock=clock)
    reconverged: list[tuple[str, bool]] = []

    async def reconverge(node_id: str, is_everything: bool) -> None:
        reconverged.append((node_id, is_everything))

    fleet = Fleet(
        FleetParts(
            settings=settings,
            database=database,
            engine=engine,
            publisher=ear,
            signer=signer,
            ports=FleetPorts(record=note_change, reconverge=reconverge),
            clock=clock,
        )
    )
    operations = Operations(
        database, registry=ManifestRegistry(), fleet=fleet, engine=engine, publisher=ear, clock=clock
    )
    fleet.open_keys()
    return FleetBench(settings, database, engine, fleet, operations, signer, ear, clock, reconverged)


@asynccontextmanager
async def running(bench: FleetBench) -> AsyncIterator[FleetBench]:
    """The bench with its tasks, until the block ends."""
    await bench.fleet.start()
    await bench.engine.start()
    try:
        yield bench
    finally:
        await bench.fleet.stop()
        await bench.engine.stop()
