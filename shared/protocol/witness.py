"""Signed ends of the audit log, shown to nodes, and what they say of them."""

from __future__ import annotations

from shared.protocol.frame import Frame


class ShowCheckpoint(Frame, frozen=True, kw_only=True, tag="checkpoint"):
    """The audit log's newest signed end. Only for an agent whose hello says `can_witness`."""

    payload: str
    """What the controller's root key signed, byte for byte (shared.audit_proof.Checkpoint)."""
    kid: str
    signature: str
    """base64."""
    wants_signature: bool = True
    """False: only remember it; enough other nodes sign this one."""


class CheckpointSeen(Frame, frozen=True, kw_only=True, tag="checkpoint_seen"):
    """The node's answer: it has noted the end of the log, or refuses it because it contradicts what it was shown."""

    number: int
    hash: str
    """As shown."""
    statement: str = ""
    """What the node signed (shared.audit_witness.Statement); empty when it did not."""
    signature: str = ""
    """ECDSA with SHA-256 by the key of the node's certificate, base64."""
    fingerprint: str = ""
    """SHA-256 in hex of that certificate."""
    refusal: str = ""
    """Why it refuses, a code: `checkpoint_fork` or `checkpoint_behind`; empty when it does not."""
    known: str = ""
    """With a refusal: the payload that it was shown before."""
