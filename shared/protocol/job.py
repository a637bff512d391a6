"""What is signed: a job for one node, and what a node answers about it."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from shared.errors import InvalidInputError

JOB_FORMAT_VERSION: Final = 1


class JobMode(enum.Enum):
    """Inside the signature, so that no argument can turn a dry run into a real one."""

    APPLY = "apply"
    PLAN = "plan"


class Semantics(enum.Enum):
    """What recovery may do after a crash in the middle."""

    CONVERGE = "converge"
    """Look again and go on: doing it twice is doing it once."""
    ONCE = "once"
    """Never start it a second time; report `indeterminate`."""


ACTION_CONVERGE: Final = "manifest.converge@1"
"""args = an encoded Manifest (shared/specs/manifest.py)."""
ACTION_NOOP: Final = "fleet.noop@1"
"""args = b''. Proves the whole way to the executor and back."""
ACTION_DRIFT: Final = "manifest.drift@1"
"""args = an encoded DriftRequest; compares what was last applied with the host and changes nothing (mode plan)."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of a job envelope. Times are seconds since the epoch, UTC."""

    v: int = JOB_FORMAT_VERSION
    cluster_id: str
    node_id: str
    node_gen: int
    """Grows with each enrolment of the same machine; a job for an earlier one is refused."""
    job_id: str
    """UUIDv7: the key under which the node remembers it."""
    nonce: bytes
    """16 random bytes: two equal jobs differ."""
    seq: int
    """Per node, gap-free, 1 and up."""
    action: str
    """`module.verb@version`."""
    args: bytes
    """msgpack of the action's own Struct."""
    resource_key: str
    """The lane: jobs of one lane run one after the other, in the order of `seq`."""
    generation: int = 0
    """Of the manifest in `args`; 0 where the action has none."""
    mode: JobMode = JobMode.APPLY
    semantics: Semantics = Semantics.CONVERGE
    actor: str
    """Who asked, for the node's own log: `user/ID` or `system/NAME`."""
    request_id: str
    issued_at: float
    not_before: float
    expires_at: float
    max_runtime_seconds: int

    def __post_init__(self) -> None:
        if self.v != JOB_FORMAT_VERSION:
            raise InvalidInputError(f"job format {self.v} is not known", field="v")
        if len(self.nonce) != 16:
            raise InvalidInputError("a nonce has 16 bytes", field="nonce")
        if self.seq < 1 or self.node_gen < 1 or self.generation < 0:
            raise InvalidInputError("seq and node_gen start at 1, generation at 0", field="seq")
        if not self.issued_at <= self.expires_at or not self.not_before <= self.expires_at:
            raise InvalidInputError("a job expires after it was issued", field="expires_at")
        if not 1 <= self.max_runtime_seconds <= 86_400:
            raise InvalidInputError("max_runtime_seconds must be 1 to 86400", field="max_runtime_seconds")


class DriftRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which subjects to look at; empty means all that the node has."""

    subjects: tuple[str, ...] = ()


class JobState(enum.Enum):
    """A job's life on the node, as its journal knows it."""

    RECEIVED = "received"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    INDETERMINATE = "indeterminate"

    @property
    def is_final(self) -> bool:
        """True when nothing more will happen to the job on the node."""
        return self not in (JobState.RECEIVED, JobState.STARTED)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """A FleetError as it crosses the wire."""

    code: str
    message: str
    hint: str | None = None
    context: dict[str, Any] = msgspec.field(default_factory=dict)


class ChangeKind(enum.Enum):
    """What happens to one thing on the host."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RUN = "run"


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One action of a plan, in words a person can judge."""

    resource: str
    """Resource key."""
    action: str
    """The action's type, for example write_file."""
    kind: ChangeKind
    target: str
    """Path, unit, user or package."""
    reason: str
    diff: str = ""
    """Unified diff where the target is a text file; secrets never appear."""
    undo: str = ""
    """What would take it back; empty when nothing can."""
    is_irreversible: bool = False


class ResourceOutcome(enum.Enum):
    """What became of one resource."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    REMOVED = "removed"
    PARKED = "parked"
    """It failed, was rolled back, and stays as it was before."""
    HELD = "held"
    """Parked earlier; left alone."""


class ResourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one resource, and why."""

    key: str
    outcome: ResourceOutcome
    note: str = ""
    """Why nothing was to be done, or what was verified."""
    error: ErrorBody | None = None
    diff: str | msgspec.UnsetType = msgspec.UNSET
    """Only for what is parked: what the change would have made of text files, cut to a bounded size."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as the kernel reported it after it was set."""

    resource: str
    limit: str
    """Name of the field, for example memory_bytes."""
    wanted: int | None
    enforced: int | None
    """None: the kernel enforces nothing."""
    source: str
    """The file or command it was read from."""
    read_at: float


class CommandPurpose(enum.Enum):
    """Why a program was run."""

    COMMAND = "command"
    VALIDATOR = "validator"
    """A service's own test of staged configuration, before anything of it was live."""


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """One program that ran for a job. Holds no secrets: argument lists never do."""

    resource: str
    """Key of the resource it ran for; empty when it ran for the whole job."""
    argv: tuple[str, ...]
    exit_code: int
    seconds: float
    purpose: CommandPurpose = CommandPurpose.COMMAND
    output: str = ""
    """The end of what it said."""


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """The node's final word about a job."""

    job_id: str
    state: JobState
    generation: int = 0
    changes: tuple[PlannedChange, ...] = ()
    """What was done (mode apply) or would be done (mode plan), in order."""
    resources: tuple[ResourceReport, ...] = ()
    proofs: tuple[Proof, ...] = ()
    reloads: tuple[str, ...] = ()
    """Units that were, or would be, reloaded or restarted."""
    commands: tuple[CommandRun, ...] | msgspec.UnsetType = msgspec.UNSET
    """Programs that ran, in order; the first few hundred. Unset by agents of capability 1, and where none ran."""
    risks: tuple[str, ...] = ()
    error: ErrorBody | None = None
    is_rolled_back: bool = False
    """Only with an error: everything that this job had changed was undone."""
    started_at: float = 0.0
    finished_at: float = 0.0


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Job)


def encode_job(job: Job) -> bytes:
    """Encode once, sign, and keep the bytes: nobody encodes a signed job again."""
    return _ENCODER.encode(job)


def decode_job(raw: bytes) -> Job:
    """Decode bytes whose signature was verified.

    Raises:
        InvalidInputError: An unknown field, a missing one, or a value outside its range.
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a job: {error}") from error
