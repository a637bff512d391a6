"""What of packages, resellers, webhooks and the audit log needs a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.attention.glances import Source
from controller.core.attention.items import (
    CRITICAL,
    RESELLER,
    TENANT_RULE,
    TENANT_WEBHOOK,
    WARNING,
    AttentionItem,
    act,
    make_fingerprint,
)
from controller.core.audit.witness_models import AuditContradiction
from controller.core.limits.registry import LimitRegistry
from controller.core.packages.rollouts.models import PackageRollout
from controller.core.resellers.caps import Promised, list_capped, list_over, read_promised
from controller.core.rules.models import PLATFORM, Rule
from controller.core.tenancy.models import Reseller
from controller.core.usage.models import AccountUsage
from controller.core.webhooks.audience import is_of_a_tenant
from controller.core.webhooks.models import WebhookEndpoint
from controller.fleet.rollouts.models import RolloutState


def _view_usage(row: AccountUsage, account: Account) -> AttentionItem:
    is_over = row.over_since is not None
    words = "is over its limit of" if is_over else "nears its limit of"
    base = f"/accounts/{account.id}"
    return AttentionItem(
        id=f"usage.{row.id}",
        kind="usage",
        severity=CRITICAL if is_over else WARNING,
        title=f"account {account.name} {words} {row.limit_key}",
        detail=f"{row.used} used; warned above {row.soft if row.soft is not None else 'none'}, "
        f"allowed {row.hard if row.hard is not None else 'any number'}",
        since=row.over_since or row.near_since or row.measured_at,
        node_id=account.node_id,
        node_name="",
        account_id=account.id,
        is_muted=False,
        actions=(
            act("show", "Show all it uses.", f"accounts list-usage {account.name}", "GET", f"{base}/usage"),
            act(
                "change-package",
                "Give it a larger package.",
                f"accounts update {account.name} --package-id NAME",
                "PATCH",
                base,
            ),
        ),
        fingerprint=make_fingerprint("over" if is_over else "near", row.limit_key),
    )


def _view_package_rollout(row: PackageRollout) -> AttentionItem:
    base, call = f"/package-rollouts/{row.id}", f"package-rollouts resume {row.id}"
    back = "Take the edit back everywhere."
    return AttentionItem(
        id=f"package_rollout.{row.id}",
        kind="package_rollout",
        severity=CRITICAL,
        title=f"version {row.version} of the package {row.package_name} is halted in wave {row.wave + 1}",
        detail=row.blocked_by,
        since=row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            act("retry", "Try the accounts that failed again.", f"{call} --is-retrying", "POST", f"{base}/resume"),
            act("resume", "Go on without them.", call, "POST", f"{base}/resume"),
            act("return", back, f"package-rollouts return {row.id}", "POST", f"{base}/return"),
        ),
        fingerprint=make_fingerprint(row.blocked_by, str(row.updated_at)),
    )


def _view_webhook(row: WebhookEndpoint) -> AttentionItem:
    base, call = f"/webhooks/{row.id}", f"webhooks resume {row.id}"
    kind = TENANT_WEBHOOK if row.owner else "webhook"
    return AttentionItem(
        id=f"{kind}.{row.id}",
        kind=kind,
        severity=WARNING,
        title=f"the webhook {row.url[:200]} is paused",
        detail=row.pause_reason,
        since=row.paused_at or row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            act("resume", "Send it what was kept, and go on.", call, "POST", f"{base}/resume"),
            act("delete", "Nobody needs it.", f"webhooks delete {row.id}", "DELETE", base),
        ),
        fingerprint=make_fingerprint(str(row.paused_at), row.pause_reason),
    )


def _view_rule(row: Rule) -> AttentionItem:
    base = f"/rules/{row.id}"
    kind = "rule" if row.owner == PLATFORM else TENANT_RULE
    return AttentionItem(
        id=f"{kind}.{row.id}",
        kind=kind,
        severity=WARNING,
        title=f"the rule {row.name} is paused",
        detail=row.pause_reason,
        since=row.paused_at or row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            act("show", "What it did.", f"rules list-runs {row.name}", "GET", f"{base}/runs"),
            act("resume", "Let it act again.", f"rules resume {row.name}", "POST", f"{base}/resume"),
        ),
        fingerprint=make_fingerprint(str(row.paused_at), row.pause_reason),
    )


def _view_contradiction(row: AuditContradiction) -> AttentionItem:
    """It never goes away by itself: somebody has to look, and to put it aside."""
    return AttentionItem(
        id=f"audit.{row.id}",
        kind="audit",
        severity=CRITICAL,
        title="a node was shown another audit log before",
        detail=f"{row.code}: shown {row.shown_number} entries, and it knows an end at {row.known_number}. "
        "A restored backup, or somebody rewrote the log: compare with an export.",
        since=row.at,
        node_id=row.node_id,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(act("verify", "Walk along the whole log.", "audit verify", "GET", "/audit/verify"),),
        fingerprint=make_fingerprint(row.code, str(row.known_number)),
    )


def _paused(
    kind: str, model: type[WebhookEndpoint | Rule], owner: ColumnElement[bool], view: Callable[..., AttentionItem]
) -> Source:
    """What stopped by itself, and does nothing more until somebody looked."""
    return Source(
        kind=kind,
        entities=select(model),
        where=lambda: (model.paused_at.is_not(None), model.is_enabled.is_(True), owner),
        view=view,
        id=model.id,
        since=func.coalesce(model.paused_at, model.updated_at),
        is_critical=literal(value=False),
    )


SOURCES: Final = (
    Source(
        kind="usage",
        entities=select(AccountUsage, Account)
        .select_from(AccountUsage)
        .join(Account, Account.id == AccountUsage.account_id),
        where=lambda: (
            Account.deleted_at.is_(None),
            or_(AccountUsage.over_since.is_not(None), AccountUsage.near_since.is_not(None)),
        ),
        view=_view_usage,
        id=AccountUsage.id,
        since=func.coalesce(AccountUsage.over_since, AccountUsage.near_since, AccountUsage.measured_at),
        is_critical=AccountUsage.over_since.is_not(None),
        node_id=Account.node_id,
        account_id=Account.id,
    ),
    Source(
        kind="package_rollout",
        entities=select(PackageRollout),
        where=lambda: (PackageRollout.state == RolloutState.HALTED,),
        view=_view_package_rollout,
        id=PackageRollout.id,
        since=PackageRollout.updated_at,
        is_critical=literal(value=True),
    ),
    Source(
        kind="audit",
        entities=select(AuditContradiction),
        where=tuple,
        view=_view_contradiction,
        id=AuditContradiction.id,
        since=AuditContradiction.at,
        is_critical=literal(value=True),
        node_id=AuditContradiction.node_id,
    ),
    _paused("webhook", WebhookEndpoint, ~is_of_a_tenant(), _view_webhook),
    _paused(TENANT_WEBHOOK, WebhookEndpoint, is_of_a_tenant(), _view_webhook),
    _paused("rule", Rule, Rule.owner == PLATFORM, _view_rule),
    _paused(TENANT_RULE, Rule, Rule.owner != PLATFORM, _view_rule),
)


async def list_of_resellers(session: AsyncSession, limits: LimitRegistry, *, is_platform: bool) -> list[AttentionItem]:
    """Resellers whose accounts were promised more than they have to hand out. `is_platform`: all are seen."""
    columns = (Reseller.id, Reseller.name, Reseller.caps, Reseller.oversell, Reseller.updated_at)
    rows = (await session.execute(select(*columns).where(Reseller.deleted_at.is_(None)))).all()
    capped = [row for row in rows if row.caps]
    wanted = None if is_platform else [row.id for row in capped]
    promised = await read_promised(session, limits, wanted, only=list_capped(capped))
    over = [(row, list_over(row, promised.get(row.id, Promised()))) for row in capped]
    return [_view_reseller(row, keys) for row, keys in over if keys]


def _view_reseller(row: Row[Any], keys: Sequence[str]) -> AttentionItem:
    base = f"/resellers/{row.id}"
    return AttentionItem(
        id=f"reseller.{row.id}",
        kind=RESELLER,
        severity=WARNING,
        title=f"reseller {row.name} handed out more than it has",
        detail=f"more than the cap allows of {', '.join(keys)}; nothing more of it is promised",
        since=row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            act("show", "Show all it handed out.", f"resellers list-usage {row.id}", "GET", f"{base}/usage"),
            act("raise", "Give it more.", f"resellers update {row.id} --caps KEY=AMOUNT", "PATCH", base),
        ),
        fingerprint=make_fingerprint(*keys),
    )
