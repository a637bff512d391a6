"""What goes in and out of the API for rules."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.core.plan import PlanView
from controller.core.rules.conditions import Condition, ConditionResult
from controller.core.rules.models import PLATFORM, Rule, RuleRun

RUNS_PER_HOUR: Final = 60
RUNS_PER_HOUR_MAX: Final = 1000


RowId = Annotated[str, Meta(min_length=1, max_length=36)]


class ActionType(enum.Enum):
    """All that a rule can do."""

    SUSPEND = "suspend_account"
    """`reason`. The account that the event is about; so below."""
    UNSUSPEND = "unsuspend_account"
    """`rule`: ends a suspension that this rule made, and no other."""
    CHANGE_PACKAGE = "change_package"
    """`package_id`."""
    SET_LABEL = "set_label"
    """`label`, `value`."""
    REMOVE_LABEL = "remove_label"
    """`label`."""
    CONVERGE = "converge_account"
    """Brings the account to what is wanted, again."""
    RETRY_JOB = "retry_job"
    """The job that the event is about."""
    CALL_WEBHOOK = "call_webhook"
    """`webhook_id`: the event goes there, signed as all messages are."""


class RuleAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to do; which fields are needed depends on the type, and no others may be given."""

    type: ActionType
    reason: Annotated[
        Annotated[str, Meta(min_length=1, max_length=400)] | None, Meta(description="Of suspend_account.")
    ] = None
    package_id: Annotated[RowId | None, Meta(description="Of change_package.")] = None
    label: Annotated[
        Annotated[str, Meta(min_length=1, max_length=63)] | None, Meta(description="Of set_label and remove_label.")
    ] = None
    value: Annotated[Annotated[str, Meta(max_length=200)] | None, Meta(description="Of set_label.")] = None
    webhook_id: Annotated[RowId | None, Meta(description="Of call_webhook.")] = None
    rule: Annotated[
        Annotated[str, Meta(min_length=1, max_length=40)] | None,
        Meta(description="Of unsuspend_account: the name of the rule that suspended it."),
    ] = None


Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        min_length=1,
        max_length=40,
        description="Lower-case letters, digits, hyphens; the audit log calls it rule/NAME.",
        examples=["suspend-spammers"],
    ),
]
Description = Annotated[str, Meta(max_length=500)]
Events = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...],
    Meta(min_length=1, max_length=20, description="Names of events, or `noun.*`.", examples=[["account.suspend"]]),
]
Conditions = Annotated[tuple[Condition, ...], Meta(max_length=20, description="All must hold; none: always.")]
PerHour = Annotated[
    int,
    Meta(ge=1, le=RUNS_PER_HOUR_MAX, description="When it applies more often within an hour, it is paused."),
]


class RuleCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new rule. Whoever makes it answers for it: it may do what they may, as long as they may."""

    name: Name
    events: Events
    action: RuleAction
    conditions: Conditions = ()
    description: Description = ""
    is_enabled: bool = True
    runs_per_hour: PerHour = RUNS_PER_HOUR


class RuleUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. Whoever changes it answers for it from now on."""

    events: Events | UnsetType = UNSET
    action: RuleAction | UnsetType = UNSET
    conditions: Conditions | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET
    runs_per_hour: PerHour | UnsetType = UNSET


class RuleTry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A past event: one of the two."""

    audit_number: Annotated[
        Annotated[int, Meta(ge=1, le=2**62)] | None, Meta(description="Of an entry: wcp360 audit list.")
    ] = None
    job_id: Annotated[RowId | None, Meta(description="A job that has ended.")] = None


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A rule."""

    id: str
    name: str
    reseller_id: Annotated[str | None, Meta(description="The reseller whose it is; null: the platform.")]
    description: str
    events: tuple[str, ...]
    conditions: tuple[Condition, ...]
    action: RuleAction
    is_enabled: bool
    state: Annotated[str, Meta(description="active, disabled, or paused by the controller.")]
    pause_reason: str
    paused_at: datetime | None
    runs_per_hour: int
    maker_id: Annotated[str | None, Meta(description="Who answers for it; null: they are gone.")]
    maker_name: str
    created_at: datetime
    updated_at: datetime


class RulePage(msgspec.Struct, frozen=True, kw_only=True):
    """Rules, newest first."""

    items: tuple[RuleView, ...]
    next_cursor: str | None


class RuleRunView(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule did for one event."""

    id: str
    rule_id: str
    event: str
    subject: Annotated[str, Meta(examples=["account/ID"])]
    depth: Annotated[int, Meta(description="How many rules, one after the other, led to the event.")]
    state: Annotated[str, Meta(description="pending, done, skipped, stopped or failed.")]
    outcome: str
    error_code: Annotated[str, Meta(description="Empty: there was none.")]
    attempts: int
    request_id: Annotated[str, Meta(description="Under which the audit log and the jobs have what it did.")]
    created_at: datetime
    finished_at: datetime | None


class RuleRunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first."""

    items: tuple[RuleRunView, ...]
    next_cursor: str | None


class RuleTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule would do for a past event. Nothing was changed."""

    event: str
    subject: str
    is_followed: Annotated[bool, Meta(description="Whether the event is one that the rule follows.")]
    conditions: tuple[ConditionResult, ...]
    would_run: bool
    outcome: Annotated[str, Meta(description="In words; empty: it would not run, or it would fail.")]
    error_code: str
    error: str
    plan: Annotated[PlanView | None, Meta(description="What would change, as a dry run shows it.")]


def view_rule(row: Rule) -> RuleView:
    """For the API."""
    state = "disabled" if not row.is_enabled else "paused" if row.paused_at is not None else "active"
    return RuleView(
        id=row.id,
        name=row.name,
        reseller_id=None if row.owner == PLATFORM else row.owner.partition("/")[2],
        description=row.description,
        events=tuple(row.events),
        conditions=tuple(msgspec.convert(one, Condition) for one in row.conditions),
        action=msgspec.convert(row.action, RuleAction),
        is_enabled=row.is_enabled,
        state=state,
        pause_reason=row.pause_reason,
        paused_at=row.paused_at,
        runs_per_hour=row.runs_per_hour,
        maker_id=row.maker_id,
        maker_name=row.maker_name,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def request_id_of(run_id: str) -> str:
    """Under which a run acts; how its consequences are known again."""
    return f"rule-run/{run_id}"


def view_run(row: RuleRun) -> RuleRunView:
    """For the API."""
    return RuleRunView(
        id=row.id,
        rule_id=row.rule_id,
        event=row.event,
        subject=row.subject,
        depth=row.depth,
        state=row.state.value,
        outcome=row.outcome,
        error_code=row.error_code,
        attempts=row.attempts,
        request_id=request_id_of(row.id),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def state_of(row: Rule) -> dict[str, Any]:
    """For the audit log."""
    return {
        "owner": row.owner,
        "name": row.name,
        "description": row.description,
        "events": list(row.events),
        "conditions": list(row.conditions),
        "action": dict(row.action),
        "is_enabled": row.is_enabled,
        "runs_per_hour": row.runs_per_hour,
        "maker": row.maker_name,
    }
