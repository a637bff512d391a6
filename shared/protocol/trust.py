"""The trust bundle: which certificates and job-signing keys a node believes, signed by the pinned root key.

It replaces re-enrolment when a key changes: a node takes only a bundle with a higher version. (The idea is TUF's root
metadata, https://theupdateframework.github.io/specification/latest/.)
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shared.errors import InvalidInputError, RefusedError
from shared.protocol.envelope import TRUST_TYPE, Envelope, verify_envelope


class JobKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that may sign jobs. Times are seconds since the epoch, UTC."""

    kid: str
    public_key: bytes
    """32 bytes of Ed25519."""
    not_before: float
    expires_at: float
    actions: tuple[str, ...] = ("*",)
    """Actions that it may sign: exact, `module.*`, or `*`."""


class TrustBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node trusts, as a whole."""

    cluster_id: str
    version: int
    """Only ever grows."""
    issued_at: float
    expires_at: float
    ca_certificates: tuple[bytes, ...]
    """DER; every certificate authority the node accepts for the controller."""
    job_keys: tuple[JobKey, ...]
    revoked_kids: tuple[str, ...] = ()
    min_capability: int = 1

    def active_job_keys(self, now: float) -> dict[str, JobKey]:
        """Key id to key, for the keys that may sign at this moment."""
        return {
            key.kid: key
            for key in self.job_keys
            if key.kid not in self.revoked_kids and key.not_before <= now <= key.expires_at
        }


def is_action_allowed(key: JobKey, action: str) -> bool:
    """Whether the key's scope covers the action `module.verb@version`."""
    module = action.partition(".")[0]
    return any(pattern in ("*", action, f"{module}.*") for pattern in key.actions)


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(TrustBundle)


def encode_trust_bundle(bundle: TrustBundle) -> bytes:
    """Encode for signing."""
    return _ENCODER.encode(bundle)


def open_trust_bundle(envelope: Envelope, *, root_keys: Mapping[str, Ed25519PublicKey]) -> TrustBundle:
    """Verify with the pinned root keys, then decode.

    Raises:
        RefusedError: The signature is not of a root key.
        InvalidInputError: The content is no bundle.
    """
    payload, _ = verify_envelope(envelope, payload_type=TRUST_TYPE, keys=root_keys)
    return decode_trust_bundle(payload)


def decode_trust_bundle(payload: bytes) -> TrustBundle:
    """Decode what was verified, or what one signed oneself.

    Raises:
        InvalidInputError: The content is no bundle.
    """
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a trust bundle: {error}") from error


def require_newer(current: TrustBundle | None, offered: TrustBundle, *, now: float) -> TrustBundle:
    """Return the offered bundle if the node may take it.

    Raises:
        RefusedError: `wrong_cluster`, `stale_bundle` or `expired_bundle`.
    """
    if current is not None and offered.cluster_id != current.cluster_id:
        raise RefusedError("the bundle is of another cluster", code="wrong_cluster")
    if current is not None and offered.version <= current.version:
        raise RefusedError(f"bundle {offered.version} is not newer than {current.version}", code="stale_bundle")
    if offered.expires_at <= now:
        raise RefusedError("the bundle has expired", code="expired_bundle")
    return offered
