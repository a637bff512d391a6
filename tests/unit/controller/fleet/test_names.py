"""Names, labels, roles, words, networks: the fleet's small values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.enrolment.installer import InstallFiles, require_plain_url
from controller.fleet.enrolment.tokens import is_allowed_from, parse_network
from controller.fleet.enrolment.words import WORDS, render_words
from controller.fleet.nodes.manifest import MODULES, MODULES_OF_ROLE, ROLES, require_roles
from controller.fleet.nodes.names import name_from_hostname, require_labels, require_node_name
from shared.errors import InvalidInputError, UnavailableError


@given(st.text(max_size=300))
def test_name_from_hostname_is_always_a_node_name(hostname: str) -> None:
    assert require_node_name(name_from_hostname(hostname))


@pytest.mark.parametrize("raw", ["", "UPPER", "-a", "a-", "a b", "a/b", "a\n", "x" * 64, "ä"])
def test_require_node_name_of_a_bad_name_names_the_field(raw: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        require_node_name(raw)

    assert caught.value.field == "name"


def test_require_labels_sorts_and_keeps_them() -> None:
    assert list(require_labels({"zone": "b", "rack": "7"})) == ["rack", "zone"]


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"A": "x"}, {"a": "x" * 201}, {"a": "x\ny"}, {f"k{n}": "" for n in range(33)}]
)
def test_require_labels_of_bad_labels_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        require_labels(labels)


def test_require_roles_gives_each_once_in_a_fixed_order() -> None:
    assert require_roles(["dns", "web", "web"]) == ["web", "dns"]


def test_require_roles_of_an_unknown_role_names_the_known_ones() -> None:
    with pytest.raises(InvalidInputError) as caught:
        require_roles(["webb"])

    assert "web" in (caught.value.hint or "")


def test_roles_bring_only_modules_that_exist() -> None:
    assert set(MODULES_OF_ROLE) == set(ROLES)
    assert {name for names in MODULES_OF_ROLE.values() for name in names} <= set(MODULES)


def test_words_are_256_different_ones() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256


def test_render_words_takes_one_word_for_each_of_six_bytes() -> None:
    assert render_words("000102fdfeff" + "00" * 26).split() == [*WORDS[:3], *WORDS[-3:]]


@pytest.mark.parametrize(
    ("address", "networks", "is_allowed"),
    [
        ("10.1.2.3", [], True),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("fd00::1", ["10.0.0.0/8", "fd00::/8"], True),
        ("", ["10.0.0.0/8"], False),
        ("", [], True),
    ],
)
def test_is_allowed_from_each_address(address: str, networks: list[str], is_allowed: bool) -> None:
    assert is_allowed_from(address, networks) is is_allowed


def test_parse_network_takes_a_plain_address() -> None:
    assert parse_network("10.0.0.7") == "10.0.0.7/32"


@pytest.mark.parametrize("raw", ["", "10.0.0.1/8", "10.0.0.0/33", "everywhere"])
def test_parse_network_of_no_network_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_network(raw)


def make_files(url: str) -> InstallFiles:
    return InstallFiles(bundle_dir=Path("/nonexistent"), controller_url=url, server_pin="cGlu")


def test_render_command_is_the_documented_line() -> None:
    expected = (
        "curl -fsS -k --pinnedpubkey 'sha256//cGlu' https://panel.example:8360/install.sh | WCP360_TOKEN='e1.a.b.c' sh"
    )

    assert make_files("https://panel.example:8360/").render_command("e1.a.b.c") == expected


@pytest.mark.parametrize("url", ["http://a", "https://a/$(id)", "https://a/;x", "https://a b", "https://"])
def test_require_plain_url_of_anything_a_shell_would_read_is_refused(url: str) -> None:
    with pytest.raises(UnavailableError):
        require_plain_url(url)


def test_render_script_without_a_bundle_says_what_is_missing() -> None:
    with pytest.raises(UnavailableError) as caught:
        make_files("https://a").render_script()

    assert "agent.tar.gz" in caught.value.message
