"""Frames on the executor's unix socket: a 4-byte big-endian length, then one msgpack map told apart by `t`.

The agent passes envelopes on untouched; the executor believes nothing but signatures.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from shared.errors import ProtocolError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import MAX_FRAME_BYTES, DriftReport, Frame
from shared.protocol.health import HealthReport
from shared.protocol.job import ErrorBody, JobResult, JobState

EXECUTOR_SOCKET: Final = "/run/wcp360/executor.sock"
LENGTH_BYTES: Final = 4


# --- agent to executor -----------------------------------------------------------------------------------------------


class SubmitJob(Frame, frozen=True, kw_only=True, tag="submit"):
    """A signed job, exactly as it arrived."""

    envelope: Envelope


class CancelLocal(Frame, frozen=True, kw_only=True, tag="cancel"):
    """Stop the job if it can still be stopped; a result follows."""

    job_id: str


class SubmitTrust(Frame, frozen=True, kw_only=True, tag="trust"):
    """A signed trust bundle, exactly as it arrived."""

    envelope: Envelope


class RequestDrift(Frame, frozen=True, kw_only=True, tag="drift"):
    """Compare what was last applied with the host. Empty: every subject."""

    subjects: tuple[str, ...] = ()
    may_repair: bool = True
    """False: report only, whatever the policy says."""


class RequestHealth(Frame, frozen=True, kw_only=True, tag="health"):
    """Look how the enabled modules are doing; answered with HealthFound."""


class RequestUsage(Frame, frozen=True, kw_only=True, tag="usage"):
    """Measure what the accounts' homes hold; answered with UsageFound."""

    after: str = ""
    """The account with which the last answer ended: the next ones come first."""


class ResultStored(Frame, frozen=True, kw_only=True, tag="stored"):
    """The agent has this result in its own spool, on disk."""

    job_id: str


class RequestStatus(Frame, frozen=True, kw_only=True, tag="status"):
    """Say who you are; answered with ExecutorStatus."""


class OpenWorker(Frame, frozen=True, kw_only=True, tag="worker"):
    """Start the worker that a signed stream grant (grant.py) asks for; answered with WorkerOpened."""

    ref: str
    """The agent's own name for this question."""
    envelope: Envelope


# --- executor to agent -----------------------------------------------------------------------------------------------


class JobAccepted(Frame, frozen=True, kw_only=True, tag="accepted"):
    """The job is in the journal, on disk (or was refused, with the reason). A repeated job shows its present state."""

    job_id: str
    seq: int
    state: JobState
    error: ErrorBody | None = None


class JobProgress(Frame, frozen=True, kw_only=True, tag="progress"):
    """See frames.Progress."""

    job_id: str
    number: int
    done: int
    total: int
    message: str


class JobFinished(Frame, frozen=True, kw_only=True, tag="finished"):
    """Sent until the agent answers ResultStored, also after a restart of either."""

    result: JobResult


class DriftFound(Frame, frozen=True, kw_only=True, tag="drift_found"):
    """The answer to RequestDrift."""

    report: DriftReport


class HealthFound(Frame, frozen=True, kw_only=True, tag="health_found"):
    """The answer to RequestHealth."""

    report: HealthReport


class HomeUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one account's home holds."""

    account: str
    disk_bytes: int
    inodes: int


class TrafficUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the sites of one account served and took in one calendar month."""

    account: str
    source: str
    """Names the counter and whose it is (UIDxNUMBER): whoever begins to count anew has another one."""
    month: str
    """UTC, as 202611."""
    traffic_bytes: int
    """Only grows as long as the counter is the same."""


class UsageFound(Frame, frozen=True, kw_only=True, tag="usage_found"):
    """The answer to RequestUsage: of every account that was reached in the time there is for it."""

    homes: tuple[HomeUse, ...] = ()
    is_complete: bool = True
    """False: there was no time for the accounts that are left out here."""
    traffic: tuple[TrafficUse, ...] = ()
    """Of all accounts, this month and the one before; empty: it is not known now."""


class TrustTaken(Frame, frozen=True, kw_only=True, tag="trust_taken"):
    """The bundle version the executor now believes; `error` when the offered one was refused."""

    version: int
    ca_certificates: tuple[bytes, ...] = ()
    """DER, of the bundle that it believes: whom the agent may take for the controller."""
    error: ErrorBody | None = None


class ExecutorStatus(Frame, frozen=True, kw_only=True, tag="executor_status"):
    """What the agent needs for its hello."""

    journal_epoch: str
    last_seq: int
    bundle_version: int
    node_id: str
    node_gen: int
    cluster_id: str
    running_jobs: int
    quarantine: str = ""
    """Why the executor takes no jobs (a rollback failed, the journal is corrupt); empty when it does."""
    modules: dict[str, str] = msgspec.field(default_factory=dict)
    ca_certificates: tuple[bytes, ...] = ()
    """As in TrustTaken."""
    seq_gaps: tuple[int, ...] = ()
    """Job numbers below `last_seq` that never arrived; the newest few."""
    has_room: bool = True
    """False: the node's disk is full, and jobs are refused."""


class WorkerOpened(Frame, frozen=True, kw_only=True, tag="worker_opened"):
    """A worker listens at `socket_path` for a few seconds; `error` when there is none."""

    ref: str
    socket_path: str = ""
    error: ErrorBody | None = None


class Complaint(Frame, frozen=True, kw_only=True, tag="complaint"):
    """The last message made no sense; the connection closes."""

    error: ErrorBody


ToExecutor = (
    SubmitJob
    | CancelLocal
    | SubmitTrust
    | RequestDrift
    | RequestHealth
    | RequestUsage
    | ResultStored
    | RequestStatus
    | OpenWorker
)
FromExecutor = (
    WorkerOpened
    | JobAccepted
    | JobProgress
    | JobFinished
    | DriftFound
    | HealthFound
    | UsageFound
    | TrustTaken
    | ExecutorStatus
    | Complaint
)

_T = TypeVar("_T")
_ENCODER = msgspec.msgpack.Encoder()
_TO_EXECUTOR: msgspec.msgpack.Decoder[ToExecutor] = msgspec.msgpack.Decoder(ToExecutor)
_FROM_EXECUTOR: msgspec.msgpack.Decoder[FromExecutor] = msgspec.msgpack.Decoder(FromExecutor)


def encode_local(frame: Frame) -> bytes:
    """Length and body, ready to be written.

    Raises:
        ProtocolError: The body is larger than MAX_FRAME_BYTES.
    """
    body = _ENCODER.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a local frame of {len(body)} bytes is too large", code="frame_too_large")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_length(prefix: bytes) -> int:
    """Body length of the next frame.

    Raises:
        ProtocolError: It is larger than MAX_FRAME_BYTES.
    """
    length = int.from_bytes(prefix, "big")
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"a local frame of {length} bytes is too large", code="frame_too_large")
    return length


def decode_to_executor(body: bytes) -> ToExecutor:
    """Decode a body that an agent sent.

    Raises:
        ProtocolError: It is none of the known frames.
    """
    return _decode(body, _TO_EXECUTOR)


def decode_from_executor(body: bytes) -> FromExecutor:
    """Decode a body that the executor sent.

    Raises:
        ProtocolError: It is none of the known frames.
    """
    return _decode(body, _FROM_EXECUTOR)


def _decode(body: bytes, decoder: msgspec.msgpack.Decoder[_T]) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a local frame: {error}", code="bad_frame") from error
