"""Which PHP versions a node shall have. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.modules.php.layout import version_number
from shared.errors import InvalidInputError, PlanError
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import parse_php_version

VERSIONS_SETTING: Final = "versions"


def parse_versions(spec: ModuleSpec) -> tuple[str, ...]:
    """Return the versions that the settings name, lowest first; empty where the choice is the node's.

    Raises:
        PlanError: A setting is unknown, or one of the words is no version.
    """
    unknown = sorted(set(spec.settings) - {VERSIONS_SETTING})
    if unknown:
        raise PlanError(f"the php module has the setting {VERSIONS_SETTING} only; {', '.join(unknown)} is unknown")
    words = spec.settings.get(VERSIONS_SETTING, "").split()
    try:
        return order_versions({parse_php_version(word) for word in words})
    except InvalidInputError as error:
        raise PlanError(f"the setting {VERSIONS_SETTING} is wrong: {error.message}") from error


def choose_versions(
    named: tuple[str, ...], present: tuple[str, ...], available: tuple[str, ...], installed: frozenset[str]
) -> tuple[str, ...]:
    """Return the versions that the node shall have: those named, else those it has, else the newest that apt offers.

    Raises:
        PlanError: One is neither installed nor offered, or there is nothing to choose from.
    """
    chosen = named or present or available[-1:]
    offer = ", ".join(available) or "none"
    if not chosen:
        raise PlanError(
            "this node's package sources offer no PHP-FPM", hint="Check /etc/apt/sources.list.d and run apt-get update."
        )
    for version in chosen:
        if version not in available and f"php{version}-fpm" not in installed:
            raise PlanError(
                f"PHP {version} cannot be had on this node; its package sources offer {offer}",
                hint="Choose an offered version, or add a package source that has this one.",
            )
    return chosen


def order_versions(versions: Iterable[str]) -> tuple[str, ...]:
    """Each version once, lowest first."""
    return tuple(sorted(set(versions), key=version_number))
