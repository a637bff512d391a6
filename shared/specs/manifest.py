"""A manifest: everything that one node must hold for one account, or for itself, at one generation."""

from __future__ import annotations

import enum
import hashlib
from typing import Final

import msgspec

from shared.errors import InvalidInputError
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec
from shared.specs.ssh_access import SshAccessSpec
from shared.types.names import ResourceKey

AnySpec = ModuleSpec | AccountSpec | PhpPoolSpec | SiteSpec | SshAccessSpec
"""Every kind there is; a new kind is added here and nowhere else in shared/."""

NODE_SUBJECT: Final = "node"


class DriftPolicy(enum.Enum):
    """What a node does by itself when it finds that somebody changed what it keeps."""

    REPORT = "report"
    REPAIR = "repair"


class Suspension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an account does not serve now."""

    reason: str = ""
    """Shown to the administrator, never to visitors. At most 500 characters."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Desired state of one subject at one generation.

    The whole is sent each time. What an earlier generation had and this one does not have is taken away, except the
    keys in `held`, which stay exactly as they are.
    """

    subject: str
    """`account/NAME` for a tenant, or NODE_SUBJECT for the node itself."""
    generation: int
    """1 and up. A node refuses an older one, and the same one with another content."""
    presence: Presence = Presence.ENABLED
    """ABSENT removes the subject and all it has; DISABLED is a suspended account, honoured by every module."""
    suspension: Suspension | None = None
    specs: tuple[AnySpec, ...] = ()
    held: tuple[ResourceKey, ...] = ()
    """Parked resources: left as they are until somebody retries or discards them."""
    drift_policy: DriftPolicy = DriftPolicy.REPORT

    def __post_init__(self) -> None:
        if self.generation < 1:
            raise InvalidInputError("a generation is 1 or more", field="generation")
        keys = [spec.key for spec in self.specs]
        if len(set(keys)) != len(keys):
            raise InvalidInputError("two specs of a manifest have the same key", field="specs")


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """The same manifest always gives the same bytes (keys in a fixed order)."""
    return _ENCODER.encode(manifest)


def decode_manifest(raw: bytes) -> Manifest:
    """Decode and check a manifest.

    Raises:
        InvalidInputError: It is no valid manifest of this version.
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a manifest: {error}") from error


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 in hex of the encoded manifest: what "the same content" means."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()
