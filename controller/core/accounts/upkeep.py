"""What time does to accounts: suspensions end, grace periods are over, certificates get their place in the audit log.

Called by a schedule, so once in the whole controller; each account is looked at again in a transaction of its own, so
a second process that comes too late finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Select, select

from controller.core.accounts.certificate import CERTIFIED, find_entry
from controller.core.accounts.deletion import purge_account
from controller.core.accounts.models import Account, AccountState, DeletionCertificate
from controller.core.accounts.store import lock_account
from controller.core.accounts.suspension import unsuspend_account
from controller.core.accounts.views import AccountView
from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change
from controller.core.operations import FleetContext, Operations
from controller.db.base import utc_now
from shared.errors import FleetError

UPKEEP_SECONDS: Final = 15.0
BATCH: Final = 200
"""Accounts in one round; the others come in the next."""
_REQUEST_ID: Final = "schedule/accounts.upkeep"
_log = structlog.get_logger("controller.accounts")


class AccountUpkeep:
    """Bootstrap builds one and lets it come back."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def run(self) -> str | None:
        """One round; safe to run again."""
        now = utc_now()
        ended = await self._each(
            select(Account.id).where(Account.suspended_until <= now, Account.state == AccountState.SUSPENDED), _lift
        )
        purged = await self._each(
            select(Account.id).where(Account.purge_at <= now, Account.state == AccountState.TRASHED), purge_account
        )
        certified = await self.certify()
        words = ((ended, "suspensions ended"), (purged, "accounts purged"), (certified, "deletions certified"))
        return ", ".join(f"{count} {text}" for count, text in words if count) or None

    async def certify(self) -> int:
        """Put the hash of each new certificate into the audit log, then remember where it is."""
        fresh = select(DeletionCertificate.account_id).where(DeletionCertificate.audit_number.is_(None))
        await self._each(fresh, _record_certificate)
        return await self._each(fresh, _note_place)

    async def _each(self, wanted: Select[Any], act: Callable[[FleetContext, str], Awaitable[object]]) -> int:
        async with self._operations.database.read() as session:
            ids: Sequence[str] = (await session.scalars(wanted.limit(BATCH))).all()
        count = 0
        for account_id in ids:
            count += await self._one(account_id, act)
        return count

    async def _one(self, account_id: str, act: Callable[[FleetContext, str], Awaitable[object]]) -> bool:
        async def use_case(ctx: FleetContext) -> bool:
            return bool(await act(ctx, account_id))

        try:
            return (await self._operations.change(SYSTEM, _REQUEST_ID, use_case)).resource
        except FleetError as error:
            # For example a revoked node: this one stays as it is, and the others must still have their turn.
            _log.warning("accounts.upkeep", account_id=account_id, code=error.code, error=error.message)
            return False


async def _lift(ctx: FleetContext, account_id: str) -> AccountView | None:
    account = await lock_account(ctx.session, account_id)
    until = account.suspended_until
    if account.state is not AccountState.SUSPENDED or until is None or until > ctx.now:
        return None
    return await unsuspend_account(ctx, account_id)


async def _find_fresh(ctx: FleetContext, account_id: str) -> DeletionCertificate | None:
    statement = select(DeletionCertificate).where(
        DeletionCertificate.account_id == account_id, DeletionCertificate.audit_number.is_(None)
    )
    return (await ctx.session.scalars(statement)).first()


async def _record_certificate(ctx: FleetContext, account_id: str) -> bool:
    row = await _find_fresh(ctx, account_id)
    if row is None or await find_entry(ctx.session, account_id) is not None:
        return False
    after = {
        "account_id": account_id,
        "client_id": row.content["client"]["id"],
        "certificate_id": row.id,
        "certificate_hash": row.content_hash,
    }
    record(ctx, Change(CERTIFIED, f"account/{account_id}", row.content["account"]["name"], after=after))
    return True


async def _note_place(ctx: FleetContext, account_id: str) -> bool:
    row = await _find_fresh(ctx, account_id)
    entry = await find_entry(ctx.session, account_id)
    if row is None or entry is None:
        return False
    row.audit_number, row.audit_hash = entry.number, entry.hash
    await ctx.session.flush()
    return True
