"""Whether a signed job may run here: the node's own checks, in an order that matters, each a small pure function.

The link checks too, to fail early; these are the ones that count. A job whose signature, form or addressee is wrong
leaves no trace in the journal; one that fails a later check is remembered as refused, so that asking again changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.core.identity import Identity
from agent.core.records import Applied
from shared.errors import InvalidInputError, RefusedError
from shared.protocol.capability import CAPABILITY_VERSION
from shared.protocol.envelope import JOB_TYPE, MAX_PAYLOAD_BYTES, MAX_SIGNATURES, Envelope, verify_envelope
from shared.protocol.job import (
    ACTION_CONVERGE,
    ACTION_DRIFT,
    ACTION_NOOP,
    DriftRequest,
    Job,
    JobMode,
    decode_job,
)
from shared.protocol.trust import JobKey, TrustBundle, is_action_allowed
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import NODE_SUBJECT, AnySpec, Manifest, decode_manifest, manifest_digest
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PHP_SOCKET_DIR, PhpPoolSpec, parse_php_version, php_socket_path
from shared.specs.site import SiteSpec
from shared.specs.ssh_access import SshAccessSpec

CLOCK_TOLERANCE_SECONDS: Final = 120.0
KNOWN_ACTIONS: Final = frozenset({ACTION_CONVERGE, ACTION_NOOP, ACTION_DRIFT})

JobArguments = Manifest | DriftRequest | None


def effective_now(local: float, highest_seen: float) -> float:
    """The later of our own clock and the controller's newest word: a clock set back revives no old job."""
    return max(local, highest_seen)


# --- before anything is decoded -------------------------------------------------------------------------------------


def open_job(envelope: Envelope, *, identity: Identity | None, bundle: TrustBundle | None, now: float) -> Job:
    """Run every check that needs no journal row of its own, up to the addressee.

    Raises:
        RefusedError: With the code of the check that failed; `context` has job_id and seq once those can be believed.
    """
    require_size(envelope)
    if identity is None:
        raise RefusedError("this node is not enrolled", code="not_enrolled")
    keys = require_known_keys(envelope, require_usable_bundle(bundle, now=now), now=now)
    verifiers = {kid: Ed25519PublicKey.from_public_bytes(key.public_key) for kid, key in keys.items()}
    payload, signers = verify_envelope(envelope, payload_type=JOB_TYPE, keys=verifiers)
    try:
        job = decode_job(payload)
    except InvalidInputError as error:
        raise RefusedError(error.message, code="malformed") from error
    try:
        require_addressee(job, identity)
        require_action(job, [keys[kid] for kid in signers])
    except RefusedError as error:
        # Its signature is good, so the answer may name it.
        error.context.update(job_id=job.job_id, seq=job.seq)
        raise
    return job


def require_size(envelope: Envelope) -> None:
    """Refuse what is too large to be looked at (`too_large`)."""
    if len(envelope.payload) > MAX_PAYLOAD_BYTES or len(envelope.signatures) > MAX_SIGNATURES:
        raise RefusedError("the envelope is too large", code="too_large")


def require_usable_bundle(bundle: TrustBundle | None, *, now: float) -> TrustBundle:
    """Refuse new work without a bundle in force (`no_trust`, `expired_bundle`, `outdated_agent`)."""
    if bundle is None:
        raise RefusedError("this node has no trust bundle yet", code="no_trust")
    if bundle.expires_at <= now:
        raise RefusedError("the trust bundle has expired", code="expired_bundle", hint="Let the node reconnect.")
    if bundle.min_capability > CAPABILITY_VERSION:
        raise RefusedError("this agent is too old for the fleet", code="outdated_agent", hint="Update the agent.")
    return bundle


def require_known_keys(envelope: Envelope, bundle: TrustBundle, *, now: float) -> dict[str, JobKey]:
    """The keys that are named, known and in force (`unknown_key`, `revoked_key`, `expired_key`)."""
    named = {signature.kid for signature in envelope.signatures}
    usable = {kid: key for kid, key in bundle.active_job_keys(now).items() if kid in named}
    if usable:
        return usable
    if named & set(bundle.revoked_kids):
        raise RefusedError("the key that signed this was revoked", code="revoked_key")
    if named & {key.kid for key in bundle.job_keys}:
        raise RefusedError("the key that signed this is not in force now", code="expired_key")
    raise RefusedError("no signature of a key that this node knows", code="unknown_key")


# --- what the job says ------------------------------------------------------------------------------------------------


