"""Tables of notices: the inboxes, the mails, and how far the audit log was read for them."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value

CURSOR_ID: Final = "cursor"


class MailState(enum.Enum):
    """Where a mail is."""

    PENDING = "pending"
    """To be sent, or to be sent again, at `next_at`."""
    SENT = "sent"
    """The mail server took it."""
    DEAD = "dead"
    """Refused for good, or nobody took it for days; an administrator may have it tried again."""


class Notice(Model):
    """One person is told of one event: an entry of their inbox."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("user_id", "source"),
        Index("ix_notices_user_id_id", "user_id", "id"),
        Index("ix_notices_user_id_read_at", "user_id", "read_at"),
        Index("ix_notices_created_at", "created_at"),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(40))
    """Of the catalogue (controller.core.notices.kinds)."""
    source: Mapped[str] = mapped_column(String(100))
    """`audit/NUMBER` of the entry that it tells of, or a name of its own."""
    subject: Mapped[str] = mapped_column(String(100))
    """noun/ID of what it is about."""
    title: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    happened_at: Mapped[datetime]
    read_at: Mapped[datetime | None]


class NoticeMail(Model):
    """A mail with one or several notices of one person; its words are made when it is sent."""

    __tablename__ = "notice_mails"
    __table_args__ = (
        Index("ix_notice_mails_state_next_at", "state", "next_at"),
        Index("ix_notice_mails_user_id_kind_due_at", "user_id", "kind", "due_at"),
        Index("ix_notice_mails_user_id_sent_at", "user_id", "sent_at"),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(40))
    """Of its notices, or `digest`."""
    address: Mapped[str] = mapped_column(String(254))
    state: Mapped[MailState] = mapped_column(by_value(MailState), default=MailState.PENDING)
    due_at: Mapped[datetime]
    """When it was to be sent at first; the window of its kind counts from here."""
    next_at: Mapped[datetime]
    give_up_at: Mapped[datetime]
    claimed_until: Mapped[datetime | None]
    """Somebody sends it now; whoever died meanwhile has lost it by then."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Nothing is added to a mail after the first."""
    error: Mapped[str] = mapped_column(String(500), default="")
    sent_at: Mapped[datetime | None]


class NoticeMailItem(Model):
    """This notice is in that mail. A change of address is in two: the old one is told as well."""

    __tablename__ = "notice_mail_items"
    __table_args__ = (UniqueConstraint("mail_id", "notice_id"),)

    mail_id: Mapped[str] = mapped_column(ForeignKey("notice_mails.id", ondelete="CASCADE"), index=True)
    notice_id: Mapped[str] = mapped_column(ForeignKey("notices.id", ondelete="CASCADE"), index=True)


class NoticePreference(Model):
    """Somebody wants no mail of this kind, or wants it again. Without a row: mail."""

    __tablename__ = "notice_preferences"
    __table_args__ = (UniqueConstraint("user_id", "kind"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(40))
    is_mailed: Mapped[bool]


class NoticeCursor(Model):
    """How far the audit log was read; one row."""

    __tablename__ = "notice_cursors"

    number: Mapped[int] = mapped_column(BigInteger)


class NoticedItem(Model):
    """Administrators were told of this item of what needs attention; the row goes when the item does."""

    __tablename__ = "noticed_items"

    item_id: Mapped[str] = mapped_column(String(200), unique=True)
    severity: Mapped[str] = mapped_column(String(16))
