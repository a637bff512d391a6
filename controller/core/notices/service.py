"""One's own inbox and preferences; for administrators, the mails of everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.identities import Identity
from controller.core.auth.models import User
from controller.core.context import Change, OpContext
from controller.core.fields import not_found, require_id
from controller.core.notices.collector import SEND_TASK, Letter, MailTerms, NoticeWriter
from controller.core.notices.kinds import KIND_BY_NAME, KINDS, TEST, Audience, NoticeKind, is_security
from controller.core.notices.models import MailState, Notice, NoticeMail, NoticeMailItem, NoticePreference
from controller.core.notices.views import (
    IDS_MAX,
    NoticeMailPage,
    NoticeMailView,
    NoticePage,
    NoticePreferenceList,
    NoticePreferenceView,
    NoticesRead,
    NoticeView,
    view_mail,
    view_notice,
)
from controller.core.notices.words import Happening, Words
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, fetch_page
from controller.db.base import new_id
from shared.errors import ConflictError, InvalidInputError, UnavailableError

NOUN: Final = "notices"


@dataclass(frozen=True, slots=True)
class Notices:
    """What handlers ask for."""

    terms: MailTerms


async def list_notices(ctx: OpContext, identity: Identity, page: PageRequest, *, is_unread: bool) -> NoticePage:
    """One's own, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    statement = select(Notice).where(Notice.user_id == identity.user_id)
    if is_unread:
        statement = statement.where(Notice.read_at.is_(None))
    found = await fetch_page(ctx.session, statement, page)
    mails = await _read_mails(ctx.session, [row.id for row in found.rows])
    return NoticePage(
        items=tuple(_view(row, mails.get(row.id, ())) for row in found.rows),
        next_cursor=found.next_cursor,
        unread=await _count_unread(ctx.session, identity.user_id),
    )


async def show_notice(ctx: OpContext, identity: Identity, notice_id: str) -> NoticeView:
    """One of one's own.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "read")
    row = await ctx.session.get(Notice, require_id("notice", notice_id))
    if row is None or row.user_id != identity.user_id:
        raise not_found("notice", notice_id)
    return _view(row, (await _read_mails(ctx.session, [row.id])).get(row.id, ()))


async def read_notices(ctx: OpContext, identity: Identity, ids: Sequence[str] | None) -> NoticesRead:
    """Mark them as read; ids of others' notices are passed over as those that do not exist.

    Raises:
        ForbiddenError
        InvalidInputError: Too many.
    """
    ctx.actor.require(NOUN, "write")
    mine = (Notice.user_id == identity.user_id, Notice.read_at.is_(None))
    statement = update(Notice).where(*mine).values(read_at=ctx.now)
    if ids is not None:
        if len(ids) > IDS_MAX:
            raise InvalidInputError(f"at most {IDS_MAX} at a time", field="ids")
        statement = statement.where(Notice.id.in_([require_id("notice", one) for one in ids]))
    result = await ctx.session.execute(statement, execution_options={"synchronize_session": False})
    count = result.rowcount if isinstance(result, CursorResult) else 0
    if count:
        user = await ctx.session.get_one(User, identity.user_id)
        record(ctx, Change("notice.read", f"user/{user.id}", user.username, after={"read": count}))
    return NoticesRead(read=count, unread=await _count_unread(ctx.session, identity.user_id))


async def list_preferences(ctx: OpContext, identity: Identity) -> NoticePreferenceList:
    """Every kind that one may be told of.

    Raises:
        ForbiddenError
    """
    ctx.actor.require(NOUN, "read")
    statement = select(NoticePreference).where(NoticePreference.user_id == identity.user_id)
    chosen = {row.kind: row.is_mailed for row in await ctx.session.scalars(statement)}
    items = tuple(_view_kind(kind, chosen.get(kind.name, True)) for kind in KINDS if _concerns(ctx, kind))
    return NoticePreferenceList(items=items)


async def update_preference(
    ctx: OpContext, identity: Identity, kind_name: str, *, is_mailed: bool
) -> NoticePreferenceView:
    """Have a kind mailed to oneself, or not.

    Raises:
        ForbiddenError
        NotFoundError: One is told of no such kind.
        ConflictError: It is about security (`notice_required`).
    """
    ctx.actor.require(NOUN, "write")
    kind = KIND_BY_NAME.get(kind_name)
    if kind is None or not _concerns(ctx, kind):
        raise not_found("kind of notice", kind_name)
    if kind.is_security and not is_mailed:
        raise ConflictError(
            f"notices of the kind {kind.name} cannot be switched off",
            code="notice_required",
            hint="They tell you when somebody else acts as you; whoever does would switch them off first.",
        )
    statement = select(NoticePreference).where(
        NoticePreference.user_id == identity.user_id, NoticePreference.kind == kind.name
    )
    row = (await ctx.session.scalars(statement)).one_or_none()
    before = row.is_mailed if row is not None else True
    if before != is_mailed:
        if row is None:
            row = NoticePreference(user_id=identity.user_id, kind=kind.name)
            ctx.session.add(row)
        row.is_mailed = is_mailed
        await ctx.session.flush()
        user = await ctx.session.get_one(User, identity.user_id)
        states = {
            "before": {"kind": kind.name, "is_mailed": before},
            "after": {"kind": kind.name, "is_mailed": is_mailed},
        }
        record(ctx, Change("notice.prefer", f"user/{user.id}", user.username, **states))
    return _view_kind(kind, is_mailed)


async def send_test(ctx: FleetContext, identity: Identity, notices: Notices) -> NoticeView:
    """Tell oneself of nothing, by mail as well.

    Raises:
        ForbiddenError
        UnavailableError: This controller sends no mails (`mail_not_configured`).
        ConflictError: One has no e-mail address, or wants no tests by mail.
    """
    ctx.actor.require(NOUN, "write")
    if not notices.terms.is_configured:
        raise UnavailableError(
            "this controller sends no mails", code="mail_not_configured", hint="An operator sets smtp_host."
        )
    user = await ctx.session.get_one(User, identity.user_id)
    if user.email is None:
        raise ConflictError(f"{user.username} has no e-mail address", hint="wcp360 auth set-email.")
    happening = Happening(
        action="notice.test", at=ctx.now, actor=ctx.actor.reference, actor_name=ctx.actor.name,
        address=ctx.actor.address, target=f"user/{user.id}", name=user.username, before={}, after={},
    )  # fmt: skip
    words = Words(title="Test of notices", what=f"Somebody, hopefully you, tests whether {user.username} gets mails.")
    writer = NoticeWriter(ctx.session, notices.terms, now=ctx.now)
    letter = Letter(kind=KIND_BY_NAME[TEST], source=f"test/{new_id()}", happening=happening, words=words)
    row = await writer.write(user, letter)
    if writer.next_mail_at is None:
        raise ConflictError(
            "you switched off mails of tests", hint="wcp360 notice-preferences update test --is-mailed."
        )
    await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    record(ctx, Change("notice.test", f"user/{user.id}", user.username))
    return _view(row, (await _read_mails(ctx.session, [row.id])).get(row.id, ()))


async def list_mails(ctx: OpContext, page: PageRequest, *, state: str | None, user_id: str | None) -> NoticeMailPage:
    """Of everybody, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require_platform(NOUN, "read")
    statement = select(NoticeMail)
    if state is not None:
        if state not in {one.value for one in MailState}:
            raise InvalidInputError("state is pending, sent or dead", field="state")
        statement = statement.where(NoticeMail.state == MailState(state))
    if user_id is not None:
        statement = statement.where(NoticeMail.user_id == user_id)
    found = await fetch_page(ctx.session, statement, page)
    return NoticeMailPage(items=tuple(view_mail(row) for row in found.rows), next_cursor=found.next_cursor)