class Addressed(Protocol):
    """What every signed order says about the node that it is for."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def node_id(self) -> str: ...

    @property
    def node_gen(self) -> int: ...


def require_addressee(order: Addressed, identity: Identity, *, noun: str = "job") -> None:
    """Refuse an order for somebody else (`wrong_cluster`, `wrong_node`, `wrong_node_generation`)."""
    if order.cluster_id != identity.cluster_id:
        raise RefusedError(f"the {noun} is of another cluster", code="wrong_cluster")
    if order.node_id != identity.node_id:
        raise RefusedError(f"the {noun} is for another node", code="wrong_node")
    if order.node_gen != identity.node_gen:
        raise RefusedError(f"the {noun} is for another enrolment of this node", code="wrong_node_generation")


def require_action(job: Job, signers: Iterable[JobKey]) -> None:
    """Refuse what we do not know or what no signer may order (`unknown_action`, `out_of_scope`)."""
    if job.action not in KNOWN_ACTIONS:
        raise RefusedError(f"this agent does not know the action {job.action[:80]!r}", code="unknown_action")
    if not any(is_action_allowed(key, job.action) for key in signers):
        raise RefusedError(f"the key may not order {job.action}", code="out_of_scope")


def require_time(job: Job, *, now: float) -> None:
    """Refuse what is not yet or no longer valid (`clock_skew`, `expired`)."""
    context = {"now": now, "not_before": job.not_before, "expires_at": job.expires_at}
    if now < job.not_before - CLOCK_TOLERANCE_SECONDS:
        hint = "Compare the clocks of the node and the controller."
        raise RefusedError("the job is not valid yet", code="clock_skew", hint=hint, context=context)
    if now > job.expires_at + CLOCK_TOLERANCE_SECONDS:
        raise RefusedError("the job has expired", code="expired", context=context)


def require_sequence(job: Job, *, low_watermark: int, is_seq_taken: bool) -> None:
    """Refuse a number that was settled long ago or that another job has (`seq_replayed`, `seq_reused`)."""
    if job.seq <= low_watermark:
        raise RefusedError(f"job number {job.seq} was settled long ago", code="seq_replayed")
    if is_seq_taken:
        raise RefusedError(f"job number {job.seq} belongs to another job", code="seq_reused")


def decode_arguments(job: Job) -> JobArguments:
    """Decode `args` into the action's own Struct (`malformed`, `args_mismatch`)."""
    try:
        if job.action == ACTION_CONVERGE:
            manifest = decode_manifest(job.args)
        elif job.action == ACTION_DRIFT:
            return msgspec.msgpack.decode(job.args, type=DriftRequest)
        else:
            return None
    except (InvalidInputError, msgspec.MsgspecError) as error:
        raise RefusedError(str(error), code="malformed") from error
    if manifest.generation != job.generation:
        raise RefusedError("job and manifest name different generations", code="args_mismatch")
    return manifest


def require_generation(job: Job, manifest: Manifest, *, applied: Applied | None, newest_queued: int) -> None:
    """Refuse an older generation, and the same with another content (`stale_generation`, `generation_conflict`).

    Args:
        job: Its seq decides whether a removed subject lives again: the name may be given to a new account, whose
            generations start at 1, but an older job must never bring the old one back.
        manifest: What it asks for.
        applied: What the subject has now; None when the node never had it.
        newest_queued: Highest generation of this subject that waits or runs; 0 for none. A dry run ignores it.
    """
    if job.mode is JobMode.APPLY and manifest.generation < newest_queued:
        raise RefusedError(
            f"generation {manifest.generation} is older than {newest_queued}, which is on its way",
            code="stale_generation",
        )
    if applied is None or (applied.presence is Presence.ABSENT and job.seq > applied.seq):
        return
    if manifest.generation < applied.generation:
        raise RefusedError(
            f"generation {manifest.generation} is older than {applied.generation}, which was applied",
            code="stale_generation",
        )
    if manifest.generation == applied.generation and manifest_digest(manifest) != applied.digest:
        raise RefusedError(
            f"generation {manifest.generation} was applied with another content", code="generation_conflict"
        )


# --- tenancy ----------------------------------------------------------------------------------------------------------


def require_policy(manifest: Manifest, *, known_uid: int | None, foreign_uids: frozenset[int]) -> None:
    """Refuse what reaches outside its own subject (`bad_subject`, `foreign_spec`, `uid_changed`, `uid_taken`).

    Args:
        manifest: What is asked for.
        known_uid: The uid that the subject has on this node already; None for a new one.
        foreign_uids: Those of all other subjects of this node.
    """
    if manifest.subject == NODE_SUBJECT:
        if not all(isinstance(spec, ModuleSpec) for spec in manifest.specs):
            raise RefusedError("the node's own manifest holds modules only", code="foreign_spec")
        return
    kind, slash, name = manifest.subject.partition("/")
    if kind != "account" or not slash or not name:
        raise RefusedError(f"{manifest.subject[:80]!r} is not a subject", code="bad_subject")
    for spec in manifest.specs:
        require_own_spec(spec, name)
    uids = {spec.uid for spec in manifest.specs if not isinstance(spec, ModuleSpec)}
    if len(uids) > 1:
        raise RefusedError("one account has one uid", code="foreign_spec")
    if known_uid is not None and uids - {known_uid}:
        raise RefusedError(f"{manifest.subject} has uid {known_uid} on this node", code="uid_changed")
    if uids & foreign_uids:
        raise RefusedError("the uid belongs to another account of this node", code="uid_taken")


def require_own_spec(spec: AnySpec, account: str) -> None:
    """Refuse a spec that belongs to somebody else (`foreign_spec`)."""
    match spec:
        case AccountSpec():
            is_own = spec.name == account
        case PhpPoolSpec() | SshAccessSpec():
            is_own = spec.account == account
        case SiteSpec():
            is_own = spec.account == account and _is_own_socket(spec)
        case _:
            is_own = False
    if not is_own:
        raise RefusedError(f"{spec.key} does not belong to account {account}", code="foreign_spec")


def _is_own_socket(spec: SiteSpec) -> bool:
    """A site may only talk to the PHP of its own account."""
    if spec.php_socket_path is None:
        return True
    version = spec.php_socket_path.removeprefix(f"{PHP_SOCKET_DIR}/").partition("/")[0]
    try:
        return spec.php_socket_path == php_socket_path(parse_php_version(version), spec.uid)
    except InvalidInputError:
        return False
