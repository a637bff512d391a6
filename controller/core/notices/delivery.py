"""Sends the mails that are due: one task in the whole controller, one mail after the other.

A mail is claimed, handed over, then its row is written. A process that dies between the last two leaves a claim that
ends after CLAIM; the mail then goes once more under the same Message-ID, by which mail servers know it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import User
from controller.core.mail.message import Mail
from controller.core.mail.sender import Mailer, MailRefusedError
from controller.core.notices.audience import find_face
from controller.core.notices.collector import SEND_TASK, MailTerms
from controller.core.notices.kinds import KINDS, is_security
from controller.core.notices.mails import compose, list_notices_of, merge_others
from controller.core.notices.models import MailState, Notice, NoticeMail
from controller.core.notices.words import one_line
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs.tasks import TaskKind, TaskRun, Tasks
from shared.errors import InvalidInputError, UnavailableError

SWEEP_SECONDS: Final = 10.0
FORGET_SECONDS: Final = 3600.0
BACKOFF_SECONDS: Final = (60, 300, 900, 1800, 3600)
"""Before the 2nd, 3rd, ... attempt; then always the last. Outlasts greylisting, and an afternoon without a server."""
JITTER: Final = 0.2
CLAIM: Final = timedelta(minutes=5)
HAND_OVER_SECONDS: Final = 120.0
"""A mail server that takes longer for one mail has failed; well below CLAIM, so that no mail is sent by two."""
_RUN_SECONDS: Final = 45.0
_UNAVAILABLE_MAX: Final = 3
"""Mails in a row that the server did not take, before a run leaves the others for the next one."""
_BATCH: Final = 50
_HOUR: Final = timedelta(hours=1)

_log = structlog.get_logger("controller.notices")


class NoticeDeliveries:
    """What tasks and schedules call."""

    def __init__(
        self,
        database: Database,
        mailer: Mailer,
        terms: MailTerms,
        *,
        controller_url: str,
        keep: timedelta,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`keep`: notices and mails older than this are forgotten."""
        self._database = database
        self._mailer = mailer
        self._terms = terms
        self._controller_url = controller_url
        self._keep = keep
        self._clock = clock

    def kinds(self) -> tuple[TaskKind, ...]:
        """For `Operations.attach_tasks`."""
        return (TaskKind(name=SEND_TASK, run=self.run),)

    async def sweep(self, tasks: Tasks) -> str | None:
        """Schedule: let the task run when something is due (again)."""
        return "mails are due" if await tasks.add_when_due(self._is_due, SEND_TASK) else None

    async def _is_due(self, session: AsyncSession) -> bool:
        return bool(await _find_due(session, now=self._clock(), limit=1))

    async def run(self, _run: TaskRun) -> str | None:
        """Send what is due; safe to run again, and in two processes."""
        ends_at, sent, failed_in_a_row = time.monotonic() + _RUN_SECONDS, 0, 0
        while time.monotonic() < ends_at and failed_in_a_row < _UNAVAILABLE_MAX:
            async with self._database.read() as session:
                due = await _find_due(session, now=self._clock(), limit=_BATCH)
            for mail_id in due:
                is_taken = await self._deliver(mail_id)
                sent += is_taken is True
                failed_in_a_row = failed_in_a_row + 1 if is_taken is False else 0
                if time.monotonic() >= ends_at or failed_in_a_row >= _UNAVAILABLE_MAX:
                    break
            if not due:
                break
        return f"{sent} mails sent" if sent else None

    async def forget_old(self) -> str | None:
        """Schedule: remove what nobody needs any more."""
        before = self._clock() - self._keep
        async with self._database.write() as session:
            is_over = NoticeMail.state != MailState.PENDING
            for statement in (
                delete(NoticeMail).where(is_over, NoticeMail.created_at < before),
                delete(Notice).where(Notice.created_at < before),
            ):
                await session.execute(statement, execution_options={"synchronize_session": False})
        return None

    async def _deliver(self, mail_id: str) -> bool | None:
        """True: the server took it; False: it did not, for now; None: it was not to be sent, or never will be."""
        async with self._database.write() as session:
            mail = await self._claim(session, mail_id)
        if mail is None:
            return None
        error, is_final = "", False
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await self._mailer.send(mail)
        except MailRefusedError as refusal:
            error, is_final = refusal.message, True
        except InvalidInputError as refusal:
            # Our own address is a setting, which an operator can mend; anything else is as wrong at the next attempt.
            error, is_final = refusal.message, refusal.field != "sender"
        except UnavailableError as refusal:
            error = refusal.message
        except TimeoutError:
            error = f"the mail server took longer than {HAND_OVER_SECONDS:.0f} seconds"
        await self._note(mail_id, error, is_final=is_final)
        return None if is_final else not error

    async def _claim(self, session: AsyncSession, mail_id: str) -> Mail | None:
        """The mail, which nobody else sends now; None: not now, or never."""
        now = self._clock()
        row = await session.get(NoticeMail, mail_id, with_for_update=True, populate_existing=True)
        if row is None or not _is_due(row, now):
            return None
        user = await session.get_one(User, row.user_id)
        notices = await list_notices_of(session, row.id)
        if user.disabled_at is not None or not notices:
            reason = "the person is disabled" if notices else "its notices were forgotten"
            row.state, row.error = MailState.DEAD, reason
            return None
        if await self._is_put_off(session, row, now):
            return None
        row.attempts, row.claimed_until = row.attempts + 1, now + CLAIM
        face = await find_face(session, user)
        return compose(row, notices, username=user.username, face=face, controller_url=self._controller_url)

    async def _is_put_off(self, session: AsyncSession, row: NoticeMail, now: datetime) -> bool:
        """Whether the person had enough mails in this hour; what waits for them then becomes one mail."""
        if is_security(row.kind):
            return False
        secure = [kind.name for kind in KINDS if kind.is_security]
        recent = select(func.count(), func.min(NoticeMail.sent_at)).where(
            NoticeMail.user_id == row.user_id, NoticeMail.sent_at > now - _HOUR, NoticeMail.kind.not_in(secure)
        )
        count, oldest = (await session.execute(recent)).one()
        if count < self._terms.per_hour_max or oldest is None:
            return False
        if row.attempts == 0:
            await merge_others(session, row)
        row.next_at = oldest + _HOUR
        return True

    async def _note(self, mail_id: str, error: str, *, is_final: bool) -> None:
        now = self._clock()
        async with self._database.write() as session:
            row = await session.get(NoticeMail, mail_id, with_for_update=True, populate_existing=True)
            if row is None or row.state is not MailState.PENDING:
                return
            row.claimed_until, row.error = None, one_line(error, 500)
            if not error:
                row.state, row.sent_at = MailState.SENT, now
            elif is_final or now >= row.give_up_at:
                row.state = MailState.DEAD
            else:
                row.next_at = now + backoff(row.attempts)
        _log.info("notices.mailed", mail_id=mail_id, state=row.state.value, error=error)


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts; up to a fifth is added at random."""
    seconds = BACKOFF_SECONDS[min(attempts, len(BACKOFF_SECONDS)) - 1]
    return timedelta(seconds=seconds * random.uniform(1.0, 1.0 + JITTER))  # noqa: S311 - jitter


def _is_due(row: NoticeMail, now: datetime) -> bool:
    is_free = row.claimed_until is None or row.claimed_until <= now
    return row.state is MailState.PENDING and row.next_at <= now and is_free


async def _find_due(session: AsyncSession, *, now: datetime, limit: int) -> list[str]:
    statement = (
        select(NoticeMail.id)
        .where(
            NoticeMail.state == MailState.PENDING,
            NoticeMail.next_at <= now,
            or_(NoticeMail.claimed_until.is_(None), NoticeMail.claimed_until <= now),
        )
        .order_by(NoticeMail.next_at)
        .limit(limit)
    )
    return list(await session.scalars(statement))
