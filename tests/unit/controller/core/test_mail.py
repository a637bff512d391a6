"""Mails as they go on the line: what somebody typed is never a header of its own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.core.mail.message import Mail, render_mail
from shared.errors import InvalidInputError

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
SENDER = "panel@example.com"


def test_mail_holds_what_was_said_and_asks_for_no_automatic_answer() -> None:
    mail = Mail(to="ada@example.com", subject="Grüße", text="Hello\nWorld")

    message = render_mail(mail, sender=SENDER, now=NOW)

    assert (message["to"], message["from"], message["subject"]) == ("ada@example.com", SENDER, "Grüße")
    assert message["auto-submitted"] == "auto-generated"
    assert message.get_content().splitlines() == ["Hello", "World"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", "\x00"])
@pytest.mark.parametrize("field", ["to", "subject", "sender"])
def test_mail_when_a_header_is_smuggled_in_is_refused(field: str, line_break: str) -> None:
    evil = f"ada@example.com{line_break}Bcc: mallory@example.com"
    parts = {"to": "ada@example.com", "subject": "Hello", "sender": SENDER} | {field: evil}

    with pytest.raises(InvalidInputError) as raised:
        render_mail(Mail(to=parts["to"], subject=parts["subject"], text="x"), sender=parts["sender"], now=NOW)

    assert raised.value.field == field


def test_mail_when_the_text_looks_like_headers_keeps_it_in_the_text() -> None:
    mail = Mail(
        to="ada@example.com", subject="Hello", text="Bcc: mallory@example.com\n.\nRCPT TO:<mallory@example.com>\n"
    )

    message = render_mail(mail, sender=SENDER, now=NOW)

    assert "bcc" not in message
    assert bytes(message).partition(b"\r\n\r\n")[0].count(b"mallory") == 0
