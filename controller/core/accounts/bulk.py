"""One change of many accounts: which ones, and what is done to each."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta

from controller.core.accounts import store
from controller.core.accounts.deletion import delete_account, read_grace, restore_account
from controller.core.accounts.labels import require_label_key, require_labels
from controller.core.accounts.models import Account
from controller.core.accounts.queries import AccountFilter, select_accounts
from controller.core.accounts.service import converge_again, update_account
from controller.core.accounts.suspension import suspend_account, unsuspend_account
from controller.core.accounts.views import AccountSuspend, AccountUpdate, AccountView, RowId
from controller.core.bulk import BULK_MAX, require_distinct
from controller.core.operations import FleetContext
from shared.errors import InvalidInputError


class BulkAction(enum.Enum):
    """What is done to each account."""

    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"
    DELETE = "delete"
    RESTORE = "restore"
    LABEL = "label"
    CONVERGE = "converge"


DANGEROUS: Final = frozenset({BulkAction.SUSPEND, BulkAction.DELETE})
"""One request of these takes a thousand accounts from their visitors."""


class BulkFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accounts by what they are, as in the list; all parts must fit."""

    search: Annotated[str, Meta(max_length=253)] | None = None
    client_id: RowId | None = None
    package_id: RowId | None = None
    node_id: RowId | None = None
    state: Annotated[str, Meta(max_length=16)] | None = None
    label: Annotated[str, Meta(max_length=264, description="KEY=VALUE, or KEY.")] | None = None


class BulkAccounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of many accounts."""

    action: BulkAction
    ids: Annotated[tuple[RowId, ...], Meta(max_length=BULK_MAX, description="Which accounts; or say a filter.")] = ()
    filter: Annotated[
        BulkFilter | None, Meta(description=f"Which accounts, {BULK_MAX} at most; at least one part must be said.")
    ] = None
    suspension: Annotated[AccountSuspend | None, Meta(description="For suspend.")] = None
    grace_days: Annotated[
        Annotated[int, Meta(ge=0, le=365)] | None,
        Meta(description="For delete; 0: remove everything now. Left out: as the policy deletion_grace_days says."),
    ] = None
    labels: Annotated[
        dict[str, str | None], Meta(max_length=32, description="For label: these are set, those with null taken away.")
    ] = {}


Change = Callable[[FleetContext, str], Awaitable[AccountView]]


async def choose_accounts(ctx: FleetContext, params: BulkAccounts) -> tuple[str, ...]:
    """Ids of the accounts that are meant, checked before anything is done.

    Raises:
        ForbiddenError
        InvalidInputError: None or both ways to say which, none that fits, more than BULK_MAX, or too long a grace.
    """
    ctx.actor.require("accounts", "write")
    if (params.filter is None) == (not params.ids):
        raise InvalidInputError("say either ids or a filter", field="ids")
    await read_grace(ctx, params.grace_days)
    if params.filter is None:
        require_distinct(params.ids, field="ids")
        return params.ids
    if not any(msgspec.structs.astuple(params.filter)):
        raise InvalidInputError("a filter that fits everything is no filter; say at least one part", field="filter")
    parts = msgspec.structs.asdict(params.filter)
    search = parts.pop("search")
    statement = select_accounts(ctx.actor, AccountFilter(**parts), search).with_only_columns(Account.id)
    ids = tuple((await ctx.session.scalars(statement.order_by(Account.id).limit(BULK_MAX + 1))).all())
    if len(ids) > BULK_MAX:
        raise InvalidInputError(
            f"the filter fits more than {BULK_MAX} accounts",
            field="filter",
            hint="Narrow it, and ask again for the rest.",
        )
    if not ids:
        raise InvalidInputError("the filter fits no account", field="filter")
    return ids


def choose_change(params: BulkAccounts) -> Change:
    """What is done to each.

    Raises:
        InvalidInputError: The labels are none.
    """
    if params.action is BulkAction.SUSPEND:
        suspension = params.suspension or AccountSuspend()
        return lambda ctx, account_id: suspend_account(ctx, account_id, suspension)
    if params.action is BulkAction.DELETE:
        return lambda ctx, account_id: delete_account(ctx, account_id, grace_days=params.grace_days)
    if params.action is BulkAction.LABEL:
        labels = _require_changes(params.labels)
        return lambda ctx, account_id: change_labels(ctx, account_id, labels)
    return _PLAIN[params.action]


_PLAIN: Final[Mapping[BulkAction, Change]] = {
    BulkAction.UNSUSPEND: unsuspend_account,
    BulkAction.RESTORE: restore_account,
    BulkAction.CONVERGE: converge_again,
}


def _require_changes(labels: Mapping[str, str | None]) -> Mapping[str, str | None]:
    if not labels:
        raise InvalidInputError("say which labels", field="labels")
    for key in labels:
        require_label_key(key)
    require_labels({key: value for key, value in labels.items() if value is not None})
    return labels


async def change_labels(ctx: FleetContext, account_id: str, labels: Mapping[str, str | None]) -> AccountView:
    ctx.actor.require("accounts", "write")
    account = await store.lock_account(ctx.session, account_id)
    merged = {**account.labels, **labels}
    kept = {key: value for key, value in merged.items() if value is not None}
    return await update_account(ctx, account_id, AccountUpdate(package_id=UNSET, labels=kept))
