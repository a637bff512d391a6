"""Tables of the fleet."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value
from shared.protocol.enrolment import EnrolmentState
from shared.specs.account import MIN_TENANT_UID
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy


class NodeState(enum.Enum):
    """Whether a node may connect."""

    PENDING = "pending"
    """Enrolled with manual approval, and nobody has approved it yet."""
    ACTIVE = "active"
    REVOKED = "revoked"
    """Its certificates are worthless; what it serves goes on."""
    QUARANTINED = "quarantined"
    """Two machines use its identity; neither may connect until somebody has looked. Its jobs wait."""


KEEPS_JOBS: Final = frozenset({NodeState.ACTIVE, NodeState.QUARANTINED})
"""Jobs of these nodes are signed and wait; those of the others are put aside."""


class ApprovalMode(enum.Enum):
    """What happens when a machine shows a token."""

    AUTO = "auto"
    MANUAL = "manual"
    """An administrator compares six words first."""
    PRESTAGED = "prestaged"
    """The machine's certificate request is known beforehand, by its hash."""


class Node(Model):
    """One machine. What we want, what it said, and what we saw are separate columns."""

    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(String(100), unique=True)
    state: Mapped[NodeState] = mapped_column(by_value(NodeState), default=NodeState.PENDING)
    roles: Mapped[list[str]] = mapped_column(JSON, default=list)
    labels: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    is_cordoned: Mapped[bool] = mapped_column(default=False)
    """True: placement passes it by."""
    drift_policy: Mapped[DriftPolicy] = mapped_column(by_value(DriftPolicy), default=DriftPolicy.REPORT)
    node_gen: Mapped[int] = mapped_column(default=1)
    """Grows with each enrolment of the machine; jobs of an earlier one are refused by it."""
    next_uid: Mapped[int] = mapped_column(default=MIN_TENANT_UID)
    desired_generation: Mapped[int] = mapped_column(default=0)
    """Of the node's own manifest (subject `node`)."""

    machine_id_hash: Mapped[str] = mapped_column(String(64), index=True)
    sealing_public_key: Mapped[bytes] = mapped_column(LargeBinary)
    facts: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """As enrolled: os, os_version, architecture, cpus, memory_bytes, disk_bytes, addresses."""

    observed_generation: Mapped[int] = mapped_column(default=0)
    observed_status: Mapped[str] = mapped_column(String(16), default="unknown")
    """unknown, ok, parked or failed: the outcome of the last manifest."""
    observed_at: Mapped[datetime | None]
    boot_id: Mapped[str] = mapped_column(String(64), default="")
    journal_epoch: Mapped[str] = mapped_column(String(64), default="")
    capability: Mapped[int] = mapped_column(default=0)
    agent_version: Mapped[str] = mapped_column(String(32), default="")
    agent_build: Mapped[str] = mapped_column(String(64), default="")
    """Empty for agents before capability 2."""
    bundle_version: Mapped[int] = mapped_column(default=0)
    modules_available: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)

    session_epoch: Mapped[int] = mapped_column(default=0)
    """Grows with each session; a write of an older session changes nothing."""
    gateway_id: Mapped[str | None] = mapped_column(String(36))
    is_connected: Mapped[bool] = mapped_column(default=False)
    connected_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    recent_machines: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """Who said hello in the last minutes (controller/fleet/gateway/quarantine.py)."""
    quarantined_at: Mapped[datetime | None]
    quarantine_reason: Mapped[str] = mapped_column(String(500), default="")


class Heartbeat(Model):
    """When a node was last heard; `id` is the node's. Narrow and apart, because it is written all the time."""

    __tablename__ = "node_heartbeats"

    at: Mapped[datetime]


