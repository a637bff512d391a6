"""Keys whose time is over leave their nodes. sshd refuses them at that moment by itself; this tidies up after it."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog
from sqlalchemy import select

from controller.core.context import SYSTEM, OpContext
from controller.core.operations import Operations
from controller.modules.ssh.models import SshKeyRow
from controller.modules.ssh.service import expire_keys
from shared.errors import FleetError

EXPIRY_SECONDS: Final = 60.0
_AT_ONCE: Final = 200
_REQUEST_ID: Final = "schedule/ssh-keys.expire"
_log = structlog.get_logger("controller.ssh")


async def expire_due_keys(operations: Operations) -> str | None:
    """One round; safe to run again. One account that cannot be changed now stops no other."""
    accounts = await operations.read(SYSTEM, _REQUEST_ID, _list_accounts)
    count = 0
    for account_id in accounts:
        try:
            outcome = await operations.change(SYSTEM, _REQUEST_ID, partial(expire_keys, account_id=account_id))
        except FleetError as error:
            _log.warning("ssh_keys.not_expired", account_id=account_id, error=str(error))
            continue
        count += outcome.resource
    return f"{count} keys have expired" if count else None


async def _list_accounts(ctx: OpContext) -> list[str]:
    statement = (
        select(SshKeyRow.account_id)
        .where(SshKeyRow.expires_at <= ctx.now, SshKeyRow.expired_at.is_(None))
        .distinct()
        .limit(_AT_ONCE)
    )
    return list(await ctx.session.scalars(statement))
