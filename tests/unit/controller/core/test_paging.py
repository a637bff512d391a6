"""Cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.paging import parse_cursor, render_cursor
from controller.db.base import new_id
from shared.errors import InvalidInputError


def test_cursor_leads_back_to_its_row() -> None:
    row_id = new_id()

    assert parse_cursor(render_cursor(row_id)) == row_id


@given(st.text(max_size=40))
def test_parse_cursor_of_any_text_gives_an_id_or_an_input_error(cursor: str) -> None:
    try:
        row_id = parse_cursor(cursor)
    except InvalidInputError:
        return

    assert render_cursor(row_id) == cursor.rstrip("=")


@pytest.mark.parametrize("cursor", ["", "a", "é", "AAAAAAAAAAAAAAAAAAAAAA", "' OR 1=1 --"])
def test_parse_cursor_that_we_never_gave_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_cursor(cursor)
