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
    sender_name: str = ""
    """Shown instead of the bare address, which stays the controller's own."""
    reply_to: str = ""
    message_id: str = ""
    """The same for each attempt at one mail, so that a server that has it knows; empty: a new one."""


def render_mail(mail: Mail, *, sender: str, now: datetime) -> EmailMessage:
    """The message as it goes on the line.

    The policy refuses a header that holds a line break, so what a person typed (a name in a subject) cannot add
    headers or a second recipient; addresses are parsed first, so that they are one address each and nothing else.

    Raises:
        InvalidInputError: An address or the subject would not stay in its header; `field` names it.
    """
    message = EmailMessage(policy=SMTP)
    message["From"] = _address("sender", sender, name=mail.sender_name)
    message["To"] = _address("to", mail.to)
    if mail.reply_to:
        message["Reply-To"] = _address("reply_to", mail.reply_to)
    _set(message, "Subject", mail.subject, "subject")
    message["Date"] = format_datetime(now)
    domain = sender.rpartition("@")[2]
    message["Message-ID"] = f"<{mail.message_id}@{domain}>" if mail.message_id else make_msgid(domain=domain)
    message["Auto-Submitted"] = "auto-generated"  # Source: RFC 3834 section 5; out-of-office programs stay silent
    message.set_content(mail.text)
    return message


def _address(field: str, raw: str, *, name: str = "") -> Address:
    local, _, domain = require_email(field, raw).rpartition("@")
    if not name.isprintable():
        raise InvalidInputError(f"the name of {field} must be one line of printable characters", field=field)
    return Address(display_name=name, username=local, domain=domain)


def _set(message: EmailMessage, name: str, value: str, field: str) -> None:
    if not value.isprintable():
        raise InvalidInputError(f"{field} must be one line of printable characters", field=field)
    try:
        message[name] = value
    except (ValueError, MessageError) as error:
        raise InvalidInputError(f"{field} does not fit into a header", field=field) from error
