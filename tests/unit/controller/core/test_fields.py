"""Checks of single fields."""

from __future__ import annotations

import pytest

from controller.core.fields import parse_field, require_email, require_id, require_id_field, require_text
from shared.errors import InvalidInputError, NotFoundError
from shared.types.names import parse_unix_name


def test_parse_field_adds_the_name_of_the_field_and_keeps_the_hint() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_field("name", parse_unix_name, "root")

    assert (caught.value.field, caught.value.hint) == ("name", "Choose another account name.")


def test_require_text_cuts_blanks_at_the_ends() -> None:
    assert require_text("name", "  Ada Lovelace ", low=1, high=12) == "Ada Lovelace"


@pytest.mark.parametrize("raw", ["", "  ", "x" * 13, "a\nb", "a\x00b", "a\x1bb", "a\ud800b", "a\u202eb", "a\u2028b"])
def test_require_text_that_cannot_be_shown_on_one_line_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        require_text("name", raw, low=1, high=12)


@pytest.mark.parametrize("raw", ["ada@example.com", "o'hara+x@mail.example.co"])
def test_require_email_that_mail_can_reach_is_returned(raw: str) -> None:
    assert require_email("email", raw) == raw


@pytest.mark.parametrize(
    "raw", ["ada", "@example.com", "ada@", "ada@localhost", "a b@example.com", "a@b..com", "ä@b.com"]
)
def test_require_email_that_is_none_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        require_email("email", raw)


def test_require_id_of_no_id_is_not_found_in_addresses_and_wrong_in_fields() -> None:
    with pytest.raises(NotFoundError):
        require_id("account", "../x")
    with pytest.raises(InvalidInputError) as caught:
        require_id_field("account_id", "../x")

    assert caught.value.field == "account_id"
    assert require_id("account", "0190F3C27B6E7C3A9D543F6F2A1B0C9D") == "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"
