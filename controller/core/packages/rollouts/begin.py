"""An edit that is to reach its accounts in waves: pin them all to what they have, and plan whose turn comes when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account, AccountState
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.rollouts.models import PackageRollout, PackageRolloutAccount
from controller.core.packages.views import RolloutTerms
from controller.db.criteria import EVERYBODY
from controller.fleet.models import Node
from controller.fleet.rollouts.models import RolloutNodeState, RolloutState
from controller.fleet.rollouts.plan import assign_waves, parse_waves
from controller.jobs.holds import held_node_ids
from shared.errors import ConflictError

NOTHING: Final[Mapping[str, Any]] = {}
OPEN: Final = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)


async def find_open_rollouts(
    session: AsyncSession, package_ids: Collection[str], *, options: Mapping[str, Any] = NOTHING
) -> dict[str, str]:
    """Package id to the rollout under way that reaches its accounts, edits of what it inherits from included.

    `options`: EVERYBODY for whoever must know of one that is not theirs to see.
    """
    own = select(PackageRollout.package_id, PackageRollout.id).where(
        PackageRollout.state.in_(OPEN), PackageRollout.package_id.in_(package_ids)
    )
    reached = (
        select(PackageVersion.package_id, PackageRollout.id)
        .join(PackageRolloutAccount, PackageRolloutAccount.version_before_id == PackageVersion.id)
        .join(PackageRollout, PackageRollout.id == PackageRolloutAccount.rollout_id)
        .where(PackageRollout.state.in_(OPEN), PackageVersion.package_id.in_(package_ids))
        .distinct()
    )
    statements = (own.execution_options(**options), reached.execution_options(**options))
    found = [row for statement in statements for row in (await session.execute(statement)).all()]
    return {row[0]: row[1] for row in found}


async def require_no_rollout(session: AsyncSession, packages: Sequence[Package]) -> None:
    """Pass when nobody is on the way to any of these packages' newest version.

    Raises:
        ConflictError: A rollout is open.
    """
    # Also of a package of the platform from which a reseller's inherits: what is open there is not theirs to see.
    found = await find_open_rollouts(session, [package.id for package in packages], options=EVERYBODY)
    for package in packages:
        if package.id in found:
            raise ConflictError(
                f"a rollout of the package {package.name!r} is not finished",
                hint=f"Let it finish, or end it: wcp360 package-rollouts abort (or return) {found[package.id]}.",
                context={"rollout_id": found[package.id]},
            )


async def begin_rollout(
    ctx: FleetContext, package: Package, changed: Sequence[Package], terms: RolloutTerms
) -> PackageRollout | None:
    """After an edit: keep every account of the packages that it changed where it was, and plan the waves.

    Returns:
        None when nobody follows any of them: there is nothing to roll out.

    Raises:
        InvalidInputError: The waves make no sense.
    """
    waves = parse_waves(terms.waves, field="rollout.waves")
    before = await _read_versions_before(ctx.session, changed)
    accounts = await _choose_accounts(ctx.session, before)
    if not accounts:
        return None
    row = PackageRollout(
        package_id=package.id,
        package_name=package.name,
        version_before=package.version - 1,
        version=package.version,
        state=RolloutState.RUNNING,
        waves=list(waves),
        wave=0,
        soak_seconds=terms.soak_seconds,
        max_failures=terms.failures_max,
        failures_forgiven=0,
        account_timeout_seconds=terms.account_timeout_seconds,
        deadline_at=ctx.now + timedelta(hours=terms.deadline_hours),
        blocked_by="",
        actor=ctx.actor.reference[:100],
        created_at=ctx.now,
    )
    ctx.session.add(row)
    await ctx.session.flush()
    places = assign_waves(waves, len(accounts))
    for account, place in zip(accounts, places, strict=True):
        if account.package_version_id is None:
            account.package_version_id = before[account.package_id]
        ctx.session.add(
            PackageRolloutAccount(
                rollout_id=row.id,
                account_id=account.id,
                version_before_id=account.package_version_id,
                wave=place,
                state=RolloutNodeState.WAITING,
                generation=0,
            )
        )
    await ctx.session.flush()
    counts = [places.count(index) for index in range(len(waves))]
    after = {"package": package.id, "version": row.version, "waves": list(waves), "accounts_per_wave": counts}
    ctx.unplanned += len(accounts)
    record(ctx, Change("package_rollout.create", f"package_rollout/{row.id}", package.name, after=after))
    return row


async def _read_versions_before(session: AsyncSession, changed: Sequence[Package]) -> dict[str, str]:
    """Package id to the id of the version before the newest."""
    wanted = {(package.id, package.version - 1) for package in changed}
    statement = select(PackageVersion.package_id, PackageVersion.number, PackageVersion.id).where(
        PackageVersion.package_id.in_([package.id for package in changed])
    )
    rows = (await session.execute(statement)).all()
    return {package_id: version_id for package_id, number, version_id in rows if (package_id, number) in wanted}


async def _choose_accounts(session: AsyncSession, before: Mapping[str, str]) -> list[Account]:
    """Who follows these packages, and whom an earlier rollout left behind; first those that can take it now."""
    live = (AccountState.ACTIVE, AccountState.SUSPENDED)
    meant = select(Account).where(
        Account.package_id.in_(list(before)), Account.deleted_at.is_(None), Account.state.in_(live)
    )
    following = await session.scalars(meant.where(Account.package_version_id.is_(None)))
    left = (
        meant.join(PackageRolloutAccount, PackageRolloutAccount.account_id == Account.id)
        .join(PackageRollout, PackageRollout.id == PackageRolloutAccount.rollout_id)
        .where(
            PackageRolloutAccount.version_before_id == Account.package_version_id,
            PackageRolloutAccount.state == RolloutNodeState.SKIPPED,
            PackageRollout.state.not_in(OPEN),
        )
    )
    found = {account.id: account for account in (*following.all(), *(await session.scalars(left)).all())}
    held = await held_node_ids(session)
    nodes = await session.execute(select(Node.id, Node.is_connected))
    ready = {node_id for node_id, is_connected in nodes if is_connected and node_id not in held}
    return sorted(found.values(), key=lambda account: (account.node_id not in ready, account.id))
