"""The closed list of what rules do: each is a use case that people have, too, with all its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from controller.core.accounts.bulk import change_labels
from controller.core.accounts.labels import require_label_key, require_labels
from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.service import converge_again, update_account
from controller.core.accounts.store import get_account
from controller.core.accounts.suspension import suspend_account, unsuspend_account
from controller.core.accounts.views import AccountSuspend, AccountUpdate
from controller.core.audit.chain import record
from controller.core.context import Actor, Change
from controller.core.events.catalogue import RULE_MATCH
from controller.core.fields import require_id_field, require_reference, require_text
from controller.core.operations import FleetContext
from controller.core.packages.store import get_package
from controller.core.rules.models import PLATFORM, RunState
from controller.core.rules.views import ActionType, RuleAction
from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.outbox import SEND_TASK, make_message_id, render_message
from controller.jobs.commands import retry_job
from shared.errors import ConflictError, InvalidInputError

_FIELDS: Final[Mapping[ActionType, frozenset[str]]] = {
    ActionType.SUSPEND: frozenset({"reason"}),
    ActionType.CHANGE_PACKAGE: frozenset({"package_id"}),
    ActionType.SET_LABEL: frozenset({"label", "value"}),
    ActionType.REMOVE_LABEL: frozenset({"label"}),
    ActionType.CALL_WEBHOOK: frozenset({"webhook_id"}),
    ActionType.UNSUSPEND: frozenset({"rule"}),
}
"""What an action needs; one that is not named needs nothing."""
_DONE: Final[Mapping[ActionType, str]] = {
    ActionType.SUSPEND: "suspended",
    ActionType.UNSUSPEND: "ended the suspension of",
    ActionType.CHANGE_PACKAGE: "gave another package to",
    ActionType.SET_LABEL: "set the label {label} of",
    ActionType.REMOVE_LABEL: "removed the label {label} of",
    ActionType.CONVERGE: "asked for what is wanted again for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a rule acts on."""

    rule_id: str
    rule_name: str
    owner: str
    event: str
    subject: str
    account_id: str | None
    client_id: str | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deed:
    """What came of it."""

    words: str
    state: RunState = RunState.DONE


def require_may_act(actor: Actor, action: RuleAction) -> None:
    """Pass when whoever makes the rule may do this themselves.

    Raises:
        ForbiddenError
    """
    nouns = {ActionType.RETRY_JOB: "jobs", ActionType.CALL_WEBHOOK: "webhooks"}
    actor.require(nouns.get(action.type, "accounts"), "write")


async def require_action(ctx: FleetContext, action: RuleAction, owner: str) -> dict[str, Any]:
    """The action as plain values, when it has what it needs and names what is within reach.

    Raises:
        ForbiddenError, InvalidInputError
    """
    needed = _FIELDS.get(action.type, frozenset())
    for name in ("reason", "package_id", "label", "value", "webhook_id", "rule"):
        is_given = getattr(action, name) is not None
        if is_given is not (name in needed):
            words = "does not take" if is_given else "needs"
            raise InvalidInputError(f"{action.type.value} {words} {name}", field=f"action.{name}")
    require_may_act(ctx.actor, action)
    if action.reason is not None:
        require_text("action.reason", action.reason, low=1, high=400)
    if action.label is not None:
        require_label_key(action.label)
        require_labels({action.label: action.value} if action.value is not None else {})
    if action.package_id is not None:
        package_id = require_id_field("action.package_id", action.package_id)
        await require_reference("action.package_id", get_package(ctx.session, package_id))
    if action.webhook_id is not None:
        await _require_endpoint(ctx, action.webhook_id, owner)
    return dict(msgspec.to_builtins(action))


async def act(ctx: FleetContext, action: RuleAction, occasion: Occasion) -> Deed:
    """Do it, as the context's actor.

    Raises:
        FleetError: Whatever the use case raises.
    """
    if action.type is ActionType.CALL_WEBHOOK:
        return await _call(ctx, str(action.webhook_id), occasion)
    if action.type is ActionType.RETRY_JOB:
        return await _retry(ctx, occasion)
    if occasion.account_id is None:
        return Deed("the event is about no account", RunState.SKIPPED)
    return await _act_on_account(ctx, action, occasion.account_id)