class NodeModule(Model):
    """How much of a module a node shall have, and what became of it."""

    __tablename__ = "node_modules"
    __table_args__ = (UniqueConstraint("node_id", "name"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(31))
    presence: Mapped[Presence] = mapped_column(by_value(Presence))
    settings: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    desired_generation: Mapped[int] = mapped_column(default=0)
    """Generation of the node's manifest that last changed this module."""
    observed_generation: Mapped[int] = mapped_column(default=0)
    observed_status: Mapped[str] = mapped_column(String(16), default="unknown")
    """unknown, absent, disabled, enabled or parked."""
    observed_note: Mapped[str] = mapped_column(Text, default="")
    observed_at: Mapped[datetime | None]


class NodeCertificate(Model):
    """A certificate that we issued; the gateway admits only these."""

    __tablename__ = "node_certificates"

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    serial: Mapped[str] = mapped_column(String(40), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    issuer: Mapped[str] = mapped_column(String(40), default="ca")
    """Id of the authority (controller/fleet/identity/authorities.py)."""
    pem: Mapped[str] = mapped_column(Text)
    not_after: Mapped[datetime]
    used_at: Mapped[datetime | None]
    """When a session began with it last. None: its node may not even have it (a lost answer)."""
    revoked_at: Mapped[datetime | None]


class EnrolmentTokenRow(Model):
    """A token that an administrator made; `id` is not the token's own id, which is public in every use of it."""

    __tablename__ = "enrolment_tokens"

    token_id: Mapped[str] = mapped_column(String(16), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 in hex."""
    name: Mapped[str] = mapped_column(String(100), default="")
    """The node's name, when the administrator chose one."""
    approval: Mapped[ApprovalMode] = mapped_column(by_value(ApprovalMode))
    csr_hash: Mapped[str] = mapped_column(String(64), default="")
    """PRESTAGED: SHA-256 in hex of the only request that may use it."""
    roles: Mapped[list[str]] = mapped_column(JSON, default=list)
    allowed_networks: Mapped[list[str]] = mapped_column(JSON, default=list)
    """CIDR; empty allows every address."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)


class Enrolment(Model):
    """One machine's request to become a node."""

    __tablename__ = "enrolments"

    csr_hash: Mapped[str] = mapped_column(String(64), unique=True)
    csr_pem: Mapped[str] = mapped_column(Text)
    token_id: Mapped[str] = mapped_column(String(16), index=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    state: Mapped[EnrolmentState] = mapped_column(by_value(EnrolmentState))
    fingerprint_words: Mapped[str] = mapped_column(String(100))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What takes effect with the approval: machine_id_hash, sealing_public_key (hex), hostname, facts, ..."""
    address: Mapped[str] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]


class TrustBundleRow(Model):
    """A signed trust bundle; nodes take only a higher version than they have."""

    __tablename__ = "trust_bundles"

    version: Mapped[int] = mapped_column(unique=True)
    content_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 in hex of certificates and keys, without version and times."""
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    """msgpack of the signed Envelope."""
    expires_at: Mapped[datetime]


class DriftFindingRow(Model):
    """One resource of a node that is not as it was applied; gone when a later check finds it in order."""

    __tablename__ = "drift_findings"
    __table_args__ = (UniqueConstraint("node_id", "subject", "key"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    subject: Mapped[str] = mapped_column(String(200), index=True)
    key: Mapped[str] = mapped_column(String(300))
    summary: Mapped[str] = mapped_column(Text)
    diff: Mapped[str] = mapped_column(Text, default="")
    is_repaired: Mapped[bool] = mapped_column(default=False)
    """True: the node put it right by itself, by policy."""
    found_at: Mapped[datetime]
    checked_at: Mapped[datetime]
    ignored_until: Mapped[datetime | None]
    """Until then nobody is told of it, as long as it stays what it is. None: nobody ignores it."""
    ignored_by: Mapped[str] = mapped_column(String(200), default="")
    ignore_reason: Mapped[str] = mapped_column(Text, default="")

    def is_ignored(self, now: datetime) -> bool:
        """Whether somebody decided to live with it for now."""
        return self.ignored_until is not None and self.ignored_until > now

    def forget_decision(self) -> None:
        """It is open again."""
        self.ignored_until, self.ignored_by, self.ignore_reason = None, "", ""


class DriftCheck(Model):
    """When a node's subjects were last compared; `id` is the node's."""

    __tablename__ = "drift_checks"

    checked_at: Mapped[datetime]
    findings: Mapped[int] = mapped_column(BigInteger, default=0)
