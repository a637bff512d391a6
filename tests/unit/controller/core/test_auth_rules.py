"""Rules of signing in that need no database: codes, networks, what is unusual, sealed secrets."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.core.auth.attempts import IMPOSSIBLE_PACE, NEW_DEVICE, NEW_NETWORK, Device, Habits, judge_signals
from controller.core.auth.networks import is_within, parse_networks, place_of, require_network
from controller.core.auth.sealing import KEY_BYTES, Sealer
from controller.core.auth.second_factor import matching_step, normalise_code
from shared.errors import ForbiddenError, InvalidInputError, UnavailableError

# Source: RFC 6238 appendix B, SHA-1; the last six of its eight digits.
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
RFC_VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
]
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "code"), RFC_VECTORS)
def test_code_of_the_rfc_belongs_to_its_step(seconds: int, code: str) -> None:
    assert matching_step(RFC_SECRET, code, datetime.fromtimestamp(seconds, UTC)) == seconds // 30


@pytest.mark.parametrize(("steps", "is_taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_code_of_a_step_nearby_is_taken_for_one_step_only(steps: int, is_taken: bool) -> None:
    at = datetime.fromtimestamp(1234567890 - 30 * steps, UTC)

    assert (matching_step(RFC_SECRET, "005924", at) is not None) is is_taken


@pytest.mark.parametrize("code", ["", "00592", "0059240", "abcdef", "٠٠٥٩٢٤"])
def test_code_when_malformed_matches_nothing(code: str) -> None:
    assert matching_step(RFC_SECRET, code, datetime.fromtimestamp(1234567890, UTC)) is None


def test_code_when_typed_with_blanks_and_dashes_is_the_same() -> None:
    assert normalise_code(" 005 924\n") == "005924"
    assert normalise_code("ABCD-efgh") == "abcdefgh"


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("203.0.113.9", True),
        ("::ffff:203.0.113.9", True),
        ("203.0.114.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("a socket", False),
    ],
)
def test_address_when_looked_up_is_within_its_networks(address: str, is_inside: bool) -> None:
    assert is_within(address, ["203.0.113.0/24", "2001:db8::/32"]) is is_inside


@pytest.mark.parametrize("raw", ["10.0.0.1/8", "everywhere", "", "10.0.0.0/33", "10.0.0.0/8 ; drop"])
def test_network_when_malformed_names_its_field(raw: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_networks([raw], field="allow")

    assert raised.value.field == "allow"


def test_networks_when_parsed_are_canonical_and_each_once() -> None:
    assert parse_networks(["203.0.113.9", " 203.0.113.9/32 "], field="allow") == ["203.0.113.9/32"]


def test_place_of_an_address_is_its_neighbourhood() -> None:
    assert place_of("203.0.113.9") == "203.0.113.0/24"
    assert place_of("2001:db8:1:2::3") == "2001:db8:1::/48"
    assert place_of("") == ""


@pytest.mark.parametrize("address", ["203.0.113.9", ""])
def test_network_that_is_not_allowed_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenError):
        require_network(address, allow=["198.51.100.0/24"], who="ada")


HABITS = Habits(
    networks=frozenset({"203.0.113.0/24", "198.51.100.0/24"}),
    user_agents=frozenset({"browser", "phone"}),
    last_at=NOW - timedelta(minutes=5),
    last_network="203.0.113.0/24",
    last_user_agent="browser",
)


@pytest.mark.parametrize(
    ("device", "signals"),
    [
        (Device("203.0.113.9", "browser"), []),
        (Device("198.51.100.7", "browser"), []),
        (Device("203.0.113.9", "phone"), []),
        (Device("198.51.100.7", "phone"), [IMPOSSIBLE_PACE]),
        (Device("192.0.2.1", "browser"), [NEW_NETWORK]),
        (Device("203.0.113.9", "robot"), [NEW_DEVICE]),
        (Device("192.0.2.1", "robot"), [NEW_NETWORK, NEW_DEVICE, IMPOSSIBLE_PACE]),
    ],
)
def test_sign_in_when_compared_with_habits_names_what_is_unusual(device: Device, signals: list[str]) -> None:
    assert judge_signals(HABITS, device, NOW) == signals


def test_sign_in_when_it_is_the_first_is_not_unusual() -> None:
    assert judge_signals(Habits(), Device("192.0.2.1", "robot"), NOW) == []


def test_secret_when_sealed_opens_for_its_owner_and_key_only(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "secrets.key")
    sealed = sealer.seal(b"secret", "ada")

    assert Sealer(tmp_path / "secrets.key").open(sealed, "ada") == b"secret"
    for other, owner in ((sealer, "grace"), (Sealer(bytes(KEY_BYTES)), "ada")):
        with pytest.raises(UnavailableError):
            other.open(sealed, owner)


def test_key_when_cut_short_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "secrets.key").write_bytes(b"short")

    with pytest.raises(UnavailableError):
        Sealer(tmp_path / "secrets.key").seal(b"secret", "ada")
