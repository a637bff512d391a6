"""Puts the mails of a controller together: the server of the settings, and what is mailed."""

from __future__ import annotations

from controller.core.auth.passwords import Passwords
from controller.core.auth.resets import PasswordResets
from controller.core.auth.service import Authenticator
from controller.core.mail.sender import SmtpMailer, SmtpServer
from controller.core.operations import Operations
from controller.jobs.tasks import Tasks
from controller.settings import Settings


def make_mailer(settings: Settings) -> SmtpMailer:
    """What sends; without an smtp_host it says that it cannot."""
    server = SmtpServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        sender=settings.mail_from,
        user=settings.smtp_user,
        password_file=settings.smtp_password_file,
        ca_file=settings.smtp_ca_file,
    )
    return SmtpMailer(server)


def make_password_resets(
    settings: Settings, operations: Operations, passwords: Passwords, authenticator: Authenticator, tasks: Tasks
) -> PasswordResets:
    """Links for forgotten passwords; the task that mails them is registered."""
    resets = PasswordResets(
        operations,
        passwords,
        authenticator,
        make_mailer(settings),
        controller_url=settings.effective_controller_url,
    )
    operations.attach_tasks(tasks, resets.kinds())
    return resets
