"""Makes mails; pure but for the time and the Message-ID."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid

from controller.core.fields import require_email
from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What to say to whom."""

    to: str
    subject: str
    text: str


def render_mail(mail: Mail, *, sender: str, now: datetime) -> EmailMessage:
    """The message as it goes on the line.

    The policy refuses a header that holds a line break, so what a person typed (a name in a subject) cannot add
    headers or a second recipient; addresses are parsed first, so that they are one address each and nothing else.

    Raises:
        InvalidInputError: An address or the subject would not stay in its header; `field` names it.
    """
    message = EmailMessage(policy=SMTP)
    message["From"] = _address("sender", sender)
    message["To"] = _address("to", mail.to)
    _set(message, "Subject", mail.subject, "subject")
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # Source: RFC 3834 section 5; out-of-office programs stay silent
    message.set_content(mail.text)
    return message


def _address(field: str, raw: str) -> Address:
    local, _, domain = require_email(field, raw).rpartition("@")
    return Address(username=local, domain=domain)


def _set(message: EmailMessage, name: str, value: str, field: str) -> None:
    if not value.isprintable():
        raise InvalidInputError(f"{field} must be one line of printable characters", field=field)
    try:
        message[name] = value
    except (ValueError, MessageError) as error:
        raise InvalidInputError(f"{field} does not fit into a header", field=field) from error
