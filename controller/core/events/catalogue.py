"""Every event there is, with the schema of its data: one registry for webhooks, for screens and for the published list.

A change is an event under the name that the audit log has for it. A new one is one line here (or in its module's
`EVENTS`), and a test fails when it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from controller.core.accounts.views import AccountView
from controller.core.clients.views import ClientView
from controller.core.domains.views import DomainView
from controller.core.packages.views import PackageView
from controller.core.resellers.views import ResellerView
from controller.jobs.views import JobView
from shared.errors import BugError, InvalidInputError

T = TypeVar("T")

EVERYTHING: Final = "*"
TEST_EVENT: Final = "webhook.test"
RULE_MATCH: Final = "rule.matched"


class ChangeData(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A change of what is wanted, as a webhook tells it."""

    id: Annotated[str, Meta(description="Of what was changed.")]
    name: str
    actor: Annotated[str, Meta(description="Who did it: kind/ID.")]
    actor_name: str
    request_id: str
    before: Annotated[T | None, Meta(description="Null: it was not there, or this is not told.")]
    after: Annotated[T | None, Meta(description="Null: it is gone, or this is not told.")]
    is_shortened: Annotated[bool, Meta(description="True: before and after were too large; read it by its id.")] = False


class LiveChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change, as the WebSocket tells it: the rest is read by its id."""

    id: str
    name: str
    account_id: str | None = None
    client_id: str | None = None


class LiveNews(msgspec.Struct, frozen=True, kw_only=True):
    """News of something; more fields depend on the event."""

    id: str


class TestData(msgspec.Struct, frozen=True, kw_only=True):
    """A test of a webhook."""

    id: str
    message: str


class RuleMatch(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a rule sends to a webhook."""

    id: Annotated[str, Meta(description="Of the rule.")]
    rule: Annotated[str, Meta(description="Its name.")]
    event: str
    data: Annotated[dict[str, Any], Meta(description="What the event said.")]


@dataclass(frozen=True, slots=True)
class EventType:
    """One event."""

    name: str
    """noun.verb."""
    description: str
    data: Any = None
    """What a webhook tells; None: no webhook, screens only."""
    live: Any = None
    """What the WebSocket tells; None: webhooks only."""
    is_for_tenants: bool = False
    """Webhooks of resellers and clients get it, about what is theirs: its data holds nothing that they may not see."""


def changes_of(
    noun: str, data: Any, verbs: Mapping[str, str], *, is_for_tenants: bool = False
) -> tuple[EventType, ...]:
    """Changes of one noun: verb to description."""
    return tuple(
        EventType(f"{noun}.{verb}", text, ChangeData[data], LiveChange, is_for_tenants) for verb, text in verbs.items()
    )


class Catalogue:
    """All events of this controller."""

    def __init__(self, events: Iterable[EventType]) -> None:
        self._events: dict[str, EventType] = {}
        for event in events:
            if event.name in self._events:
                raise BugError(f"two events are called {event.name}")
            self._events[event.name] = event

    def __iter__(self) -> Iterator[EventType]:
        return iter(sorted(self._events.values(), key=lambda event: event.name))

    def __contains__(self, name: str) -> bool:
        return name in self._events

    def find(self, name: str) -> EventType | None:
        """The event of this name."""
        return self._events.get(name)

    def require_patterns(self, patterns: Iterable[str], *, is_for_tenants: bool = False) -> list[str]:
        """The patterns without doubles: names of events for webhooks, `noun.*`, or `*`.

        Raises:
            InvalidInputError: One of them fits no event (that tenants get).
        """
        names = [
            event.name
            for event in self._events.values()
            if event.data is not None and (event.is_for_tenants or not is_for_tenants)
        ]
        wanted = list(dict.fromkeys(patterns))
        for position, pattern in enumerate(wanted):
            if not any(fits(pattern, name) for name in names):
                whose = " that resellers and clients get" if is_for_tenants else ""
                raise InvalidInputError(
                    f"no event{whose} is called {pattern[:60]!r}",
                    field=f"events.{position}",
                    hint="See: wcp360 event-types list",
                )
        return wanted


