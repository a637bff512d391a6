"""What an edit of a package would mean for its accounts, before anybody saves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import func, select

from controller.core.accounts.models import Account
from controller.core.operations import FleetContext
from controller.core.packages import store
from controller.core.packages.definition import node_fields
from controller.core.packages.lineage import read_heirs
from controller.core.packages.models import Package
from controller.core.packages.service import rewrite_package
from controller.core.packages.terms import hard_of
from controller.core.packages.views import PackageUpdate
from controller.core.paging import PageRequest, parse_cursor, render_cursor, require_limit
from controller.fleet.models import Node

BATCH: Final = 500
"""Accounts whose use is counted with one query per limit."""


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """One limit that an account would be over."""

    limit: str
    used: int
    allowed: int
    is_new: Annotated[bool, Meta(description="False: the account is over the present value as well.")]


class AffectedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account that would have more than its package allows."""

    account_id: str
    name: str
    node_id: str | None
    package_id: str
    over: tuple[Excess, ...]


class AffectedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that would have to be told."""

    node_id: str
    name: str
    accounts: Annotated[int, Meta(description="How many of its accounts would converge.")]


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What the edit would mean. Nothing was changed."""

    changed_fields: tuple[str, ...]
    packages: Annotated[tuple[str, ...], Meta(description="Packages that would have other values: it and its heirs.")]
    accounts: Annotated[int, Meta(description="Accounts that follow the newest version of one of them.")]
    pinned: Annotated[int, Meta(description="Accounts that are pinned to a version, so that nothing changes for them.")]
    over: Annotated[int, Meta(description="Accounts that would be over a limit, on whatever page.")]
    newly_over: Annotated[int, Meta(description="Those of them that are not over it now.")]
    uncounted: Annotated[
        tuple[str, ...], Meta(description="Limits that would be cut, and of which this release counts no use.")
    ]
    nodes: tuple[AffectedNode, ...]
    items: Annotated[tuple[AffectedAccount, ...], Meta(description="Accounts that would be over, newest first.")]
    next_cursor: str | None


async def judge_update(ctx: FleetContext, package_id: str, params: PackageUpdate, page: PageRequest) -> WhatIf:
    """Make the edit, look at it, and leave it to the caller to roll it back: run it as a dry run only.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: The edit itself is refused.
    """
    ctx.actor.require("packages", "write")
    require_limit(page.limit)
    after_id = parse_cursor(page.cursor) if page.cursor else None
    package = await store.get_package(ctx.session, package_id)
    old = await _read_hard(ctx, package)
    changed = await rewrite_package(ctx, package, params)
    found: list[AffectedAccount] = []
    told: Counter[str] = Counter()
    total = 0
    cut: set[str] = set()
    for row, fields in changed:
        accounts = await _list_followers(ctx, row)
        total += len(accounts)
        cut |= {key for key, value in old[row.id].items() if _is_cut(value, hard_of(row, key))}
        found += await _find_over(ctx, row, old[row.id], accounts)
        if fields & node_fields(ctx.registry.limits):
            told.update(account.node_id for account in accounts if account.node_id is not None)
    found.sort(key=lambda item: item.account_id, reverse=True)
    fitting = [item for item in found if after_id is None or item.account_id < after_id]
    counted = {kind.key for kind in ctx.registry.limits.counted}
    return WhatIf(
        changed_fields=tuple(sorted(changed[0][1])) if changed else (),
        packages=tuple(row.name for row, _ in changed),
        accounts=total,
        pinned=await _count_pinned(ctx, [row for row, _ in changed]),
        over=len(found),
        newly_over=sum(any(excess.is_new for excess in item.over) for item in found),
        uncounted=tuple(sorted(cut - counted)),
        nodes=await _view_nodes(ctx, told),
        items=tuple(fitting[: page.limit]),
        next_cursor=render_cursor(fitting[page.limit - 1].account_id) if len(fitting) > page.limit else None,
    )


async def _read_hard(ctx: FleetContext, package: Package) -> dict[str, dict[str, int | None]]:
    """Package id to its hard values before the edit, for the package and everything below it."""
    rows = [package, *await read_heirs(ctx.session, package.id)]
    return {row.id: {kind.key: hard_of(row, kind.key) for kind in ctx.registry.limits.limits} for row in rows}


async def _list_followers(ctx: FleetContext, package: Package) -> Sequence[Account]:
    statement = select(Account).where(
        Account.package_id == package.id, Account.package_version_id.is_(None), Account.deleted_at.is_(None)
    )
    return (await ctx.session.scalars(statement.order_by(Account.id))).all()


async def _find_over(
    ctx: FleetContext, package: Package, old: Mapping[str, int | None], accounts: Sequence[Account]
) -> list[AffectedAccount]:
    found = []
    kinds = [kind for kind in ctx.registry.limits.counted if hard_of(package, kind.key) is not None]
    for start in range(0, len(accounts), BATCH):
        batch = accounts[start : start + BATCH]
        ids = [account.id for account in batch]
        used = {kind.key: await kind.count(ctx.session, ids) for kind in kinds if kind.count is not None}
        for account in batch:
            own = {key: counts.get(account.id, 0) for key, counts in used.items()}
            over = tuple(
                Excess(limit=key, used=amount, allowed=allowed, is_new=not _is_over(amount, old[key]))
                for key, amount in own.items()
                if (allowed := hard_of(package, key)) is not None and amount > allowed
            )
            if over:
                found.append(
                    AffectedAccount(
                        account_id=account.id,
                        name=account.name,
                        node_id=account.node_id,
                        package_id=package.id,
                        over=over,
                    )
                )
    return found


def _is_over(used: int, allowed: int | None) -> bool:
    return allowed is not None and used > allowed


def _is_cut(old: int | None, new: int | None) -> bool:
    return new is not None and (old is None or new < old)


async def _count_pinned(ctx: FleetContext, packages: Sequence[Package]) -> int:
    statement = select(func.count()).where(
        Account.package_id.in_([row.id for row in packages]),
        Account.package_version_id.is_not(None),
        Account.deleted_at.is_(None),
    )
    return await ctx.session.scalar(statement) or 0


async def _view_nodes(ctx: FleetContext, told: Counter[str]) -> tuple[AffectedNode, ...]:
    statement = select(Node.id, Node.name).where(Node.id.in_(told)).order_by(Node.name)
    rows = await ctx.session.execute(statement)
    return tuple(AffectedNode(node_id=row[0], name=row[1], accounts=told[row[0]]) for row in rows)
