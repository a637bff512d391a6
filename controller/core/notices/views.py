"""Notices as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from controller.core.notices.models import Notice, NoticeMail

IDS_MAX: Final = 200


class NoticeCopyView(msgspec.Struct, frozen=True, kw_only=True):
    """A mail that a notice is in."""

    address: str
    state: Annotated[str, Meta(description="pending, sent (the mail server took it) or dead.")]
    sent_at: datetime | None
    error: Annotated[
        str, Meta(description="Why it was not taken at the last attempt; empty: it was, or none was made.")
    ]


class NoticeView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that one was told of."""

    id: str
    kind: Annotated[str, Meta(examples=["limits"])]
    subject: Annotated[str, Meta(examples=["account/ID"], description="What it is about.")]
    title: str
    text: str
    is_security: Annotated[bool, Meta(description="Mailed whatever one prefers.")]
    happened_at: datetime
    read_at: datetime | None
    mails: Annotated[tuple[NoticeCopyView, ...], Meta(description="Empty: it is here alone.")]


class NoticePage(msgspec.Struct, frozen=True, kw_only=True):
    """Notices, newest first."""

    items: tuple[NoticeView, ...]
    next_cursor: str | None
    unread: Annotated[int, Meta(description="Of all, on whatever page.")]


class NoticeRead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which were read."""

    ids: Annotated[
        Annotated[tuple[str, ...], Meta(max_length=IDS_MAX)] | None, Meta(description="Null: all that there are.")
    ] = None


class NoticesRead(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    read: Annotated[int, Meta(description="How many were unread and are not any more.")]
    unread: Annotated[int, Meta(description="How many are left.")]


class NoticePreferenceView(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of notice, and whether one gets it by mail."""

    kind: str
    description: str
    is_security: Annotated[bool, Meta(description="Always mailed: nobody who is in your session can silence it.")]
    is_mailed: bool


class NoticePreferenceList(msgspec.Struct, frozen=True, kw_only=True):
    """Every kind that one may be told of."""

    items: tuple[NoticePreferenceView, ...]


class NoticePreferenceUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a kind is mailed; the inbox has it either way."""

    is_mailed: bool


class NoticeMailView(msgspec.Struct, frozen=True, kw_only=True):
    """A mail, and what became of it. What it says is its person's business."""

    id: str
    user_id: str
    kind: Annotated[str, Meta(description="Of its notices, or digest.")]
    address: str
    state: Annotated[str, Meta(description="pending, sent or dead.")]
    attempts: int
    error: str
    next_at: Annotated[datetime | None, Meta(description="When it is sent (again); null: never.")]
    give_up_at: datetime
    sent_at: datetime | None
    created_at: datetime


class NoticeMailPage(msgspec.Struct, frozen=True, kw_only=True):
    """Mails, newest first."""

    items: tuple[NoticeMailView, ...]
    next_cursor: str | None


def view_notice(row: Notice, mails: Sequence[NoticeMail], *, is_security: bool) -> NoticeView:
    """For its owner."""
    copies = tuple(
        NoticeCopyView(address=mail.address, state=mail.state.value, sent_at=mail.sent_at, error=mail.error)
        for mail in mails
    )
    return NoticeView(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        title=row.title,
        text=row.text,
        is_security=is_security,
        happened_at=row.happened_at,
        read_at=row.read_at,
        mails=copies,
    )


def view_mail(row: NoticeMail) -> NoticeMailView:
    """For administrators."""
    return NoticeMailView(
        id=row.id,
        user_id=row.user_id,
        kind=row.kind,
        address=row.address,
        state=row.state.value,
        attempts=row.attempts,
        error=row.error,
        next_at=row.next_at if row.state.value == "pending" else None,
        give_up_at=row.give_up_at,
        sent_at=row.sent_at,
        created_at=row.created_at,
    )
