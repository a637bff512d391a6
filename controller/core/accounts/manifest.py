"""From an account's rows to its manifest."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account, AccountState
from controller.core.limits.registry import LimitRegistry
from controller.core.manifest import AccountFacts, ManifestRegistry, RuntimeLimits
from controller.core.packages.terms import Terms, flags_of, is_strict, limits_of, terms_of
from controller.core.usage.models import OveruseCase
from shared.specs.account import AccountSpec, ResourceLimits
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy, Manifest, Suspension
from shared.types.names import UnixName

THROTTLED_CPU_PERCENT: Final = 20
"""Of one core, for an account that stays over a limit: its sites answer, slowly."""
THROTTLED_IO_WEIGHT: Final = 10
_PRESENCES: Final = {
    AccountState.ACTIVE: Presence.ENABLED,
    AccountState.SUSPENDED: Presence.DISABLED,
    AccountState.TRASHED: Presence.DISABLED,
    AccountState.DELETING: Presence.ABSENT,
    AccountState.DELETED: Presence.ABSENT,
}


async def compile_account(
    session: AsyncSession, registry: ManifestRegistry, account: Account, *, drift_policy: DriftPolicy
) -> Manifest:
    """Everything that the account's node must hold for it at its desired generation. Changes nothing."""
    package = await terms_of(session, account)
    contribution = await registry.collect(session, facts_of(account, package, registry.limits))
    limits = limits_of(package)
    if await _is_throttled(session, account):
        limits = throttle(limits)
    spec = AccountSpec(
        name=UnixName(account.name),
        uid=account.uid,
        limits=limits,
        has_shell=True if contribution.needs_shell else UNSET,
    )
    suspension = {
        AccountState.SUSPENDED: Suspension(reason=account.suspension_reason),
        AccountState.TRASHED: Suspension(reason="deleted"),
    }.get(account.state)
    is_leaving = account.state in (AccountState.DELETING, AccountState.DELETED)
    return Manifest(
        subject=account.subject,
        generation=account.desired_generation,
        presence=_PRESENCES[account.state],
        suspension=suspension,
        specs=(spec, *contribution.specs),
        held=() if is_leaving else contribution.held,  # what is parked goes with the account
        drift_policy=drift_policy,
    )


def throttle(limits: ResourceLimits) -> ResourceLimits:
    """Less of what comes back by itself: nothing that is stored or running is taken away."""
    cpu = THROTTLED_CPU_PERCENT if limits.cpu_percent is None else min(limits.cpu_percent, THROTTLED_CPU_PERCENT)
    weight = THROTTLED_IO_WEIGHT if limits.io_weight is None else min(limits.io_weight, THROTTLED_IO_WEIGHT)
    return msgspec.structs.replace(limits, cpu_percent=cpu, io_weight=weight)


async def _is_throttled(session: AsyncSession, account: Account) -> bool:
    statement = select(OveruseCase.id).where(OveruseCase.account_id == account.id, OveruseCase.action == "throttled")
    return (await session.scalars(statement)).first() is not None


def facts_of(account: Account, package: Terms, limits: LimitRegistry) -> AccountFacts:
    """What modules may know about the account."""
    return AccountFacts(
        id=account.id,
        name=UnixName(account.name),
        uid=account.uid,
        node_id=account.home_node_id,
        runtime=RuntimeLimits(
            children_max=package.php_children_max,
            memory_limit_bytes=package.php_memory_bytes,
            upload_max_bytes=package.upload_max_bytes,
        ),
        features=frozenset(key for key, is_on in flags_of(package, limits).items() if is_on),
        is_strict=is_strict(package),
    )
