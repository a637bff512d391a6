"""Which mail a notice goes into, and what such a mail says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from textwrap import shorten
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.mail.message import Mail
from controller.core.notices.audience import Face
from controller.core.notices.kinds import DIGEST, KIND_BY_NAME, NoticeKind, is_security, plan_due
from controller.core.notices.models import MailState, Notice, NoticeMail, NoticeMailItem
from controller.core.notices.words import one_line
from controller.db.base import new_id

SHOWN_MAX: Final = 30
"""Notices that one mail spells out; of the others it says how many there are."""
SUBJECT_MAX: Final = 69
"""With its name a line of 78 characters (RFC 5322 section 2.1.1): one that is folded begins with a blank at readers."""
OUR_NAME: Final = "WCP360"


async def add_to_mail(
    session: AsyncSession, notice: Notice, kind: NoticeKind, address: str, *, now: datetime, give_up_after: timedelta
) -> datetime:
    """Put the notice into the mail of its kind that waits, or into a new one; when that is due."""
    row = await _find_open(session, notice.user_id, kind, address)
    if row is None:
        of_kind = (NoticeMail.user_id == notice.user_id, NoticeMail.kind == kind.name, NoticeMail.address == address)
        last = await session.scalar(select(func.max(NoticeMail.due_at)).where(*of_kind))
        due = plan_due(kind, now=now, last_due_at=last)
        row = NoticeMail(
            id=new_id(),
            user_id=notice.user_id,
            kind=kind.name,
            address=address,
            due_at=due,
            next_at=due,
            give_up_at=due + give_up_after,
            attempts=0,
        )
        session.add(row)
    session.add(NoticeMailItem(mail_id=row.id, notice_id=notice.id))
    await session.flush()
    return row.next_at


async def merge_others(session: AsyncSession, row: NoticeMail) -> None:
    """Make a digest of this mail and all others of its person that wait and are not about security."""
    others = [
        other
        for other in await session.scalars(
            select(NoticeMail)
            .where(
                NoticeMail.user_id == row.user_id,
                NoticeMail.address == row.address,
                NoticeMail.state == MailState.PENDING,
                NoticeMail.attempts == 0,
                NoticeMail.id != row.id,
            )
            .with_for_update()
        )
        if not is_security(other.kind)
    ]
    for other in others:
        moved = update(NoticeMailItem).where(NoticeMailItem.mail_id == other.id).values(mail_id=row.id)
        await session.execute(moved, execution_options={"synchronize_session": False})
        await session.delete(other)
    row.kind = DIGEST
    await session.flush()


async def list_notices_of(session: AsyncSession, mail_id: str) -> Sequence[Notice]:
    """What the mail holds, oldest first."""
    statement = select(Notice).join(NoticeMailItem, NoticeMailItem.notice_id == Notice.id)
    return list(await session.scalars(statement.where(NoticeMailItem.mail_id == mail_id).order_by(Notice.id)))


def compose(row: NoticeMail, notices: Sequence[Notice], *, username: str, face: Face, controller_url: str) -> Mail:
    """The mail; pure. The same words, and the same Message-ID, at each attempt."""
    name = one_line(face.name or OUR_NAME, 100)
    url = _panel_url(controller_url, face.host)
    if len(notices) == 1:
        subject, body = notices[0].title, notices[0].text
    else:
        subject = f"{len(notices)} notices: {notices[0].title}"
        shown = [f"{notice.title}\n\n{notice.text}" for notice in notices[:SHOWN_MAX]]
        if len(notices) > SHOWN_MAX:
            shown.append(f"And {len(notices) - SHOWN_MAX} more: wcp360 notices list tells of them.\n")
        body = f"\n{'-' * 60}\n\n".join(shown)
    return Mail(
        to=row.address,
        subject=shorten(one_line(subject), SUBJECT_MAX, placeholder=" ..."),
        text=f"{body}\n-- \n{name}, {url}\n{_why(row.kind, username)}\n",
        sender_name=name,
        reply_to=face.reply_to,
        message_id=row.id,
    )


def _why(kind_name: str, username: str) -> str:
    if is_security(kind_name):
        return f"Sent to {username}, as everybody is told of what touches their sign-in."
    kind = KIND_BY_NAME.get(kind_name)
    what = f"of this kind: wcp360 notice-preferences update {kind.name} --no-is-mailed" if kind is not None else (
        "like these: wcp360 notice-preferences list"
    )  # fmt: skip
    return f"Sent to {username}. To get no more mails {what}"


def _panel_url(controller_url: str, host: str) -> str:
    """Where the reader knows the panel: under the reseller's name, if it has one."""
    if not host:
        return controller_url
    parts = urlsplit(controller_url)
    netloc = f"{host}:{parts.port}" if parts.port is not None else host
    return urlunsplit(parts._replace(netloc=netloc))


async def _find_open(session: AsyncSession, user_id: str, kind: NoticeKind, address: str) -> NoticeMail | None:
    """Locked: whoever begins to send it waits until the notice is in it."""
    names = (kind.name,) if kind.is_security else (kind.name, DIGEST)
    statement = (
        select(NoticeMail)
        .where(
            NoticeMail.user_id == user_id,
            NoticeMail.kind.in_(names),
            NoticeMail.address == address,
            NoticeMail.state == MailState.PENDING,
            NoticeMail.attempts == 0,
        )
        .order_by(NoticeMail.id.desc())
        .limit(1)
        .with_for_update()
    )
    return (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
