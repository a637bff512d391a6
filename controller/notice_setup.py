"""Puts the notices of a controller together: what reads the audit log, what sends, and who wakes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from controller.core.auth.passwords import Passwords
from controller.core.auth.service import Authenticator
from controller.core.notices.collector import COLLECT_SECONDS, MailTerms, NoticeCollector
from controller.core.notices.delivery import FORGET_SECONDS, SWEEP_SECONDS, NoticeDeliveries
from controller.core.notices.service import Notices
from controller.core.operations import Operations
from controller.jobs.schedules import Schedule, Schedules
from controller.jobs.tasks import Tasks
from controller.mail_setup import make_mailer, make_password_resets
from controller.settings import Settings

ATTENTION_SECONDS: Final = 60.0


def connect_mails(
    settings: Settings,
    operations: Operations,
    passwords: Passwords,
    authenticator: Authenticator,
    tasks: Tasks,
    schedules: Schedules,
) -> dict[str, Any]:
    """All that is mailed; what handlers ask for, by the name of their parameter."""
    resets = make_password_resets(settings, operations, passwords, authenticator, tasks)
    return {"password_resets": resets, "notices": connect_notices(settings, operations, tasks, schedules)}


def connect_notices(settings: Settings, operations: Operations, tasks: Tasks, schedules: Schedules) -> Notices:
    """From now on people are told of what concerns them."""
    mailer = make_mailer(settings)
    terms = MailTerms(
        is_configured=mailer.is_configured,
        give_up_after=timedelta(hours=settings.notice_give_up_hours),
        per_hour_max=settings.notice_mails_per_hour,
    )
    collector = NoticeCollector(operations, tasks, terms)
    deliveries = NoticeDeliveries(
        operations.database,
        mailer,
        terms,
        controller_url=settings.effective_controller_url,
        keep=timedelta(days=settings.notice_keep_days),
    )
    operations.attach_tasks(tasks, deliveries.kinds())

    async def sweep() -> str | None:
        return await deliveries.sweep(tasks)

    for name, seconds, run in (
        ("notices.collect", COLLECT_SECONDS, collector.run),
        ("notices.attention", ATTENTION_SECONDS, collector.run_attention),
        ("notices.send", SWEEP_SECONDS, sweep),
        ("notices.forget", FORGET_SECONDS, deliveries.forget_old),
    ):
        schedules.add(Schedule(name=name, every_seconds=seconds, run=run))
    return Notices(terms)
