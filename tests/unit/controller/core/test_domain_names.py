"""Host names as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.domains.names import parents_of, parse_host_name, render_host_name
from shared.errors import InvalidInputError
from shared.types.names import parse_domain_name


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ("example.com", "example.com"),
        (" Example.COM. ", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("bücher。example", "xn--bcher-kva.example"),
    ],
)
def test_parse_host_name_gives_the_ascii_form(raw: str, parsed: str) -> None:
    assert parse_host_name("domain", raw) == parsed


@pytest.mark.parametrize(
    "raw",
    ["", "test..com", "com", "xn--a.com", "a\nb.com", "../x", "☃☃", "a\u202eb.com", "ü" * 254, "192.0.2.1", "ª..com"],
)
def test_parse_host_name_with_no_host_name_names_the_field(raw: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_host_name("aliases.3", raw)

    assert caught.value.field == "aliases.3"


@given(st.text(max_size=80))
def test_parse_host_name_of_any_text_gives_a_canonical_name_or_an_input_error(raw: str) -> None:
    try:
        parsed = parse_host_name("domain", raw)
    except InvalidInputError:
        return

    assert parse_domain_name(parsed) == parsed
    assert parse_host_name("domain", parsed) == parsed
    assert parse_host_name("domain", render_host_name(parsed)) == parsed


def test_render_host_name_shows_what_people_read() -> None:
    assert render_host_name("xn--bcher-kva.example") == "bücher.example"
    assert render_host_name("example.com") == "example.com"


def test_parents_of_ends_before_the_single_label() -> None:
    assert parents_of("a.b.example.com") == ("b.example.com", "example.com")
    assert parents_of("example.com") == ()
