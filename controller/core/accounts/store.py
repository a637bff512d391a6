"""Queries about accounts."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account, AccountState, ObservedStatus
from controller.core.accounts.views import AccountView
from controller.core.fields import not_found, require_id
from controller.db.criteria import EVERYBODY
from controller.fleet.models import Node, NodeState
from shared.errors import ConflictError


async def get_account(session: AsyncSession, account_id: str) -> Account:
    """The account with this id; a deleted one is gone.

    Raises:
        NotFoundError
    """
    row = await session.get(Account, require_id("account", account_id))
    if row is None or row.deleted_at is not None:
        raise not_found("account", account_id)
    return row


async def get_account_ever(session: AsyncSession, account_id: str) -> Account:
    """The account with this id, also one that is gone.

    Raises:
        NotFoundError
    """
    statement = select(Account).where(Account.id == require_id("account", account_id))
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise not_found("account", account_id)
    return row


async def lock_account(session: AsyncSession, account_id: str) -> Account:
    """The account, for a change. Results of its node wait until the transaction ends.

    Take the account's lock before anything that belongs to it is read: the observer does it in the same order.

    Raises:
        NotFoundError
    """
    statement = select(Account).where(Account.id == require_id("account", account_id), Account.deleted_at.is_(None))
    statement = statement.with_for_update().execution_options(populate_existing=True)
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise not_found("account", account_id)
    return row


def require_changeable(account: Account) -> None:
    """Pass when its desired state may still be changed.

    Raises:
        ConflictError: It is being deleted, or in the trash (`account_trashed`).
    """
    require_not_deleting(account)
    if account.state is AccountState.TRASHED:
        raise ConflictError(
            f"the account {account.name!r} was deleted",
            code="account_trashed",
            hint="Restore it first: wcp360 accounts restore.",
            context={"purge_at": account.purge_at.isoformat() if account.purge_at else None},
        )


def require_not_deleting(account: Account) -> None:
    """Pass while its node was not told to remove it.

    Raises:
        ConflictError: It is being deleted.
    """
    if account.state is AccountState.DELETING:
        raise ConflictError(f"the account {account.name!r} is being deleted")


async def lock_changeable(session: AsyncSession, account_id: str) -> Account:
    """`lock_account`, if its desired state may still be changed.

    Raises:
        NotFoundError
        ConflictError: It is being deleted, or in the trash.
    """
    account = await lock_account(session, account_id)
    require_changeable(account)
    await require_reachable(session, account)
    return account


async def require_reachable(session: AsyncSession, account: Account) -> None:
    """Pass when its node may ever take a change again; one that is only offline may.

    Raises:
        ConflictError: The node was revoked (`node_revoked`).
    """
    found = await session.execute(select(Node.name, Node.state).where(Node.id == account.node_id))
    row = found.first()
    if row is not None and row[1] is NodeState.REVOKED:
        raise ConflictError(
            f"the node {row[0]} of the account {account.name!r} was revoked, and takes no change any more",
            code="node_revoked",
            hint="Delete the account, or enrol the machine again.",
        )


async def find_live_named(session: AsyncSession, name: str) -> Account | None:
    """The account with this name that is not deleted (it may be on its way), whoever has it: names are the fleet's."""
    statement = select(Account).where(Account.name == name, Account.deleted_at.is_(None))
    return (await session.scalars(statement.execution_options(**EVERYBODY))).first()


async def last_generation(session: AsyncSession, name: str) -> int:
    """The highest generation that any account of this name ever had, whoever had it; 0 when there was none."""
    statement = select(func.max(Account.desired_generation)).where(Account.name == name)
    return await session.scalar(statement.execution_options(**EVERYBODY)) or 0


def view_account(account: Account) -> AccountView:
    """For the API."""
    is_done = account.observed_generation == account.desired_generation
    return AccountView(
        id=account.id,
        name=account.name,
        client_id=account.client_id,
        package_id=account.package_id,
        package_version_id=account.package_version_id,
        node_id=account.node_id,
        uid=account.uid,
        state=account.state.value,
        suspension_reason=account.suspension_reason,
        suspended_at=account.suspended_at,
        suspended_by=account.suspended_by or None,
        suspended_until=account.suspended_until,
        liftable_by=account.liftable_by.value if account.liftable_by else None,
        deletion_asked_at=account.deletion_asked_at,
        deletion_asked_by=account.deletion_asked_by or None,
        purge_at=account.purge_at,
        labels=dict(account.labels or {}),
        desired_generation=account.desired_generation,
        observed_generation=account.observed_generation,
        observed_status=account.observed_status.value,
        observed_at=account.observed_at,
        observed_code=account.observed_code,
        observed_message=account.observed_message,
        is_converged=is_done and account.observed_status is ObservedStatus.OK,
        created_at=account.created_at,
        updated_at=account.updated_at,
        deleted_at=account.deleted_at,
    )
