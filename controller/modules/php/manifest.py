"""From needs to pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from controller.core.manifest import AccountFacts
from shared.specs.manifest import AnySpec
from shared.specs.php_pool import PhpPoolSpec

KIND: Final = "php"


class PhpProvider:
    """One pool for each version that the account needs, as large as its package says."""

    def provide(self, account: AccountFacts, versions: Sequence[str]) -> tuple[AnySpec, ...]:
        """In the order of `versions`."""
        return tuple(
            PhpPoolSpec(
                account=account.name,
                uid=account.uid,
                version=version,
                children_max=account.runtime.children_max,
                memory_limit_bytes=account.runtime.memory_limit_bytes,
                upload_max_bytes=account.runtime.upload_max_bytes,
            )
            for version in versions
        )
