"""Names: what people type, and what attackers type."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError
from shared.types.names import RESERVED_UNIX_NAMES, parse_domain_name, parse_resource_key, parse_unix_name
from shared.types.paths import parse_relative_path
from shared.types.secret import Secret
from tests.unit.shared.strategies import domain_names, unix_names

HOSTILE = [
    "",
    " ",
    "a\nb",
    "a\x00b",
    "../x",
    "a/../b",
    "$(id)",
    "`id`",
    "a;b",
    "a'b",
    'a"b',
    "a b",
    "-rf",
    "a\r\n",
    "x" * 300,
]


@pytest.mark.parametrize(
    "raw",
    [*HOSTILE, "test..com", ".com", "com", "-a.com", "a-.com", "1.2.3.4", "exa_mple.com", "münchen.de", "a." + "b" * 64 + ".com",
     ".".join(["abcdefgh"] * 40)],
)  # fmt: skip
def test_domain_name_when_malformed_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_domain_name(raw)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [("Example.COM", "example.com"), ("example.com.", "example.com"), ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
     ("a.b-c.museum", "a.b-c.museum"), ("1.example.com", "1.example.com")],
)  # fmt: skip
def test_domain_name_when_good_is_canonical(raw: str, canonical: str) -> None:
    assert parse_domain_name(raw) == canonical


@given(domain_names)
def test_domain_name_when_canonical_is_unchanged(name: str) -> None:
    assert parse_domain_name(name) == name


@given(st.text(max_size=60))
def test_domain_name_when_accepted_is_plain_ascii(raw: str) -> None:
    try:
        name = parse_domain_name(raw)
    except InvalidInputError:
        return
    assert re.fullmatch(r"[a-z0-9.-]+", name)


@pytest.mark.parametrize(
    "raw", [*HOSTILE, "root", "www-data", "wcp-agent", "systemd-x", "A", "a", "1abc", "a--b", "a-", "a" * 25]
)
def test_unix_name_when_malformed_or_reserved_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_unix_name(raw)


@pytest.mark.parametrize("name", sorted(RESERVED_UNIX_NAMES))
def test_unix_name_when_reserved_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_unix_name(name)


@given(unix_names)
def test_unix_name_when_good_is_unchanged(name: str) -> None:
    assert parse_unix_name(name) == name


@pytest.mark.parametrize("raw", [*HOSTILE, "/etc", "a//b", "a/", ".hidden", "a/.ssh", "..", "."])
def test_relative_path_when_leaving_or_odd_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_relative_path(raw)


@pytest.mark.parametrize("raw", ["public", "public/web", "a_b/c-d/e.f"])
def test_relative_path_when_plain_is_kept(raw: str) -> None:
    assert parse_relative_path(raw) == raw


@pytest.mark.parametrize("raw", ["site", "/x", "site/", "site/a b", "site/ä", "s" * 301 + "/x"])
def test_resource_key_when_malformed_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_resource_key(raw)


def test_secret_when_printed_shows_a_mask() -> None:
    secret = Secret("hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("other")
