"""Reads the audit log behind a cursor, and writes what people are told.

All that matters is in the log already, in the order in which it happened and in the transaction of the change itself:
changes by Operations, and sign-ins, passwords and refusals, which are none. Notices and cursor move in one transaction,
so nothing is lost and nothing told twice, however the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import read_head
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import User
from controller.core.notices.attention import describe, is_changed, note_items, read_loud_items
from controller.core.notices.audience import find_audience, list_administrators
from controller.core.notices.kinds import ATTENTION, KIND_BY_NAME, KIND_OF_EVENT, NoticeKind, happening_of
from controller.core.notices.mails import add_to_mail
from controller.core.notices.models import CURSOR_ID, Notice, NoticeCursor, NoticePreference
from controller.core.notices.words import TITLE_MAX, Happening, Words, one_line, render_text
from controller.core.operations import Operations
from controller.db.base import new_id, utc_now
from controller.jobs.tasks import Tasks

SEND_TASK: Final = "notices.send"
COLLECT_SECONDS: Final = 5.0
BATCH: Final = 25
"""Entries in one transaction, each of which may be told to many: nobody else writes to SQLite meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailTerms:
    """How notices are mailed."""

    is_configured: bool
    """Whether there is a mail server; without one, notices are in the inbox alone."""
    give_up_after: timedelta
    """A mail that nobody took for so long is dead."""
    per_hour_max: int
    """Mails to one person, those about security left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One notice to be written."""

    kind: NoticeKind
    source: str
    happening: Happening
    words: Words


class NoticeWriter:
    """Puts notices into inboxes and mails, in the caller's transaction."""

    def __init__(self, session: AsyncSession, terms: MailTerms, *, now: datetime) -> None:
        self._session = session
        self._terms = terms
        self._now = now
        self.next_mail_at: datetime | None = None
        """The earliest that a mail is due of those that were written."""

    async def write(self, user: User, letter: Letter) -> Notice:
        """One notice of one person, and its mails if they get any."""
        happening = letter.happening
        own = f"user/{user.id}"
        is_own = happening.actor == own or letter.kind.name == "token"
        notice = Notice(
            id=new_id(),
            user_id=user.id,
            kind=letter.kind.name,
            source=letter.source[:100],
            subject=happening.target,
            title=one_line(letter.words.title, TITLE_MAX),
            text=render_text(letter.words, happening, is_own=is_own),
            happened_at=happening.at,
        )
        self._session.add(notice)
        await self._session.flush()
        if self._terms.is_configured and self._now - happening.at < self._terms.give_up_after:
            for address in await self._addresses_of(user, letter):
                due = await add_to_mail(
                    self._session,
                    notice,
                    letter.kind,
                    address,
                    now=self._now,
                    give_up_after=self._terms.give_up_after,
                )
                self.next_mail_at = min(due, self.next_mail_at or due)
        return notice

    async def _addresses_of(self, user: User, letter: Letter) -> list[str]:
        if letter.kind.name == "email":
            # What the entry says, not what is so by now: the old address, and the new one.
            told = (letter.happening.before.get("email"), letter.happening.after.get("email"))
            return list(dict.fromkeys(address for address in told if isinstance(address, str) and address))
        if not user.email or not (letter.kind.is_security or await self._wants_mail(user, letter.kind)):
            return []
        return [user.email]

    async def _wants_mail(self, user: User, kind: NoticeKind) -> bool:
        wanted = select(NoticePreference.is_mailed).where(
            NoticePreference.user_id == user.id, NoticePreference.kind == kind.name
        )
        return (await self._session.scalars(wanted)).one_or_none() is not False


class NoticeCollector:
    """What a schedule calls."""

    def __init__(
        self, operations: Operations, tasks: Tasks, terms: MailTerms, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._operations = operations
        self._tasks = tasks
        self._terms = terms
        self._clock = clock

    async def run(self) -> str | None:
        """Tell of everything that was written since the last time; safe to run again, and in two processes."""
        count = 0
        while True:
            told, is_behind = await self._run_batch()
            count += told
            if not is_behind:
                return f"{count} notices" if count else None

    async def run_attention(self) -> str | None:
        """Tell administrators of what needs attention and did not before."""
        items = await read_loud_items(self._operations)
        database, now = self._operations.database, self._clock()
        async with database.read() as session:
            if not await is_changed(session, items):
                return None
        async with database.write() as session:
            # The row of the cursor is the lock: two processes would tell of the same items otherwise.
            await _lock_cursor(session)
            news = await note_items(session, items)
            if not news:
                return None
            happening, words = describe(news, now)
            letter = Letter(
                kind=KIND_BY_NAME[ATTENTION], source=f"attention/{new_id()}", happening=happening, words=words
            )
            writer = NoticeWriter(session, self._terms, now=now)
            for user in await list_administrators(session, letter.kind.noun):
                await writer.write(user, letter)
            await self._wake(session, writer)
        return f"{len(news)} items told of"

    async def _run_batch(self) -> tuple[int, bool]:
        """How many notices were written, and whether there is more to read."""
        database = self._operations.database
        async with database.read() as session:
            head, _ = await read_head(session)
            cursor = await session.get(NoticeCursor, CURSOR_ID)
            if head <= (cursor.number if cursor is not None else 0):
                return 0, False
        async with database.write() as session:
            cursor = await _lock_cursor(session)
            head, _ = await read_head(session)
            entries = await _read_entries(session, after=cursor.number, until=head)
            writer = NoticeWriter(session, self._terms, now=self._clock())
            told = 0
            for entry in entries:
                told += await _tell(session, writer, entry)
            is_behind = len(entries) == BATCH
            cursor.number = entries[-1].number if is_behind else head
            await self._wake(session, writer)
        return told, is_behind

    async def _wake(self, session: AsyncSession, writer: NoticeWriter) -> None:
        if writer.next_mail_at is not None and writer.next_mail_at <= self._clock():
            await session.flush()
            await self._tasks.add(session, SEND_TASK, {}, dedup_key=SEND_TASK)


async def _tell(session: AsyncSession, writer: NoticeWriter, entry: AuditEntry) -> int:
    kind = KIND_OF_EVENT[entry.action]
    happening = happening_of(entry)
    words = kind.templates[entry.action](happening)
    if words is None:
        return 0
    people = await find_audience(session, kind, entry)
    for user in people:
        await writer.write(user, Letter(kind=kind, source=f"audit/{entry.number}", happening=happening, words=words))
    return len(people)


async def _lock_cursor(session: AsyncSession) -> NoticeCursor:
    statement = select(NoticeCursor).where(NoticeCursor.id == CURSOR_ID).with_for_update()
    row = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        row = NoticeCursor(id=CURSOR_ID, number=0)
        session.add(row)
        await session.flush()
    return row


async def _read_entries(session: AsyncSession, *, after: int, until: int) -> Sequence[AuditEntry]:
    statement = (
        select(AuditEntry)
        .where(AuditEntry.number > after, AuditEntry.number <= until, AuditEntry.action.in_(list(KIND_OF_EVENT)))
        .order_by(AuditEntry.number)
        .limit(BATCH)
    )
    return (await session.scalars(statement)).all()
