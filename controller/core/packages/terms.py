"""What an account's package says to whoever asks: the package as it is now, or the version that it is pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.limits.registry import LimitRegistry
from controller.core.manifest import PackageRules
from controller.core.packages.models import Package, PackageVersion
from controller.db.criteria import EVERYBODY
from shared.specs.account import ResourceLimits

Terms = Package | PackageVersion

NODE_KEYS: Final = ("cpu_percent", "memory_bytes", "processes_max", "io_weight", "disk_bytes")
"""Limits whose hard value is a column of its own, because a node is told it."""
STRICTNESS: Final = "security.process_restrictions"
"""The option that says whether accounts may start programs: standard or strict."""


async def terms_of(session: AsyncSession, account: Account) -> Terms:
    """What the account may have; also where its tenant does not see the package itself."""
    if account.package_version_id is not None:
        return await session.get_one(PackageVersion, account.package_version_id, execution_options=EVERYBODY)
    return await session.get_one(Package, account.package_id, execution_options=EVERYBODY)


def limits_of(terms: Terms) -> ResourceLimits:
    """What the kernel is asked to enforce.

    Raises:
        InvalidInputError: A value is outside its range; `field` names it.
    """
    return ResourceLimits(**{key: getattr(terms, key) for key in NODE_KEYS})


def rules_of(terms: Terms) -> PackageRules:
    """What modules must know of the package, and no kernel enforces."""
    versions = tuple(terms.php_versions) if terms.php_versions is not None else None
    return PackageRules(name=terms.name, php_versions=versions)


def is_strict(terms: Terms) -> bool:
    """Whether accounts start no programs: PHP starts none, and nothing gives them a shell."""
    return bool(terms.options.get(STRICTNESS) == "strict")


def hard_of(terms: Terms | Row[Any], key: str) -> int | None:
    """What an account may have at most; None: as much as it likes. A row has at least `limits` and `NODE_KEYS`."""
    if key in NODE_KEYS:
        value: int | None = getattr(terms, key)
        return value
    hard: int | None = terms.limits.get(key, {}).get("hard")
    return hard


def soft_of(terms: Terms, key: str) -> int | None:
    """From where on somebody is warned; None: never."""
    soft: int | None = terms.limits.get(key, {}).get("soft")
    return soft


def flags_of(terms: Terms, registry: LimitRegistry) -> Mapping[str, bool]:
    """Every feature, on or off."""
    return {kind.key: bool(terms.flags.get(kind.key, kind.is_on_by_default)) for kind in registry.flags}
