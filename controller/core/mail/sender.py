"""Hands mails to the SMTP server of the settings (RFC 5321, STARTTLS of RFC 3207, implicit TLS of RFC 8314)."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol

import aiosmtplib

from controller.core.mail.message import Mail, render_mail
from controller.db.base import utc_now
from shared.errors import ConflictError, UnavailableError

TIMEOUT_SECONDS: Final = 20.0
"""For each step. Shorter than the minutes of RFC 5321 section 4.5.3.2, because a task tries again."""
_PERMANENT: Final = range(500, 600)
"""Source: RFC 5321 section 4.2.1: the same mail will be refused again."""


class MailRefusedError(ConflictError):
    """The server will not take this mail, however often it is asked. A class of its own: it is not tried again."""

    code = "mail_refused"


class Mailer(Protocol):
    """Sends mails."""

    @property
    def is_configured(self) -> bool:
        """Whether there is a server at all."""
        ...

    async def send(self, mail: Mail) -> None:
        """Hand it over.

        Raises:
            MailRefusedError: For good.
            UnavailableError: For now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where mails go."""

    host: str
    port: int
    tls: Literal["starttls", "implicit", "none"]
    sender: str
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


class SmtpMailer:
    """One connection for each mail: they are few."""

    def __init__(self, server: SmtpServer, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._server = server
        self._clock = clock

    @property
    def is_configured(self) -> bool:
        """Whether there is a server at all."""
        return bool(self._server.host)

    async def send(self, mail: Mail) -> None:
        """Hand it over; the words of errors hold what the server said, never the mail.

        Raises:
            InvalidInputError: It cannot be a mail.
            MailRefusedError, UnavailableError
        """
        message = render_mail(mail, sender=self._server.sender, now=self._clock())
        server = self._server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                use_tls=server.tls == "implicit",
                # True and not None: a server that does not offer it (or somebody between) must not get clear text.
                start_tls=server.tls == "starttls",
                tls_context=self._make_tls_context(),
                username=server.user or None,
                password=self._read_password(),
                timeout=TIMEOUT_SECONDS,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judge([(refused.code, refused.message) for refused in error.recipients]) from None
        except aiosmtplib.SMTPAuthenticationError as error:
            # An operator can mend this, so the mail is kept.
            raise UnavailableError(f"the mail server does not let us in: {error.code} {error.message[:200]}") from None
        except aiosmtplib.SMTPSenderRefused as error:
            # As above: it is our own address, and all mails would be lost.
            raise UnavailableError(f"the mail server refuses mail_from: {error.code} {error.message[:200]}") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _judge([(error.code, error.message)]) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise UnavailableError(f"the mail server did not take the mail: {type(error).__name__}: {error}") from None

    def _make_tls_context(self) -> ssl.SSLContext | None:
        if self._server.tls == "none":
            return None
        try:
            return ssl.create_default_context(cafile=self._server.ca_file)
        except OSError as error:
            raise UnavailableError(f"setting smtp_ca_file: {error}") from error

    def _read_password(self) -> str | None:
        path = self._server.password_file
        if path is None:
            return None
        try:
            return path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UnavailableError(f"setting smtp_password_file: {type(error).__name__}") from error


def _judge(answers: list[tuple[int, str]]) -> UnavailableError | MailRefusedError:
    words = "; ".join(f"{code} {text[:200]}" for code, text in answers)
    if answers and all(code in _PERMANENT for code, _ in answers):
        return MailRefusedError(f"the mail server refused the mail: {words}")
    return UnavailableError(f"the mail server did not take the mail: {words}")
