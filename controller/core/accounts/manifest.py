"""From an account's rows to its manifest."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account, AccountState
from controller.core.manifest import AccountFacts, ManifestRegistry, RuntimeLimits
from controller.core.packages.terms import Terms, limits_of, terms_of
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy, Manifest, Suspension
from shared.types.names import UnixName

_PRESENCES: Final = {
    AccountState.ACTIVE: Presence.ENABLED,
    AccountState.SUSPENDED: Presence.DISABLED,
    AccountState.DELETING: Presence.ABSENT,
    AccountState.DELETED: Presence.ABSENT,
}


async def compile_account(
    session: AsyncSession, registry: ManifestRegistry, account: Account, *, drift_policy: DriftPolicy
) -> Manifest:
    """Everything that the account's node must hold for it at its desired generation. Changes nothing."""
    package = await terms_of(session, account)
    contribution = await registry.collect(session, facts_of(account, package))
    spec = AccountSpec(name=UnixName(account.name), uid=account.uid, limits=limits_of(package))
    is_suspended = account.state is AccountState.SUSPENDED
    is_leaving = account.state in (AccountState.DELETING, AccountState.DELETED)
    return Manifest(
        subject=account.subject,
        generation=account.desired_generation,
        presence=_PRESENCES[account.state],
        suspension=Suspension(reason=account.suspension_reason) if is_suspended else None,
        specs=(spec, *contribution.specs),
        held=() if is_leaving else contribution.held,  # what is parked goes with the account
        drift_policy=drift_policy,
    )


def facts_of(account: Account, package: Terms) -> AccountFacts:
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
    )
