"""The catalogue: every kind of notice, what it tells of, to whom, and in which words."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from controller.core.notices import words
from controller.core.notices.words import Happening, Words

DIGEST: Final = "digest"
"""Kind of a mail that holds notices of several kinds, because the hour had enough mails."""
ATTENTION: Final = "attention"
TEST: Final = "test"


class Audience(enum.Enum):
    """Whom an event concerns."""

    PERSON = "person"
    """The user that it was done to, or whose token it is."""
    ACCOUNT = "account"
    """The people of the account's client, its team, and the people of the client's reseller."""
    RESELLER = "reseller"
    """The people of the reseller."""
    PLATFORM = "platform"
    """Administrators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeKind:
    """One kind: event, audience, template."""

    name: str
    description: str
    audience: Audience
    templates: Mapping[str, Callable[[Happening], Words | None]]
    """Event of the audit log to its words; a template that returns None has nothing to tell."""
    noun: str = ""
    """Only people who may read these are told; empty: whoever it concerns."""
    is_security: bool = False
    """Cannot be switched off, is told of one's own acts too, and no cap on mails delays it."""
    window: timedelta = timedelta(minutes=10)
    """One mail of this kind to one person in this time; what comes meanwhile is in the next one."""
    delay: timedelta = timedelta(0)
    """Before the first mail, so that what comes together is told together."""


def _security(name: str, description: str, **templates: Callable[[Happening], Words | None]) -> NoticeKind:
    return NoticeKind(
        name=name,
        description=description,
        audience=Audience.PERSON,
        templates={f"user.{verb}": template for verb, template in templates.items()},
        is_security=True,
    )


KINDS: Final[tuple[NoticeKind, ...]] = (
    _security("sign_in", "Somebody signed in as you from a new network or device.", sign_in=words.of_sign_in),
    _security(
        "password", "Your password was changed.",
        change_password=words.of_password, reset_password=words.of_password, reset_password_by_mail=words.of_password,
    ),
    _security(
        "second_factor", "Your second factor, recovery codes or passkeys changed.",
        enable_second_factor=words.of_factor, disable_second_factor=words.of_factor,
        reset_second_factor=words.of_factor, renew_recovery_codes=words.of_factor,
        add_passkey=words.of_factor, delete_passkey=words.of_factor,
    ),
    _security("email", "The address that your mails go to changed; the old one is told as well.",
              set_email=words.of_email),
    _security("access", "Your role changed, or where you may sign in from.",
              set_networks=words.of_networks, update=words.of_role),
    _security("viewed_as", "An administrator viewed the panel as you.", impersonate=words.of_view),
    NoticeKind(
        name="token", description="An API token of yours was made.", audience=Audience.PERSON, is_security=True,
        templates={"token.create": words.of_token},
    ),
    NoticeKind(
        name="limits", description="An account is near or over a limit, or within it again.",
        audience=Audience.ACCOUNT, noun="accounts", window=timedelta(hours=1), delay=timedelta(minutes=1),
        templates={
            "account.over_limit": words.of_limit, "account.near_limit": words.of_limit,
            "account.within_limit": words.of_limit, "account.throttle": words.of_throttle,
            "account.unthrottle": words.of_throttle,
        },
    ),
    NoticeKind(
        name="suspension", description="An account was suspended, or serves again.",
        audience=Audience.ACCOUNT, noun="accounts",
        templates={"account.suspend": words.of_suspension, "account.unsuspend": words.of_suspension},
    ),
    NoticeKind(
        name="deletion", description="An account goes to the trash, comes back, or is gone.",
        audience=Audience.ACCOUNT, noun="accounts",
        templates={
            "account.trash": words.of_deletion, "account.restore": words.of_deletion,
            "account.certify_deletion": words.of_deletion,
        },
    ),
    NoticeKind(
        name="reseller", description="The platform suspended you as a reseller, or lifted that.",
        audience=Audience.RESELLER,
        templates={"reseller.suspend": words.of_reseller, "reseller.unsuspend": words.of_reseller},
    ),
    NoticeKind(
        name="rollouts", description="A rollout stopped by itself.", audience=Audience.PLATFORM, noun="rollouts",
        templates={"rollout.halt": words.of_rollout},
    ),
    NoticeKind(
        name=ATTENTION, description="Nodes, jobs, webhooks or the audit log need an administrator.",
        audience=Audience.PLATFORM, noun="attention", window=timedelta(minutes=30), delay=timedelta(minutes=2),
        templates={},
    ),
    NoticeKind(
        name=TEST, description="A test that you asked for.", audience=Audience.PERSON, templates={},
        window=timedelta(minutes=1),
    ),
)  # fmt: skip


def _index() -> dict[str, NoticeKind]:
    return {event: kind for kind in KINDS for event in kind.templates}


KIND_OF_EVENT: Final[Mapping[str, NoticeKind]] = MappingProxyType(_index())
KIND_BY_NAME: Final[Mapping[str, NoticeKind]] = MappingProxyType({kind.name: kind for kind in KINDS})


def is_security(kind_name: str) -> bool:
    """Whether mails of this kind are sent whatever their person prefers; a digest is not."""
    kind = KIND_BY_NAME.get(kind_name)
    return kind is not None and kind.is_security


def plan_due(kind: NoticeKind, *, now: datetime, last_due_at: datetime | None) -> datetime:
    """When a new mail of this kind is due, by when the one before it was."""
    due = now + kind.delay
    return max(due, last_due_at + kind.window) if last_due_at is not None else due


def happening_of(entry: Any) -> Happening:
    """What an audit entry tells."""
    address = entry.address or ""
    if entry.action == "user.sign_in" and not address:
        address = str((entry.after or {}).get("address") or "")
    return Happening(
        action=entry.action,
        at=entry.at,
        actor=entry.actor,
        actor_name=entry.actor_name,
        address=address,
        target=entry.target,
        name=entry.target_name,
        before=entry.before or {},
        after=entry.after or {},
    )
