"""Bodies are decoded strictly, and a mistake names its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.api.body import find_nul, join_path, parse_body, parse_path
from shared.errors import InvalidInputError
from shared.types.names import parse_domain_name


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int = 0


class Checked(msgspec.Struct, forbid_unknown_fields=True):
    domain: str

    def __post_init__(self) -> None:
        try:
            parse_domain_name(self.domain)
        except InvalidInputError as error:
            raise InvalidInputError(error.message, field="domain", hint="such as example.com") from error


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    items: list[Inner] = []
    checked: Checked | None = None


def test_body_that_fits_is_returned_in_its_type() -> None:
    assert parse_body(b'{"title": "x", "items": [{"name": "y", "size": 3}]}', Outer) == Outer("x", [Inner("y", 3)])


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"items": []}', "title"),
        (b'{"title": 5}', "title"),
        (b'{"title": "x", "colour": "red"}', "colour"),
        (b'{"title": "x", "items": {}}', "items"),
        (b'{"title": "x", "items": [{"name": "y"}, {"name": "z", "size": "3"}]}', "items.1.size"),
        (b'{"title": "x", "items": [{"size": 3}]}', "items.0.name"),
        (b'{"title": "x", "items": [{"name": "y", "odd": 1}]}', "items.0.odd"),
        (b'{"title": "x", "checked": {"domain": "test..com"}}', "checked.domain"),
        (b'{"title": "a\\u0000b"}', "title"),
        (b'{"title": "x", "items": [{"name": "a\\u0000"}]}', "items.0.name"),
        (b"[]", ""),
        (b"null", ""),
        (b"{", ""),
        (b"\xff", ""),
    ],
)
def test_body_with_a_mistake_names_the_field(raw: bytes, field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_body(raw, Outer)

    assert (raised.value.field or "") == field


def test_body_keeps_the_words_and_the_hint_of_a_value_type() -> None:
    with pytest.raises(InvalidInputError, match="has an empty part") as raised:
        parse_body(b'{"title": "x", "checked": {"domain": "test..com"}}', Outer)

    assert raised.value.hint == "such as example.com"


def test_body_with_an_escaped_backslash_before_u0000_is_fine() -> None:
    assert parse_body(b'{"title": "a\\\\u0000"}', Outer).title == "a\\u0000"


@pytest.mark.parametrize(("raw", "path"), [("", ""), (".name", "name"), (".a[0].b", "a.0.b"), ("[3]", "3")])
def test_parse_path_turns_msgspec_paths_into_dotted_ones(raw: str, path: str) -> None:
    assert parse_path(raw) == path


@pytest.mark.parametrize(("parent", "child", "path"), [("", "a", "a"), ("a", "", "a"), ("a", "b", "a.b"), ("", "", "")])
def test_join_path_has_no_loose_dots(parent: str, child: str, path: str) -> None:
    assert join_path(parent, child) == path


@pytest.mark.parametrize(
    ("value", "path"), [({"a": ["x", "\x00"]}, "a.1"), ({"a": {"b\x00": 1}}, "a"), ({"a": 1}, None), ("\x00", "")]
)
def test_find_nul_names_where_it_is(value: Any, path: str | None) -> None:
    assert find_nul(value) == path
