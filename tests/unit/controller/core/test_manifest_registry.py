"""Contributions of modules that know nothing of each other."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.manifest import (
    AccountFacts,
    Contribution,
    ManifestRegistry,
    PackageRules,
    RuntimeLimits,
    RuntimeNeed,
)
from controller.modules.php.manifest import PhpProvider
from shared.errors import BugError
from shared.types.names import ResourceKey, UnixName

ADA = AccountFacts(
    id="1", name=UnixName("ada"), uid=20_000, node_id="n", runtime=RuntimeLimits(7, 64 * 1024 * 1024, 1024 * 1024)
)
SESSION: Any = AsyncSession()


class FakeContributor:
    """Gives what it was made with."""

    def __init__(self, contribution: Contribution, domains: frozenset[str] = frozenset()) -> None:
        self._contribution = contribution
        self._domains = domains

    async def contribute(self, session: AsyncSession, account: AccountFacts) -> Contribution:
        assert account is ADA
        return self._contribution

    async def used_domains(self, session: AsyncSession, account_id: str) -> frozenset[str]:
        return self._domains

    async def require_fits(self, session: AsyncSession, account_id: str, rules: PackageRules) -> None:
        return None

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        return None


def _needing(*versions: str) -> FakeContributor:
    return FakeContributor(Contribution(needs=frozenset(RuntimeNeed("php", version) for version in versions)))


async def test_collect_provides_each_needed_runtime_once_in_order() -> None:
    registry = ManifestRegistry([_needing("8.4", "8.2"), _needing("8.2")], {"php": PhpProvider()})

    collected = await registry.collect(SESSION, ADA)

    assert [spec.key for spec in collected.specs] == ["php_pool/ada-8.2", "php_pool/ada-8.4"]
    assert {spec.children_max for spec in collected.specs} == {7}  # type: ignore[union-attr]


async def test_collect_without_needs_provides_nothing() -> None:
    registry = ManifestRegistry([_needing()], {"php": PhpProvider()})

    assert (await registry.collect(SESSION, ADA)).specs == ()


async def test_collect_keeps_what_is_held() -> None:
    held = FakeContributor(Contribution(held=(ResourceKey("site/a.example"),)))

    assert (await ManifestRegistry([held]).collect(SESSION, ADA)).held == ("site/a.example",)


async def test_collect_of_a_need_that_nobody_provides_is_a_bug() -> None:
    with pytest.raises(BugError):
        await ManifestRegistry([_needing("8.2")]).collect(SESSION, ADA)


async def test_used_domains_is_the_union_of_all_modules() -> None:
    registry = ManifestRegistry(
        [
            FakeContributor(Contribution(), frozenset({"a.example"})),
            FakeContributor(Contribution(), frozenset({"b.example"})),
        ]
    )

    assert await registry.used_domains(SESSION, "1") == {"a.example", "b.example"}
    assert await ManifestRegistry().used_domains(SESSION, "1") == frozenset()
