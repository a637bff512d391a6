"""Releases of the agent: what a release key signs, and how a node's link hands one to its updater.

The chain is short: the root key that a node pinned at enrolment signs the release keys, a release key signs a manifest,
the manifest names the bundle by its hash. None of it is part of the trust bundle, so that agents which know nothing of
releases go on reading that one (docs/adr/0018-release-keys-apart.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from shared.errors import InvalidInputError, RefusedError
from shared.protocol.envelope import Envelope, verify_envelope

if TYPE_CHECKING:
    # As in envelope.py: the agent's link passes these on unopened.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RELEASE_TYPE: Final = "application/vnd.wcp360.release.v1+msgpack"
RELEASE_KEYS_TYPE: Final = "application/vnd.wcp360.release-keys.v1+msgpack"
MAX_BUNDLE_BYTES: Final = 256 * 1024 * 1024
"""Ten times what a bundle has; a manifest that says more is not believed."""

BuildId = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,62}$")]
"""`VERSION-HASH`; the name of a folder on each node, so nothing that leads out of it."""
_VERSION: Final = re.compile(r"^(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:(a|b|rc)(\d{1,6}))?$", re.ASCII)
_STAGES: Final[Mapping[str | None, int]] = {"a": 0, "b": 1, "rc": 2, None: 3}


def parse_version(text: str) -> tuple[int, int, int, int, int]:
    """Order of versions `1.2.3`, `1.2.3rc1`: a candidate comes before what it became.

    Source: PEP 440, the part of it that this product uses.

    Raises:
        InvalidInputError: It is none of these.
    """
    found = _VERSION.match(text)
    if found is None:
        raise InvalidInputError(f"{text[:40]!r} is not a version such as 1.2.3 or 1.2.3rc1", field="version")
    return int(found[1]), int(found[2]), int(found[3]), _STAGES[found[4]], int(found[5] or 0)


class ReleaseKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that may sign releases. Times are seconds since the epoch, UTC."""

    kid: str
    public_key: bytes
    """32 bytes of Ed25519."""
    not_before: float
    expires_at: float


class ReleaseKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which keys may sign releases; signed by the root key."""

    cluster_id: str
    version: int
    """Only ever grows; a node takes none that is lower than one it has seen."""
    issued_at: float
    expires_at: float
    keys: tuple[ReleaseKey, ...]


class ReleaseManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bundle of the agent; signed by a release key."""

    cluster_id: str
    number: Annotated[int, Meta(ge=1)]
    """Counts the cluster's releases. It only ever grows: what is older than what a node has is refused."""
    version: str
    build: BuildId
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    """Of the bundle's bytes."""
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_BUNDLE_BYTES)]
    capability: Annotated[int, Meta(ge=1)]
    architecture: str
    """As uname -m says it."""
    min_from: str
    """Lowest version that may be updated to this one in one step."""
    issued_at: float
    expires_at: float
    """Past it nobody takes the manifest any more, so that a node cannot be held at an old release for ever."""


class SignedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest with all that is needed to believe it."""

    keys: Envelope
    manifest: Envelope


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_KEYS_DECODER = msgspec.msgpack.Decoder(ReleaseKeys)
_MANIFEST_DECODER = msgspec.msgpack.Decoder(ReleaseManifest)


def encode_release_document(document: ReleaseKeys | ReleaseManifest) -> bytes:
    """Encode for signing."""
    return _ENCODER.encode(document)


def peek_release(envelope: Envelope) -> ReleaseManifest:
    """What a manifest says, unverified: good for a download, never for a decision.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        return _MANIFEST_DECODER.decode(envelope.payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a release: {error}") from error


def open_release_keys(
    envelope: Envelope, *, root_keys: Mapping[str, Ed25519PublicKey], cluster_id: str, now: float
) -> ReleaseKeys:
    """Verify the list of release keys with the pinned root keys.

    Raises:
        RefusedError: `bad_signature`, `wrong_type`, `too_large`, `wrong_cluster` or `release_expired`.
        InvalidInputError: The content is no such list.
    """
    payload, _ = verify_envelope(envelope, payload_type=RELEASE_KEYS_TYPE, keys=root_keys)
    try:
        keys = _KEYS_DECODER.decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a list of release keys: {error}") from error
    _require_cluster(keys.cluster_id, cluster_id)
    if keys.expires_at <= now:
        raise RefusedError("the list of release keys has expired", code="release_expired")
    return keys


def open_release(envelope: Envelope, *, keys: ReleaseKeys, now: float) -> ReleaseManifest:
    """Verify a manifest with the release keys in force.

    Raises:
        RefusedError: `bad_signature`, `wrong_type`, `too_large`, `wrong_cluster` or `release_expired`.
        InvalidInputError: The content is no manifest, or a key of the list is none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - see TYPE_CHECKING above
        Ed25519PublicKey,
    )

    try:
        trusted = {
            key.kid: Ed25519PublicKey.from_public_bytes(key.public_key)
            for key in keys.keys
            if key.not_before <= now <= key.expires_at
        }
    except ValueError as error:
        raise InvalidInputError("a release key is no Ed25519 key") from error
    payload, _ = verify_envelope(envelope, payload_type=RELEASE_TYPE, keys=trusted)
    try:
        manifest = _MANIFEST_DECODER.decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a release: {error}") from error
    _require_cluster(manifest.cluster_id, keys.cluster_id)
    if manifest.expires_at <= now:
        raise RefusedError("the release's manifest has expired", code="release_expired")
    parse_version(manifest.version)
    parse_version(manifest.min_from)
    return manifest


def _require_cluster(said: str, ours: str) -> None:
    if said != ours:
        raise RefusedError("the release is of another cluster", code="wrong_cluster")
