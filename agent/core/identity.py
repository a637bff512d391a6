"""Who this node is and whom it believes: two small files that only root can write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.core import faults
from shared.errors import FactError, InvalidInputError, RefusedError
from shared.protocol.envelope import Envelope
from shared.protocol.trust import TrustBundle, open_trust_bundle, require_newer

IDENTITY_FILE: Final = "identity.json"
TRUST_FILE: Final = "trust.bundle"


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of identity.json, written once at enrolment."""

    cluster_id: str
    node_id: str
    node_gen: int
    root_keys: dict[str, bytes]
    """Key id to 32 bytes of Ed25519 (base64 in the file): pinned at enrolment, they sign trust bundles."""

    def public_root_keys(self) -> dict[str, Ed25519PublicKey]:
        """The pinned keys, ready to verify with.

        Raises:
            InvalidInputError: One of them is no Ed25519 key.
        """
        try:
            return {kid: Ed25519PublicKey.from_public_bytes(raw) for kid, raw in self.root_keys.items()}
        except ValueError as error:
            raise InvalidInputError("a pinned root key is no Ed25519 key", field="root_keys") from error


def load_identity(state_dir: Path) -> Identity | None:
    """Read identity.json; None when the node was never enrolled.

    Raises:
        FactError: The file is there and makes no sense.
    """
    path = state_dir / IDENTITY_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise FactError(f"{path} cannot be read", hint="Enrol the node again.") from error


def save_identity(state_dir: Path, identity: Identity) -> None:
    """Write identity.json, whole or not at all."""
    write_atomically(state_dir / IDENTITY_FILE, msgspec.json.format(msgspec.json.encode(identity)))


class TrustStore:
    """The bundle this node believes, in memory and on disk."""

    def __init__(self, state_dir: Path, root_keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._path = state_dir / TRUST_FILE
        self._root_keys = dict(root_keys)
        self.bundle: TrustBundle | None = self._load()

    def _load(self) -> TrustBundle | None:
        """The stored bundle, verified anew: a file that was tampered with is as good as none."""
        try:
            envelope = msgspec.msgpack.decode(self._path.read_bytes(), type=Envelope)
            return open_trust_bundle(envelope, root_keys=self._root_keys)
        except (OSError, msgspec.MsgspecError, RefusedError, InvalidInputError):
            return None

    @property
    def ca_certificates(self) -> tuple[bytes, ...]:
        """DER of the authorities that this node believes; none without a bundle."""
        return () if self.bundle is None else self.bundle.ca_certificates

    def require_valid(self, envelope: Envelope, *, now: float) -> TrustBundle:
        """Judge an offered bundle without taking it.

        Raises:
            RefusedError: It is not signed by a root key, not newer, expired, or of another cluster.
            InvalidInputError: It is no bundle.
        """
        offered = open_trust_bundle(envelope, root_keys=self._root_keys)
        return require_newer(self.bundle, offered, now=now)

    def take(self, envelope: Envelope, *, now: float) -> TrustBundle:
        """Believe an offered bundle from now on, also after a restart. Raises like `require_valid`."""
        bundle = self.require_valid(envelope, now=now)
        write_atomically(self._path, msgspec.msgpack.encode(envelope))
        self.bundle = bundle
        return bundle


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file of our own state: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.new")
    faults.at("trust.before_write")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as stream:
        # Not os.write: on a disk that is nearly full it writes a part and calls that a success.
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    faults.at("trust.before_rename")
    temporary.rename(path)
    faults.at("trust.after_rename")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    faults.at("trust.after_sync")
