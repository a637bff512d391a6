"""Tables of the agent's releases and of changes that go over the fleet in waves."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value


class Release(Model):
    """A bundle of the agent that nodes may be updated to."""

    __tablename__ = "releases"

    number: Mapped[int] = mapped_column(unique=True)
    """Counts the releases of this fleet; nodes never go back to a lower one."""
    version: Mapped[str] = mapped_column(String(32))
    build: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    capability: Mapped[int]
    architecture: Mapped[str] = mapped_column(String(16))
    min_from: Mapped[str] = mapped_column(String(32))
    note: Mapped[str] = mapped_column(Text, default="")
    keys_version: Mapped[int] = mapped_column(BigInteger)
    """Of the list of release keys in `signed`."""
    signed: Mapped[bytes] = mapped_column(LargeBinary)
    """msgpack of the SignedRelease."""
    signed_until: Mapped[datetime]
    """When its manifest expires; signed anew long before."""


class RolloutKind(enum.Enum):
    """What goes over the fleet."""

    AGENT_UPDATE = "agent_update"
    MODULE_SETTINGS = "module_settings"


class RolloutState(enum.Enum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    """Somebody stopped it for now; what was begun on a node ends there."""
    HALTED = "halted"
    """It stopped itself: too many nodes failed."""
    FINISHED = "finished"
    ABORTED = "aborted"

    @property
    def is_final(self) -> bool:
        """Nothing follows."""
        return self in (RolloutState.FINISHED, RolloutState.ABORTED)


class RolloutNodeState(enum.Enum):
    """Where one node of a rollout stands."""

    WAITING = "waiting"
    """Its wave has not come, or it is away, cordoned or in maintenance; `note` says which."""
    SENT = "sent"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not get the change: nothing to do, revoked, or away until the deadline."""


class InWaves:
    """Columns of whatever goes over many things wave by wave: nodes here, accounts in controller.core.packages."""

    state: Mapped[RolloutState] = mapped_column(by_value(RolloutState), default=RolloutState.RUNNING, index=True)
    waves: Mapped[list[str]] = mapped_column(JSON)
    """As ordered: numbers or shares such as 5%, each counted from the first one on."""
    wave: Mapped[int] = mapped_column(default=0)
    """Index of the wave that is under way."""
    healthy_since: Mapped[datetime | None]
    """Since when every one so far is well; None while one is not."""
    soak_seconds: Mapped[int]
    max_failures: Mapped[int]
    failures_forgiven: Mapped[int] = mapped_column(default=0)
    """Failures that somebody has seen and went on with."""
    deadline_at: Mapped[datetime]
    """Until then those that were away are picked up when they come back."""
    blocked_by: Mapped[str] = mapped_column(Text, default="")
    """What it waits for, in a sentence."""
    finished_at: Mapped[datetime | None]


class InWave:
    """Columns of one of those that a change in waves reaches."""

    wave: Mapped[int]
    state: Mapped[RolloutNodeState] = mapped_column(by_value(RolloutNodeState), default=RolloutNodeState.WAITING)
    note: Mapped[str] = mapped_column(Text, default="")
    error_code: Mapped[str | None] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(36))
    """Of a manifest that was sent."""
    sent_at: Mapped[datetime | None]
    lost_at: Mapped[datetime | None]
    """Since when the node of one that succeeded is not connected."""
    finished_at: Mapped[datetime | None]


class Rollout(InWaves, Model):
    """One change that goes over the fleet, wave by wave."""

    __tablename__ = "rollouts"

    kind: Mapped[RolloutKind] = mapped_column(by_value(RolloutKind))
    name: Mapped[str] = mapped_column(String(100), default="")
    release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.id", ondelete="RESTRICT"), index=True)
    change: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Of module_settings: module, presence, settings (None keeps them)."""
    node_timeout_seconds: Mapped[int]
    actor: Mapped[str] = mapped_column(String(80))
    request_id: Mapped[str] = mapped_column(String(64), default="")


class RolloutNode(InWave, Model):
    """One node of a rollout."""

    __tablename__ = "rollout_nodes"
    __table_args__ = (
        UniqueConstraint("rollout_id", "node_id"),
        Index("ix_rollout_nodes_state_node_id", "state", "node_id"),
    )

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id", ondelete="CASCADE"), index=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    attempt_id: Mapped[str | None] = mapped_column(String(36), index=True)
    """Of an update that was asked for."""
    before: Mapped[str] = mapped_column(Text, default="")
    """What the node had: a build, or a module's presence and settings."""
    offered_epoch: Mapped[int | None]
    """Session in which the update was offered last."""
