"""Every frame between controller and agent: one msgpack map per binary WebSocket message, told apart by `t`.

Frames ignore fields they do not know (a newer side may add some); an unknown `t` is counted and skipped unless the map
carries `crit: true`. Signed payloads (job.py, trust.py) are stricter.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec

from shared.errors import ProtocolError
from shared.protocol.envelope import Envelope
from shared.protocol.frame import Frame as Frame  # noqa: PLC0414 - the name that everybody imports from here
from shared.protocol.health import CheckHealth, NodeHealth, Quiet
from shared.protocol.job import ErrorBody, JobResult, JobState
from shared.protocol.release import SignedRelease
from shared.protocol.renewal import RenewCertificate, TrustReport
from shared.protocol.streams import StreamToAgent, StreamToController
from shared.protocol.update import UpdateReport
from shared.protocol.witness import CheckpointSeen, ShowCheckpoint

SUBPROTOCOL: Final = "fleet.v1"
GATEWAY_PATH: Final = "/agent/v1"
MAX_FRAME_BYTES: Final = 6 * 1024 * 1024
"""A frame holds one job (envelope.MAX_PAYLOAD_BYTES) or one result."""


# --- both ways: the session -----------------------------------------------------------------------------------------


class Hello(Frame, frozen=True, kw_only=True, tag="hello"):
    """First frame of an agent."""

    capability: int
    oldest_capability: int
    node_id: str
    node_gen: int
    boot_id: str
    machine_id_hash: str
    journal_epoch: str
    """Changes when the executor's journal was lost; running jobs are then indeterminate."""
    last_seq: int
    """Highest job seq that the executor has journalled."""
    event_head: int
    """Number of the newest event in the agent's spool."""
    bundle_version: int
    agent_version: str
    clock: float
    """The node's time, seconds since the epoch."""
    modules: dict[str, str] = msgspec.field(default_factory=dict)
    """Module name to version, of all modules this agent can run."""
    seq_gaps: tuple[int, ...] = ()
    """Job numbers below `last_seq` that never arrived: somebody in between dropped them. The newest few."""
    build: str = ""
    """Which build of the agent runs (see release.BuildId); empty before capability 2, and where it is no bundle."""
    can_witness: bool = False
    """It takes signed ends of the audit log (witness.ShowCheckpoint)."""


class Welcome(Frame, frozen=True, kw_only=True, tag="welcome"):
    """The controller's answer: the session is open."""

    capability: int
    session_epoch: int
    events_acked: int
    """Events up to this number are in the database."""
    heartbeat_seconds: float
    metrics_seconds: float
    drift_check_seconds: float
    server_time: float
    bundle_version: int


class Reject(Frame, frozen=True, kw_only=True, tag="reject"):
    """The session ends here; `is_fatal` means do not try again by yourself."""

    code: str
    message: str
    retry_after_seconds: float = 60.0
    is_fatal: bool = False


class Drain(Frame, frozen=True, kw_only=True, tag="drain"):
    """The controller goes away: come back at a random moment within the window."""

    window_seconds: float


class Heartbeat(Frame, frozen=True, kw_only=True, tag="heartbeat"):
    """Agent: still here."""

    clock: float
    running_jobs: int = 0
    seq_gaps: tuple[int, ...] = ()
    """As in the hello; said again until the numbers arrive or nobody waits for them."""


# --- controller to agent ---------------------------------------------------------------------------------------------


class OfferJob(Frame, frozen=True, kw_only=True, tag="job"):
    """A signed job. `seq` repeats the signed one for routing only."""

    envelope: Envelope
    job_id: str
    seq: int


class CancelJob(Frame, frozen=True, kw_only=True, tag="job_cancel"):
    """Please stop; the node answers with a result, whatever it could still do."""

    job_id: str


class OfferTrust(Frame, frozen=True, kw_only=True, tag="trust_bundle"):
    """A signed trust bundle."""

    envelope: Envelope


class OfferUpdate(Frame, frozen=True, kw_only=True, tag="update"):
    """A release for this node, for its updater to judge; the answer is an event. Offered again until there is one."""

    attempt_id: str
    release: SignedRelease
    path: str
    """Where the controller has the bundle, below its URL."""


class AckEvents(Frame, frozen=True, kw_only=True, tag="ack"):
    """Everything up to this event number is committed; the agent may forget it."""

    events_upto: int