def fits(pattern: str, name: str) -> bool:
    """Whether the event is one of those that the pattern names. Tests are sent to whoever asked for them only."""
    if pattern == EVERYTHING:
        return True
    return name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]))


_NODE_CHANGES: Final = {
    "request": "A machine asks to become a node, or to come back.",
    "approve": "A machine was let in.",
    "reject": "A machine was sent away.",
    "update": "Roles, labels or policies of a node changed.",
    "delete": "A node was deleted.",
    "revoke": "A node may not connect any more.",
    "release": "A node in quarantine may connect again.",
    "quarantine": "A node may not connect until somebody looked.",
    "clone_suspected": "Two machines may be using one identity.",
    "renew_certificate": "A node has a new certificate.",
    "set_module": "A module of a node is to be there, or not.",
    "repair": "A node is brought to what is wanted again.",
    "cordon": "A node takes no new accounts.",
    "uncordon": "A node takes new accounts again.",
    "start_maintenance": "A node is sent no changes for a while.",
    "end_maintenance": "A node is sent changes again.",
    "drain": "A node is being drained.",
    "undrain": "A node is not drained any more.",
}
_ENDS: Final = {
    "succeeded": "A job was done and verified.",
    "failed": "A node could not do a job; what it had changed was undone.",
    "cancelled": "A job was stopped and undone.",
    "indeterminate": "Nobody can say how a job ended.",
}
_MOVES: Final = {
    "requested": "A job was asked for.",
    "queued": "A job was signed.",
    "offered": "A job was sent to its node.",
    "accepted": "A node has a job on its disk.",
    "running": "A node works at a job.",
    "refused": "A node did not take a job.",
    "expired": "A job's time ran out before its node had it.",
    "stuck": "A job was never confirmed.",
    "superseded": "A newer change replaced a job.",
    "discarded": "Somebody put a job aside.",
}
_NEWS: Final = {
    "node.connected": "A node's agent is connected.",
    "node.disconnected": "A node's agent is not connected any more.",
    "node.health": "The judgement about a node's health changed.",
    "node.drained": "Nothing runs any more on a node that is being drained.",
    "node.drain_overdue": "Something runs still on a node whose drain is late.",
    "node.sample": "Load of a node.",
    "drift.checked": "A node compared itself with what was applied.",
    "drift.repaired": "A node put right what was not as it was applied.",
    "rollout.changed": "A rollout moved on.",
    "package_rollout.changed": "A rollout of a package moved on.",
    "user.unusual_sign_in": "Somebody signed in from where or as they never did.",
}