async def _act_on_account(ctx: FleetContext, action: RuleAction, account_id: str) -> Deed:
    account = await get_account(ctx.session, account_id)
    reason = _reason_to_skip(ctx.actor, action, account)
    if reason:
        return Deed(f"the account {account.name} {reason}", RunState.SKIPPED)
    match action.type:
        case ActionType.SUSPEND:
            await suspend_account(ctx, account_id, AccountSuspend(reason=action.reason or ""))
        case ActionType.UNSUSPEND:
            await unsuspend_account(ctx, account_id)
        case ActionType.CHANGE_PACKAGE:
            await update_account(ctx, account_id, AccountUpdate(package_id=str(action.package_id)))
        case ActionType.CONVERGE:
            await converge_again(ctx, account_id)
        case _:
            await change_labels(ctx, account_id, {str(action.label): _wanted_label(action)})
    return Deed(f"{_DONE[action.type].format(**msgspec.to_builtins(action))} the account {account.name}")


def _reason_to_skip(actor: Actor, action: RuleAction, account: Account) -> str:
    """Why there is nothing to do; empty: there is."""
    is_suspended = account.state is AccountState.SUSPENDED
    nothing_to_do = {
        ActionType.SUSPEND: (is_suspended, "is suspended already"),
        ActionType.UNSUSPEND: (
            not is_suspended or account.suspended_by != f"{actor.kind}/{action.rule}",
            f"is not suspended by the rule {action.rule}",
        ),
        ActionType.CHANGE_PACKAGE: (account.package_id == action.package_id, "has that package already"),
        ActionType.SET_LABEL: (account.labels.get(str(action.label)) == action.value, "has that label already"),
        ActionType.REMOVE_LABEL: (str(action.label) not in account.labels, "has no such label"),
    }
    is_nothing, words = nothing_to_do.get(action.type, (False, ""))
    return words if is_nothing else ""


def _wanted_label(action: RuleAction) -> str | None:
    return action.value if action.type is ActionType.SET_LABEL else None


async def _retry(ctx: FleetContext, occasion: Occasion) -> Deed:
    noun, _, job_id = occasion.subject.partition("/")
    if noun != "job":
        return Deed("the event is about no job", RunState.SKIPPED)
    ctx.actor.require("jobs", "write")
    new_id = await retry_job(ctx.session, job_id, actor=ctx.actor.reference, request_id=ctx.request_id, now=ctx.now)
    ctx.job_ids.append(new_id)
    after = {"retry_of": job_id} | ({"account_id": occasion.account_id} if occasion.account_id else {})
    record(ctx, Change("job.retry", f"job/{new_id}", str(occasion.data.get("label", ""))[:300], after=after))
    return Deed(f"asked for the job {job_id} again")


async def _call(ctx: FleetContext, webhook_id: str, occasion: Occasion) -> Deed:
    ctx.actor.require("webhooks", "write")
    row = await _require_endpoint(ctx, webhook_id, occasion.owner)
    if not row.is_enabled or row.paused_at is not None:
        raise ConflictError("the webhook is disabled or paused", hint=f"wcp360 webhooks show {webhook_id}")
    data = {"id": occasion.rule_id, "rule": occasion.rule_name, "event": occasion.event, "data": occasion.data}
    delivery = WebhookDelivery(
        endpoint_id=row.id,
        account_id=occasion.account_id if row.owner else None,
        client_id=occasion.client_id if row.owner else None,
        message_id=make_message_id(),
        event=RULE_MATCH,
        subject=occasion.subject,
        body=render_message(RULE_MATCH, ctx.now, data),
        next_at=ctx.now,
        created_at=ctx.now,
        updated_at=ctx.now,
        log=[],
    )
    ctx.session.add(delivery)
    await ctx.session.flush()
    after = {"webhook_id": row.id, "event": occasion.event, "message_id": delivery.message_id}
    record(ctx, Change("rule.call_webhook", f"rule/{occasion.rule_id}", occasion.rule_name, after=after))
    await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    return Deed(f"sent the event to {row.url[:200]}")


async def _require_endpoint(ctx: FleetContext, webhook_id: str, owner: str) -> WebhookEndpoint:
    """The endpoint, when it belongs to whom the rule belongs to: nobody's events go to somebody else.

    Raises:
        InvalidInputError
    """
    row = await ctx.session.get(WebhookEndpoint, require_id_field("action.webhook_id", webhook_id))
    if row is None or (row.owner or PLATFORM) != owner:
        raise InvalidInputError(f"there is no webhook {webhook_id[:80]!r}", field="action.webhook_id")
    return row
