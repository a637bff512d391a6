"""From needs to pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from controller.core.manifest import AccountFacts, RuntimeChoice, RuntimeLimits
from shared.specs.manifest import AnySpec
from shared.specs.php_pool import PhpPoolSpec, PhpSite

KIND: Final = "php"


class PhpProvider:
    """One pool for each version that the account needs, as large as its package says."""

    def provide(
        self, account: AccountFacts, versions: Sequence[str], choices: Sequence[RuntimeChoice]
    ) -> tuple[AnySpec, ...]:
        """In the order of `versions`; what sites have chosen stays within the package, whatever it was then."""
        return tuple(
            PhpPoolSpec(
                account=account.name,
                uid=account.uid,
                version=version,
                children_max=account.runtime.children_max,
                memory_limit_bytes=account.runtime.memory_limit_bytes,
                upload_max_bytes=account.runtime.upload_max_bytes,
                is_strict=True if account.is_strict else UNSET,
                sites=_sites_of(account.runtime, [choice for choice in choices if choice.need.version == version]),
            )
            for version in versions
        )


def _sites_of(limits: RuntimeLimits, choices: Sequence[RuntimeChoice]) -> tuple[PhpSite, ...] | UnsetType:
    sites = (
        PhpSite(
            domain=choice.domain,
            settings=choice.settings.within(
                memory_limit_bytes=limits.memory_limit_bytes, upload_max_bytes=limits.upload_max_bytes
            ),
        )
        for choice in sorted(choices, key=lambda choice: choice.domain)
        if not choice.settings.is_empty
    )
    return tuple(sites) or UNSET