CORE_EVENTS: Final[tuple[EventType, ...]] = (
    *changes_of("package", PackageView, {
        "create": "A package was made.", "clone": "A package was copied.", "update": "A package changed.",
        "delete": "A package was deleted.",
        "suspend": "A package is given to no more accounts.", "unsuspend": "It is given to accounts again.",
    }, is_for_tenants=True),
    *changes_of("reseller", ResellerView, {
        "create": "A reseller was added.", "update": "A reseller changed.", "delete": "A reseller was deleted.",
        "suspend": "Nothing new is made for a reseller.", "unsuspend": "A reseller may sell again.",
    }, is_for_tenants=True),
    *changes_of("reseller", dict[str, Any], {
        "lose_client": "A client of a reseller went to another.",
    }, is_for_tenants=True),
    *changes_of("reseller", dict[str, Any], {"set_branding": "What the clients of a reseller see changed."}),
    *changes_of("client", dict[str, Any], {"transfer": "A client went to another reseller."}, is_for_tenants=True),
    *changes_of("account", dict[str, Any], {
        "transfer": "An account went to another client.", "lose": "An account went away to another client.",
        "near_limit": "An account is over the soft value of a limit.", "over_limit": "An account is over a limit.",
        "within_limit": "An account is within its limit again.",
        "throttle": "An account was over a limit for too long, and gets less.",
        "unthrottle": "An account is throttled no more.",
    }, is_for_tenants=True),
    *changes_of("client", ClientView, {
        "create": "A client was added.", "update": "A client changed.", "delete": "A client was deleted.",
    }, is_for_tenants=True),
    *changes_of("account", dict[str, Any], {"set_note": "Administrators wrote a note about an account."}),
    *changes_of("account", AccountView, {
        "create": "An account was made.",
        "clone": "An account was made after the model of another.",
        "update": "An account has another package or other labels.",
        "pin_package": "An account keeps a version of its package, or follows the latest again.",
        "suspend": "An account stopped serving.",
        "unsuspend": "An account serves again.",
        "trash": "An account was deleted, and can still be restored.",
        "restore": "An account was taken out of the trash.",
        "delete": "An account is to be removed for good.",
        "certify_deletion": "An account is gone, and what was removed is certified.",
        "converge": "An account is brought to what is wanted again.",
    }, is_for_tenants=True),
    *changes_of("domain", DomainView, {
        "create": "An account holds a domain.", "delete": "A domain is free.",
    }, is_for_tenants=True),
    *changes_of("node", dict[str, Any], _NODE_CHANGES),
    *changes_of("enrolment_token", dict[str, Any], {
        "create": "A token for a new machine was made.", "delete": "A token for a new machine was deleted.",
    }),
    *changes_of("job", dict[str, Any], {
        "cancel": "Somebody wants a job stopped.", "retry": "Somebody asked for a job again.",
        "discard": "Somebody put a job aside.", "decide": "Somebody decided how a job ended.",
        "release": "One job passes its node's maintenance.", "refuse": "A node refused a job.",
    }),
    *changes_of("job_key", dict[str, Any], {
        "rotate": "Jobs are signed with another key.", "revoke": "Nodes believe a key no more.",
    }),
    *changes_of("ca_rotation", dict[str, Any], {
        "start": "The change of the certificate authority began.", "advance": "It went on.",
        "rollback": "It went back.",
    }),
    *changes_of("release", dict[str, Any], {"create": "A bundle of the agent was registered."}),
    *changes_of("rollout", dict[str, Any], {
        "create": "A rollout was made.", "pause": "A rollout waits.", "resume": "A rollout goes on.",
        "abort": "A rollout was broken off.", "halt": "A rollout stopped by itself.", "finish": "A rollout ended.",
    }),
    *changes_of("package_rollout", dict[str, Any], {
        "create": "An edit of a package goes over its accounts in waves.", "pause": "It waits.",
        "resume": "It goes on.", "abort": "It was broken off.", "return": "It was taken back.",
        "halt": "It stopped by itself.", "finish": "It ended.",
    }),
    *changes_of("drift", dict[str, Any], {
        "adopt": "What is on a node is what is wanted now.", "ignore": "A difference is left for a while.",
        "unignore": "A difference counts again.",
    }),
    *changes_of("parked", dict[str, Any], {
        "retry": "A parked resource is tried again.",
        "discard": "What a node has of a parked resource is wanted again.",
    }),
    *changes_of("attention", dict[str, Any], {
        "dismiss": "Somebody put an item aside.", "undismiss": "An item is shown again.",
    }),
    *changes_of("user", dict[str, Any], {
        "create": "Somebody can sign in.", "update": "Somebody has another role.", "delete": "Somebody was removed.",
        "disable": "Somebody was shut out.", "enable": "Somebody is let in again.",
        "reset_password": "Somebody was given a one-time password.",
        "impersonate": "An administrator views as somebody.",
        "create_sign_in_link": "A link was made that lets somebody in once.",
        "begin_second_factor": "Somebody began to set up a second factor.",
        "enable_second_factor": "Somebody has a second factor.",
        "disable_second_factor": "Somebody has no second factor any more.",
        "reset_second_factor": "An administrator forgot somebody's second factor.",
        "renew_recovery_codes": "Somebody has other recovery codes.",
        "set_networks": "Where somebody may come from changed.",
        "refuse_sign_in": "A sign-in was refused.",
        "begin_passkey": "Somebody began to register a passkey.",
        "add_passkey": "Somebody has one more passkey.",
        "rename_passkey": "Somebody calls a passkey otherwise.",
        "delete_passkey": "A passkey lets nobody in any more.",
        "set_email": "Somebody has another e-mail address.",
        "request_password_reset": "An administrator lets somebody choose another password by mail.",
        "send_password_reset": "A link for another password was made, and goes to its owner by mail.",
        "reset_password_by_mail": "Somebody chose another password by such a link.",
    }),
    *changes_of("role", dict[str, Any], {
        "create": "A custom role was made.", "update": "A custom role changed.", "delete": "A custom role was deleted.",
    }),
    *changes_of("member", dict[str, Any], {
        "add": "Somebody may work on an account.", "remove": "Somebody may work on an account no more.",
    }),
    *changes_of("session", dict[str, Any], {
        "revoke": "A session was ended from elsewhere.",
        "revoke_others": "All sessions of somebody but one were ended.",
        "step_up": "Somebody proved again who they are.",
    }),
    *changes_of("security", dict[str, Any], {"update": "The rules about signing in changed."}),
    *changes_of("policy", dict[str, Any], {"update": "A policy of the platform changed."}),
    *changes_of("rate_limits", dict[str, Any], {"update": "How often the API may be asked was changed."}),
    *changes_of("audit", dict[str, Any], {
        "contradict": "A node was shown another audit log before.", "archive": "Old audit entries are in a file now.",
    }),
    *changes_of("access", dict[str, Any], {"refuse": "Somebody was refused what they may not do."}),
    *changes_of("token", dict[str, Any], {"create": "An API token was made.", "revoke": "An API token was revoked."}),
    *changes_of("schedule", dict[str, Any], {"run": "Somebody let a schedule come back."}),
    *changes_of("task", dict[str, Any], {"retry": "Somebody let a task run again."}),
    *changes_of("maintenance", dict[str, Any], {
        "start": "The controller takes no changes.", "end": "The controller takes changes again.",
    }),
    *changes_of("notice", dict[str, Any], {
        "read": "Somebody read what they were told of.", "prefer": "Somebody wants other notices by mail.",
        "test": "Somebody asked for a mail to themselves.", "retry": "A mail that nobody took is tried again.",
    }),
    *changes_of("webhook", dict[str, Any], {
        "create": "A webhook was made.", "update": "A webhook changed.", "delete": "A webhook was deleted.",
        "rotate_secret": "A webhook has another secret.", "resume": "A webhook is sent messages again.",
        "pause": "The controller gave up on a webhook.", "send_test": "Somebody tests a webhook.",
        "replay": "Somebody lets a message be sent again.",
    }),
    *changes_of("rule", dict[str, Any], {
        "create": "A rule was made.", "update": "A rule changed.", "delete": "A rule was deleted.",
        "pause": "A rule does nothing until somebody looked.", "resume": "A rule acts again.",
        "call_webhook": "A rule sent an event to a webhook.",
    }),
    EventType(RULE_MATCH, "An event that a rule sends on; sent to the endpoint that the rule names.", RuleMatch, None),
    *(EventType(f"job.{state}", text, JobView, JobView, is_for_tenants=True) for state, text in _ENDS.items()),
    *(EventType(f"job.{state}", text, None, JobView) for state, text in _MOVES.items()),
    *(EventType(name, text, None, LiveNews) for name, text in _NEWS.items()),
    EventType(TEST_EVENT, "A test that somebody asked for; sent to that one endpoint.", TestData, None),
)  # fmt: skip
