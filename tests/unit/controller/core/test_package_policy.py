"""What several packages ask of one person together."""

from __future__ import annotations

import pytest

from controller.core.auth.package_policy import NOTHING_ASKED, combine_policies
from shared.errors import ForbiddenError


def test_policies_when_combined_are_as_strict_as_the_strictest() -> None:
    policy = combine_policies(
        [
            {"security.sessions_max": 5, "security.allowed_networks": ["192.0.2.0/24"]},
            {"security.is_two_factor_required": True, "security.sessions_max": 2},
            {},
        ]
    )

    assert (policy.is_two_factor_required, policy.sessions_max) == (True, 2)
    assert (policy.limit_sessions(10), policy.limit_sessions(1)) == (2, 1)
    assert policy.networks == (("192.0.2.0/24",),)


@pytest.mark.parametrize("address", ["198.51.100.1", "", "192.0.2.200"])
def test_address_when_one_package_does_not_let_it_in_is_refused(address: str) -> None:
    policy = combine_policies(
        [{"security.allowed_networks": ["192.0.2.0/24"]}, {"security.allowed_networks": ["192.0.2.0/25"]}]
    )

    policy.require_let_in("192.0.2.7", "ada")
    with pytest.raises(ForbiddenError, match="ada may not come from") as caught:
        policy.require_let_in(address, "ada")
    assert caught.value.code == "network_refused"


def test_nothing_asked_lets_everybody_in() -> None:
    NOTHING_ASKED.require_let_in("198.51.100.1", "ada")

    assert NOTHING_ASKED.limit_sessions(10) == 10


@pytest.mark.parametrize(
    ("flags", "has_tokens"),
    [
        ([], True),
        ([{}], True),
        ([{"api": False}], False),
        ([{"api": False}, {"api": True}], True),
        ([{"api": False}, {}], True),
        ([{"api": False}, {"api": False}], False),
    ],
)
def test_tokens_are_allowed_when_one_package_has_them_or_there_is_none(
    flags: list[dict[str, bool]], *, has_tokens: bool
) -> None:
    policy = combine_policies([], flags)

    assert policy.has_tokens is has_tokens


def test_require_tokens_when_no_package_has_them_says_what_to_do() -> None:
    with pytest.raises(ForbiddenError) as refused:
        combine_policies([], [{"api": False}]).require_tokens("grace")

    assert refused.value.code == "feature_disabled"
    assert refused.value.context == {"feature": "api"}
    assert refused.value.hint is not None
    assert "Sign in" in refused.value.hint
