"""A change of an account, for the audit log."""

from __future__ import annotations

import msgspec

from controller.core.accounts import store
from controller.core.accounts.models import Account
from controller.core.accounts.views import AccountView
from controller.core.audit.chain import record
from controller.core.context import Change, OpContext


def record_account(ctx: OpContext, action: str, account: Account, *, before: AccountView | None) -> AccountView:
    """Note what the account was and what it is now; the latter is the answer.

    Args:
        ctx: The change that it belongs to.
        action: For example account.suspend.
        account: As it is now.
        before: As it was; None: it is new.
    """
    after = store.view_account(account)
    change = Change(
        action=action,
        target=f"account/{account.id}",
        target_name=account.name,
        before=msgspec.to_builtins(before) if before is not None else None,
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after
