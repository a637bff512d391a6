"""What the signer's process will sign.

It reads every payload first: whoever took over another process of the controller can ask, but not for a job of another
fleet, one that lives for ever, or trust in keys that are not ours.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from controller.fleet.signing.signer import LocalSigner
from shared.audit_proof import CHECKPOINT_TYPE, Checkpoint, parse_checkpoint
from shared.errors import InvalidInputError, RefusedError, UnavailableError
from shared.protocol.envelope import TRUST_TYPE
from shared.protocol.grant import GRANT_TYPE, StreamGrant
from shared.protocol.job import Job, decode_job
from shared.protocol.release import RELEASE_KEYS_TYPE, RELEASE_TYPE, ReleaseKeys, ReleaseManifest
from shared.protocol.trust import JobKey, TrustBundle, decode_trust_bundle

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
JOB_LIFE_MAX: Final = timedelta(days=32)
DOCUMENT_LIFE_MAX: Final = timedelta(days=800)
_NODE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEYS_MAX: Final = 10_000


class Rate(NamedTuple):
    """So many at once, and so many a second after that."""

    burst: int
    per_second: float


RATES: Final[dict[str, Rate]] = {
    # The engine of one controller process makes a few hundred jobs a second; more than this is no engine.
    "actor": Rate(20_000, 2000.0),
    "action": Rate(50_000, 5000.0),
    "trust": Rate(30, 0.5),
    "release": Rate(30, 0.5),
    "grant": Rate(2000, 200.0),
    "checkpoint": Rate(30, 0.1),
    # A whole fleet renews within minutes when its authority changes.
    "node": Rate(2000, 200.0),
    "server": Rate(30, 0.2),
    "rotate": Rate(5, 1 / 600),
    "revoke": Rate(20, 1 / 60),
    "arrange": Rate(30, 1 / 30),
}


class Rates:
    """Token buckets, one for each kind and key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When the bucket will be full again."""

    def require(self, kind: str, key: str = "") -> None:
        """Count one.

        Raises:
            UnavailableError: `signer_busy`: the bucket is empty.
        """
        rate, now = RATES[kind], self._clock()
        full_at = max(self._full_at.get((kind, key), now), now)
        if full_at - now > (rate.burst - 0.5) / rate.per_second:
            raise UnavailableError(
                f"the signer was asked too often ({kind} {key[:80]})".replace(" )", ")"), code="signer_busy"
            )
        self._full_at[kind, key] = full_at + 1 / rate.per_second
        self._full_at.move_to_end((kind, key))
        while len(self._full_at) > _KEYS_MAX:
            self._full_at.popitem(last=False)


def require_job(payload: bytes, *, cluster_id: str, now: datetime) -> Job:
    """The job, if this fleet's controller could have made it now.

    Raises:
        RefusedError: `malformed`, `wrong_cluster`, `clock_skew`, `expired` or `lives_too_long`.
    """
    try:
        job = decode_job(payload)
    except InvalidInputError as error:
        raise RefusedError(error.message, code="malformed") from error
    if job.cluster_id != cluster_id:
        raise RefusedError("the job is of another cluster", code="wrong_cluster")
    stamp = now.timestamp()
    if job.issued_at > stamp + CLOCK_TOLERANCE.total_seconds():
        raise RefusedError("the job is of the future", code="clock_skew", hint="Compare the clocks.")
    if job.expires_at < stamp - CLOCK_TOLERANCE.total_seconds():
        raise RefusedError("the job has expired", code="expired")
    if job.expires_at - job.issued_at > JOB_LIFE_MAX.total_seconds():
        raise RefusedError("the job would live too long", code="lives_too_long")
    return job


def require_node_id(node_id: str) -> str:
    """The id if it is a UUID: it becomes part of a name in a certificate (`malformed`)."""
    if not _NODE_ID.fullmatch(node_id):
        raise RefusedError("a node's id is a UUID", code="malformed")
    return node_id


async def require_document(payload_type: str, payload: bytes, *, signer: LocalSigner, now: datetime) -> str:
    """Pass a document that speaks of our own keys only; returns the kind of rate it counts for.

    Raises:
        RefusedError: `wrong_type`, `malformed`, `wrong_cluster`, `foreign_key` or `lives_too_long`.
    """
    try:
        if payload_type == TRUST_TYPE:
            await _require_own_trust(decode_trust_bundle(payload), signer)
            return "trust"
        if payload_type == GRANT_TYPE:
            grant = msgspec.msgpack.decode(payload, type=StreamGrant)
            _require_frame(grant.cluster_id, grant.expires_at, signer, now, life=CLOCK_TOLERANCE)
            return "grant"
        if payload_type == RELEASE_KEYS_TYPE:
            keys = msgspec.msgpack.decode(payload, type=ReleaseKeys)
            _require_frame(keys.cluster_id, keys.expires_at, signer, now)
            if not set(keys.keys) <= set(await signer.current_release_keys()):
                raise RefusedError("a release key is not ours", code="foreign_key")
            return "release"
        if payload_type == RELEASE_TYPE:
            manifest = msgspec.msgpack.decode(payload, type=ReleaseManifest)
            _require_frame(manifest.cluster_id, manifest.expires_at, signer, now)
            return "release"
        if payload_type == CHECKPOINT_TYPE:
            _require_present(parse_checkpoint(payload), signer, now)
            return "checkpoint"
    except (InvalidInputError, msgspec.MsgspecError, ValueError) as error:
        raise RefusedError(f"not what it is called: {error}", code="malformed") from error
    raise RefusedError(f"{payload_type[:80]} is not signed on request", code="wrong_type")


async def _require_own_trust(bundle: TrustBundle, signer: LocalSigner) -> None:
    # The bundle's own life is checked by its maker and every node; what matters here is what it makes them believe.
    if bundle.cluster_id != signer.cluster_id:
        raise RefusedError("the bundle is of another cluster", code="wrong_cluster")
    authorities = {info.der for info in (await signer.list_authorities()).trusted}
    if not set(bundle.ca_certificates) <= authorities:
        raise RefusedError("an authority of the bundle is not ours", code="foreign_key")
    ours = {key.kid: key for key in await signer.current_job_keys()}
    if not all(_is_within(key, ours.get(key.kid)) for key in bundle.job_keys):
        raise RefusedError("a job key of the bundle is not ours", code="foreign_key")


def _is_within(offered: JobKey, ours: JobKey | None) -> bool:
    return ours is not None and offered.public_key == ours.public_key and offered.expires_at <= ours.expires_at


def _require_present(checkpoint: Checkpoint, signer: LocalSigner, now: datetime) -> None:
    """A signature says "so it was at this moment": not for a moment that somebody chose."""
    if checkpoint.cluster_id != signer.cluster_id:
        raise RefusedError("the checkpoint is of another cluster", code="wrong_cluster")
    at = datetime.fromisoformat(checkpoint.at)
    if at.tzinfo is None:
        raise RefusedError("the checkpoint's time has no zone", code="malformed")
    if abs(at - now) > CLOCK_TOLERANCE:
        raise RefusedError("the checkpoint is of another moment", code="clock_skew", hint="Compare the clocks.")


def _require_frame(
    cluster_id: str, expires_at: float, signer: LocalSigner, now: datetime, *, life: timedelta = DOCUMENT_LIFE_MAX
) -> None:
    if cluster_id != signer.cluster_id:
        raise RefusedError("the document is of another cluster", code="wrong_cluster")
    if expires_at > (now + life).timestamp():
        raise RefusedError("the document would live too long", code="lives_too_long")
