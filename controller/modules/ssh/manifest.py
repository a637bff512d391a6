"""From keys to the spec of an account's logins."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.observe import Observation
from controller.core.manifest import AccountFacts, Contribution, PackageRules
from controller.modules.ssh import store
from controller.modules.ssh.models import SshKeyRow
from shared.specs.ssh_access import SshAccessSpec, SshKey


class SshContributor:
    """Adds an account's keys to its manifest, while its package has SSH."""

    async def contribute(self, session: AsyncSession, account: AccountFacts) -> Contribution:
        """One spec with all keys, and a shell to log in to; nothing without a key, or where the package forbids it."""
        if store.FEATURE not in account.features or account.is_strict:
            return Contribution()
        rows = [row for row in await store.list_of_account(session, account.id) if row.expired_at is None]
        if not rows:
            return Contribution()
        spec = SshAccessSpec(account=account.name, uid=account.uid, keys=tuple(_key_of(row) for row in rows))
        return Contribution(specs=(spec,), needs_shell=True)

    async def used_domains(self, session: AsyncSession, account_id: str) -> frozenset[str]:  # noqa: ARG002 - the contract's
        """Keys need no names."""
        return frozenset()

    async def require_fits(self, session: AsyncSession, account_id: str, rules: PackageRules) -> None:
        """How many there may be is counted by the registry of limits; without the feature they wait."""

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:  # noqa: ARG002 - as above
        """The account is gone, and its keys with it."""
        await _forget_keys(session, account_id)


class SshObserver:
    """Keys have no state of their own on a node; only the end of their account concerns them."""

    prefix: Final = "ssh_access/"

    async def observe(self, session: AsyncSession, seen: Observation) -> None:
        """Nothing to note: what a node parks is kept by core."""

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:  # noqa: ARG002 - as above
        """The account is gone, and its keys with it."""
        await _forget_keys(session, account_id)


async def _forget_keys(session: AsyncSession, account_id: str) -> None:
    await session.execute(delete(SshKeyRow).where(SshKeyRow.account_id == account_id))


def _key_of(row: SshKeyRow) -> SshKey:
    return SshKey(
        key_type=row.key_type,
        blob=row.blob,
        expires_at=int(row.expires_at.timestamp()) if row.expires_at is not None else None,
        networks=tuple(row.allowed_networks),
    )
