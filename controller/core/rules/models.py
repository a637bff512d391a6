"""Tables of rules: the rules, and what they did for which event."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value

PLATFORM: Final = "platform"


class RunState(enum.Enum):
    """What became of one event that a rule was made for."""

    PENDING = "pending"
    """To be done, or to be tried again at `next_at`."""
    DONE = "done"
    SKIPPED = "skipped"
    """Nothing was to be done, or the rule was paused or switched off by then."""
    STOPPED = "stopped"
    """Rules had caused the event, one after the other: the chain ends here."""
    FAILED = "failed"


class Rule(Model):
    """When this happens, and that holds, do so."""

    __tablename__ = "rules"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    name: Mapped[str] = mapped_column(String(40))
    """Unique with its owner; the audit log calls the rule `rule/NAME`."""
    owner: Mapped[str] = mapped_column(String(50), index=True)
    """`platform` or `reseller/ID`: whose events it follows."""
    description: Mapped[str] = mapped_column(String(500), default="")
    events: Mapped[list[str]] = mapped_column(JSON)
    """Names, `noun.*`, or `*`."""
    conditions: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """controller.core.rules.conditions.Condition, as plain values; all must hold."""
    action: Mapped[dict[str, Any]] = mapped_column(JSON)
    """controller.core.rules.views.RuleAction, as plain values."""
    is_enabled: Mapped[bool] = mapped_column(default=True)
    runs_per_hour: Mapped[int]
    """More than these, and it is paused."""
    maker_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    """Who answers for it: who made it, or changed it last; None: they are gone."""
    maker_name: Mapped[str] = mapped_column(String(200))
    grants: Mapped[list[str]] = mapped_column(JSON)
    """Permissions that the maker (or the token they used) had then; the rule has never more."""
    paused_at: Mapped[datetime | None]
    pause_reason: Mapped[str] = mapped_column(String(300), default="")


class RuleRun(Model):
    """What one rule did for one event."""

    __tablename__ = "rule_runs"
    __table_args__ = (
        UniqueConstraint("rule_id", "event_id"),
        Index("ix_rule_runs_state_next_at", "state", "next_at"),
        Index("ix_rule_runs_rule_id_id", "rule_id", "id"),
    )

    rule_id: Mapped[str] = mapped_column(ForeignKey("rules.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(36))
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    """Of a tenant's rule: shown only while this account is the tenant's."""
    client_id: Mapped[str | None] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    event: Mapped[str] = mapped_column(String(100))
    subject: Mapped[str] = mapped_column(String(100))
    """noun/ID."""
    target_account_id: Mapped[str | None] = mapped_column(String(36))
    """The account that the event is about; actions on accounts act on it."""
    data: Mapped[str] = mapped_column(Text)
    """What the event said, as JSON: exactly what the conditions were asked about."""
    depth: Mapped[int] = mapped_column(default=0)
    """How many rules, one after the other, led to the event."""
    is_counted: Mapped[bool] = mapped_column(default=True)
    """Against the rule's rate; not what was before somebody let it act again."""
    state: Mapped[RunState] = mapped_column(by_value(RunState), default=RunState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    outcome: Mapped[str] = mapped_column(String(500), default="")
    """In words: what was done, or why nothing."""
    error_code: Mapped[str] = mapped_column(String(64), default="")
    finished_at: Mapped[datetime | None]
