"""Queries about SSH keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.fields import not_found, require_id
from controller.core.limits.registry import FlagKind, LimitKind
from controller.modules.ssh.models import SshKeyRow
from controller.modules.ssh.views import SshKeyView

FEATURE: Final = "ssh"


async def get_key(session: AsyncSession, key_id: str) -> SshKeyRow:
    """The key with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(SshKeyRow, require_id("SSH key", key_id))
    if row is None:
        raise not_found("SSH key", key_id)
    return row


async def list_of_account(session: AsyncSession, account_id: str) -> list[SshKeyRow]:
    """All keys of an account, oldest first."""
    statement = select(SshKeyRow).where(SshKeyRow.account_id == account_id).order_by(SshKeyRow.id)
    return list(await session.scalars(statement))


async def count_keys(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
    """Account id to the number of its keys, expired ones included."""
    statement = (
        select(SshKeyRow.account_id, func.count())
        .where(SshKeyRow.account_id.in_(account_ids))
        .group_by(SshKeyRow.account_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


SSH_KEYS: Final = LimitKind(key="ssh_keys", title="SSH keys", unit="SSH keys", count=count_keys)
SSH: Final = FlagKind(key=FEATURE, title="SSH access", is_obeyed=True, is_told_to_nodes=True)
"""What the module declares to the registry of limits."""


def view_key(row: SshKeyRow, now: datetime) -> SshKeyView:
    """For the API."""
    is_over = row.expires_at is not None and row.expires_at <= now
    return SshKeyView(
        id=row.id,
        account_id=row.account_id,
        name=row.name,
        key_type=row.key_type,
        fingerprint=row.fingerprint,
        public_key=f"{row.key_type} {row.blob}",
        comment=row.comment,
        expires_at=row.expires_at,
        allowed_networks=tuple(row.allowed_networks),
        state="expired" if is_over else "active",
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