async def retry_mail(ctx: FleetContext, mail_id: str, notices: Notices) -> NoticeMailView:
    """Have a dead mail sent again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not dead.
    """
    ctx.actor.require_platform(NOUN, "write")
    row = await ctx.session.get(NoticeMail, require_id("mail", mail_id), with_for_update=True, populate_existing=True)
    if row is None:
        raise not_found("mail", mail_id)
    if row.state is not MailState.DEAD:
        raise ConflictError(f"the mail is {row.state.value}", hint="Only a dead mail can be tried again.")
    row.state, row.next_at, row.give_up_at = MailState.PENDING, ctx.now, ctx.now + notices.terms.give_up_after
    row.claimed_until = None
    await ctx.session.flush()
    await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    record(ctx, Change("notice.retry", f"notice_mail/{row.id}", row.address, after={"kind": row.kind}))
    return view_mail(row)


def _view(row: Notice, mails: Sequence[NoticeMail]) -> NoticeView:
    return view_notice(row, mails, is_security=is_security(row.kind))


def _view_kind(kind: NoticeKind, is_mailed: bool) -> NoticePreferenceView:  # noqa: FBT001 - one value, named by its place
    return NoticePreferenceView(
        kind=kind.name,
        description=kind.description,
        is_security=kind.is_security,
        is_mailed=is_mailed or kind.is_security,
    )


def _concerns(ctx: OpContext, kind: NoticeKind) -> bool:
    """Whether somebody like this is ever told of it."""
    if kind.audience is Audience.PLATFORM and not ctx.actor.reach.is_everything:
        return False
    if kind.audience is Audience.RESELLER and ctx.actor.role.value != "reseller":
        return False
    # Administrators are of no tenant, so nobody tells them of single accounts.
    return kind.audience is not Audience.ACCOUNT or not ctx.actor.reach.is_everything


async def _count_unread(session: AsyncSession, user_id: str) -> int:
    statement = select(func.count(Notice.id)).where(Notice.user_id == user_id, Notice.read_at.is_(None))
    return await session.scalar(statement) or 0


async def _read_mails(session: AsyncSession, ids: Sequence[str]) -> dict[str, list[NoticeMail]]:
    statement = (
        select(NoticeMailItem.notice_id, NoticeMail)
        .join(NoticeMail, NoticeMail.id == NoticeMailItem.mail_id)
        .where(NoticeMailItem.notice_id.in_(ids))
        .order_by(NoticeMail.id)
    )
    found: dict[str, list[NoticeMail]] = {}
    for notice_id, mail in await session.execute(statement):
        found.setdefault(notice_id, []).append(mail)
    return found