class CheckDrift(Frame, frozen=True, kw_only=True, tag="drift_check"):
    """Compare now; answers come as events. Changes nothing, so it needs no signature."""

    subjects: tuple[str, ...] = ()


# --- agent to controller ---------------------------------------------------------------------------------------------


class AckJob(Frame, frozen=True, kw_only=True, tag="job_ack"):
    """The executor has the job in its journal, on disk (or refuses it, with the reason)."""

    job_id: str
    seq: int
    state: JobState
    error: ErrorBody | None = None


class Progress(Frame, frozen=True, kw_only=True, tag="progress"):
    """Latest wins; at most two a second for a job; may be lost."""

    job_id: str
    number: int
    """1 and up within a job."""
    done: int
    total: int
    message: str


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that is not as it was applied."""

    subject: str
    key: str
    summary: str
    diff: str = ""
    is_repaired: bool = False


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one drift check: findings of the subjects that were looked at (empty: all is as it should be)."""

    subjects: tuple[str, ...]
    findings: tuple[DriftFinding, ...] = ()
    checked_at: float = 0.0


EventBody = JobResult | DriftReport | UpdateReport


class Event(Frame, frozen=True, kw_only=True, tag="evt"):
    """Something that must not be lost: kept in the agent's spool until it is acknowledged."""

    number: int
    """1 and up, gap-free for a journal epoch."""
    kind: Literal["result", "drift", "update"]
    result: JobResult | None = None
    drift: DriftReport | None = None
    update: UpdateReport | None = None


class Metrics(Frame, frozen=True, kw_only=True, tag="metrics"):
    """A sample of the node; may be lost."""

    at: float
    gauges: dict[str, float]
    """Name to value, for example cpu_percent, memory_used_bytes, accounts.NAME.memory_bytes."""


class LogLine(Frame, frozen=True, kw_only=True, tag="log"):
    """A line of the agent's own log that an operator should see; may be lost."""

    at: float
    level: str
    message: str
    job_id: str = ""


ToAgent = (
    StreamToAgent
    | Welcome
    | Reject
    | Drain
    | OfferJob
    | CancelJob
    | OfferTrust
    | OfferUpdate
    | RenewCertificate
    | AckEvents
    | CheckDrift
    | CheckHealth
    | Quiet
    | ShowCheckpoint
)
ToController = (
    Hello
    | Heartbeat
    | AckJob
    | Progress
    | Event
    | Metrics
    | LogLine
    | NodeHealth
    | TrustReport
    | StreamToController
    | CheckpointSeen
)

_T = TypeVar("_T")

_ENCODER = msgspec.msgpack.Encoder()
_TO_AGENT: msgspec.msgpack.Decoder[ToAgent] = msgspec.msgpack.Decoder(ToAgent)
_TO_CONTROLLER: msgspec.msgpack.Decoder[ToController] = msgspec.msgpack.Decoder(ToController)


class _Peek(msgspec.Struct):
    t: str
    crit: bool = False


_PEEK = msgspec.msgpack.Decoder(_Peek)
_TAGS: Final = frozenset(str(frame.__struct_config__.tag) for frame in (*ToAgent.__args__, *ToController.__args__))


def encode_frame(frame: Frame) -> bytes:
    """One frame as the bytes of one WebSocket message."""
    return _ENCODER.encode(frame)


def decode_to_agent(raw: bytes) -> ToAgent | None:
    """Decode what a controller sent; None for a frame type of a later release that may be skipped.

    Raises:
        ProtocolError: It is no frame, or a critical one that this release does not know.
    """
    return _decode(raw, _TO_AGENT)


def decode_to_controller(raw: bytes) -> ToController | None:
    """Decode what an agent sent; None for a frame type of a later release that may be skipped.

    Raises:
        ProtocolError: It is no frame, or a critical one that this release does not know.
    """
    return _decode(raw, _TO_CONTROLLER)


def _decode(raw: bytes, decoder: msgspec.msgpack.Decoder[_T]) -> _T | None:
    if len(raw) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {len(raw)} bytes is too large", code="frame_too_large")
    try:
        peek = _PEEK.decode(raw)
        if peek.t not in _TAGS:
            if peek.crit:
                raise ProtocolError(f"unknown critical frame {peek.t[:40]!r}", code="unknown_frame")
            return None
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a frame: {error}", code="bad_frame") from error
