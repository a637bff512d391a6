"""Which PHP versions a node shall have."""

from __future__ import annotations

import pytest

from agent.modules.php.versions import choose_versions, order_versions, parse_versions
from shared.errors import PlanError
from shared.specs.module import ModuleSpec


@pytest.mark.parametrize(
    ("named", "present", "available", "chosen"),
    [
        ((), (), ("8.2",), ("8.2",)),
        ((), (), ("7.4", "8.2", "8.4"), ("8.4",)),
        ((), ("7.4",), ("7.4", "8.4"), ("7.4",)),
        (("8.2", "8.4"), ("8.2",), ("8.2", "8.4"), ("8.2", "8.4")),
    ],
)
def test_choose_versions_prefers_named_then_present_then_newest(
    named: tuple[str, ...], present: tuple[str, ...], available: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert choose_versions(named, present, available, frozenset()) == chosen


def test_choose_versions_when_the_source_is_gone_keeps_what_is_installed() -> None:
    assert choose_versions(("8.2",), ("8.2",), (), frozenset({"php8.2-fpm"})) == ("8.2",)


def test_choose_versions_when_it_cannot_be_had_names_the_offer() -> None:
    with pytest.raises(PlanError, match=r"PHP 9\.0 cannot be had .* offer 8\.2, 8\.4"):
        choose_versions(("9.0",), (), ("8.2", "8.4"), frozenset())


def test_order_versions_counts_numbers_not_letters() -> None:
    assert order_versions(["8.4", "7.4", "8.2", "8.4"]) == ("7.4", "8.2", "8.4")


@pytest.mark.parametrize("text", ["latest", "8", "8.2,8.4", "8.2; rm -rf /"])
def test_parse_versions_with_something_else_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="versions is wrong"):
        parse_versions(ModuleSpec(name="php", settings={"versions": text}))
