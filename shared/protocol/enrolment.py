"""How a machine becomes a node: the token that an administrator pastes, and the two messages (JSON over HTTPS)."""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from shared.errors import InvalidInputError

TOKEN_PREFIX: Final = "e1"  # noqa: S105 - the format's version, no secret
_TOKEN = re.compile(r"e1\.([0-9a-f]{16})\.([0-9a-f]{64})\.([0-9a-f]{64})(?:\.([0-9a-f]{64}))?")


class EnrolmentToken(msgspec.Struct, frozen=True, kw_only=True):
    """`e1.<id>.<secret>.<sha256 of the CA's SPKI>[.<second pin while rotating>]`, all hex."""

    token_id: str
    secret: str
    ca_pins: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((TOKEN_PREFIX, self.token_id, self.secret, *self.ca_pins))


def parse_enrolment_token(raw: str) -> EnrolmentToken:
    """Read a token as it was pasted.

    Raises:
        InvalidInputError: It was cut or is no token at all.
    """
    match = _TOKEN.fullmatch(raw.strip())
    if match is None:
        raise InvalidInputError(
            "this is not an enrolment token", hint="Copy the whole line that the controller printed.", field="token"
        )
    token_id, secret, *pins = match.groups()
    return EnrolmentToken(token_id=token_id, secret=secret, ca_pins=tuple(pin for pin in pins if pin))


class EnrolmentState(enum.Enum):
    """Where an enrolment stands."""

    PENDING = "pending"
    """Waits for an administrator; ask again."""
    APPROVED = "approved"
    REJECTED = "rejected"


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/enrol. The same CSR may ask again and gets the same answer (lost replies, waiting for approval)."""

    token: str
    csr_pem: str
    """PKCS#10, P-256. Only its public key is used; names are the controller's."""
    sealing_public_key: bytes
    """32 bytes of X25519: what secrets for this node are sealed to."""
    machine_id_hash: str
    """SHA-256 in hex of /etc/machine-id."""
    hostname: str
    capability: int
    agent_version: str
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    """os, os_version, architecture, cpus, memory_bytes, disk_bytes, addresses."""


class EnrolmentReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the node learns. Everything after `state` is filled only when approved."""

    state: EnrolmentState
    fingerprint_words: str
    """Six words of the CSR: the administrator compares them before approving."""
    retry_after_seconds: float = 5.0
    node_id: str = ""
    node_name: str = ""
    node_gen: int = 0
    cluster_id: str = ""
    certificate_pem: str = ""
    ca_pem: str = ""
    root_key_id: str = ""
    root_public_key: bytes = b""
    """Ed25519, pinned by the executor for ever; it signs trust bundles."""
    trust_bundle: bytes = b""
    """msgpack of the signed Envelope."""
    gateway_url: str = ""
    """wss://host:port/agent/v1"""
