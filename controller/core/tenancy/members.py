"""Use cases of an account's team: which members of its client's people work on it."""

from __future__ import annotations

from sqlalchemy import select

from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.auth.models import User
from controller.core.context import Change, OpContext, Role
from controller.core.fields import not_found, require_id
from controller.core.paging import PageRequest, fetch_page
from controller.core.tenancy.models import AccountMember
from controller.core.tenancy.standing import get_person, require_over
from controller.core.tenancy.views import MemberPage, MemberView
from shared.errors import ConflictError

NOUN = "users"


async def list_members(ctx: OpContext, account_id: str, page: PageRequest) -> MemberPage:
    """Of one account, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require(NOUN, "read")
    account = await _get_account(ctx, account_id)
    found = await fetch_page(ctx.session, select(AccountMember).where(AccountMember.account_id == account.id), page)
    people = await ctx.session.scalars(select(User).where(User.id.in_([row.user_id for row in found.rows])))
    users = {user.id: user for user in people}
    items = tuple(_view(row, users[row.user_id]) for row in found.rows if row.user_id in users)
    return MemberPage(items=items, next_cursor=found.next_cursor)


async def set_member(ctx: OpContext, account_id: str, user_id: str) -> MemberView:
    """Let a team member of the account's client work on it; twice is the same.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: They are no member, or of another client.
    """
    ctx.actor.require(NOUN, "write")
    account = await _get_account(ctx, account_id)
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    if user.role != Role.MEMBER.value or user.client_id != account.client_id:
        raise ConflictError(
            f"{user.username} is no team member of the client of {account.name}",
            hint="The client's own people reach all its accounts; members are people with the role member.",
        )
    row = await _find_member(ctx, account, user)
    if row is not None:
        return _view(row, user)
    row = AccountMember(account_id=account.id, user_id=user.id)
    ctx.session.add(row)
    await ctx.session.flush()
    facts = _facts(account, user)
    record(ctx, Change("member.add", f"member/{row.id}", user.username, after=facts))
    return _view(row, user)


async def remove_member(ctx: OpContext, account_id: str, user_id: str) -> None:
    """Let somebody work on the account no more, from their next request on.

    Raises:
        ForbiddenError
        NotFoundError: No such account, or they are none of its members.
    """
    ctx.actor.require(NOUN, "write")
    account = await _get_account(ctx, account_id)
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    row = await _find_member(ctx, account, user)
    if row is None:
        raise not_found("member", user_id)
    await ctx.session.delete(row)
    await ctx.session.flush()
    record(ctx, Change("member.remove", f"member/{row.id}", user.username, before=_facts(account, user)))


async def _get_account(ctx: OpContext, account_id: str) -> Account:
    account = await ctx.session.get(Account, require_id("account", account_id))
    if account is None or account.deleted_at is not None:
        raise not_found("account", account_id)
    return account


async def _find_member(ctx: OpContext, account: Account, user: User) -> AccountMember | None:
    wanted = (AccountMember.account_id == account.id, AccountMember.user_id == user.id)
    return (await ctx.session.scalars(select(AccountMember).where(*wanted))).one_or_none()


def _view(row: AccountMember, user: User) -> MemberView:
    return MemberView(user_id=user.id, username=user.username, role_id=user.role_id, since=row.created_at)


def _facts(account: Account, user: User) -> dict[str, object]:
    return {
        "account_id": account.id,
        "client_id": account.client_id,
        "account": account.name,
        "user": {"id": user.id, "username": user.username, "role_id": user.role_id},
    }
