"""The signed envelope: DSSE with Ed25519 over opaque msgpack bytes.

The payload stays bytes from the signer to the executor; nobody re-encodes it, so what is verified is what is decoded.
Source: DSSE v1.0.2, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md; RFC 8032 (Ed25519).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from shared.errors import RefusedError

if TYPE_CHECKING:
    # The agent's link passes envelopes on unopened: it must not carry 9 MB of a library that it never calls.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

JOB_TYPE: Final = "application/vnd.wcp360.job.v1+msgpack"
TRUST_TYPE: Final = "application/vnd.wcp360.trust.v1+msgpack"

MAX_PAYLOAD_BYTES: Final = 4 * 1024 * 1024
MAX_SIGNATURES: Final = 8


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature over the pre-authentication encoding."""

    kid: str
    """Which key; only a hint, the key itself comes from the trust bundle."""
    sig: bytes
    """64 bytes of Ed25519."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload nobody has looked into yet, with its signatures."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return what is really signed: type and payload with their lengths, so that neither can be taken for the other.

    Source: DSSE protocol.md, "PAE".
    """
    type_bytes = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(type_bytes), type_bytes, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, keys: Mapping[str, Ed25519PrivateKey]) -> Envelope:
    """Sign a payload with each of the keys (key id to key)."""
    encoded = pre_authentication_encoding(payload_type, payload)
    signatures = tuple(Signature(kid=kid, sig=key.sign(encoded)) for kid, key in sorted(keys.items()))
    return Envelope(payload_type=payload_type, payload=payload, signatures=signatures)


def verify_envelope(
    envelope: Envelope, *, payload_type: str, keys: Mapping[str, Ed25519PublicKey]
) -> tuple[bytes, frozenset[str]]:
    """Return the payload and the ids of the keys that really signed it.

    Unknown key ids are passed over; one good signature is enough here (a quorum is the caller's rule).

    Raises:
        RefusedError: `too_large`, `wrong_type` or `bad_signature`.
    """
    if len(envelope.payload) > MAX_PAYLOAD_BYTES or len(envelope.signatures) > MAX_SIGNATURES:
        raise RefusedError("the envelope is too large", code="too_large")
    if envelope.payload_type != payload_type:
        raise RefusedError(f"expected {payload_type}, got {envelope.payload_type[:80]}", code="wrong_type")
    encoded = pre_authentication_encoding(payload_type, envelope.payload)
    good = {
        signature.kid
        for signature in envelope.signatures
        if signature.kid in keys and _is_signed_by(keys[signature.kid], signature.sig, encoded)
    }
    if not good:
        raise RefusedError("no signature of a key that this node trusts", code="bad_signature")
    return envelope.payload, frozenset(good)


def _is_signed_by(key: Ed25519PublicKey, signature: bytes, encoded: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see TYPE_CHECKING above

    try:
        key.verify(signature, encoded)
    except InvalidSignature:
        return False
    return True
