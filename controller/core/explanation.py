"""What the audit log, tokens and packages know about a job: who asked, why, and the command that takes it back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.audit.models import AuditEntry
from controller.core.audit.whereabouts import find_hidden
from controller.core.auth.models import ApiToken, User
from controller.core.context import Reach
from controller.core.packages.terms import NODE_KEYS, terms_of
from controller.jobs.explain_views import AskerView, Background, CauseView
from controller.jobs.models import Job
from controller.jobs.waiting import find_waits

ENTRIES_MAX: Final = 50
SCHEDULED: Final = "schedule/"
_CAUSES: Final = (
    ("reconverge/", "reconnect", "The node came back without its newest state, so that was sent again."),
    ("schedule/nodes.upkeep", "maintenance", "The node's maintenance ended, and what waited was asked for anew."),
    ("schedule/packages.rollouts", "package_rollout", "A rollout of its package reached the account."),
    (SCHEDULED, "schedule", "A schedule of the controller asked for it."),
    ("rollout", "rollout", "A rollout of the agent's release asked for it."),
    ("drift", "drift_policy", "The node's drift policy asked for it."),
)
_OPPOSITES: Final = {
    "account.suspend": "accounts unsuspend {name}",
    "node.cordon": "nodes uncordon {name}",
    "node.uncordon": "nodes cordon {name}",
    "node.start_maintenance": "nodes end-maintenance {name}",
    "node.drain": "nodes undrain {name}",
}
_GROUPS: Final = {
    "site": "sites", "account": "accounts", "package": "packages", "client": "clients", "node": "nodes",
    "job": "jobs", "domain": "domains",
}  # fmt: skip
_MADE: Final = frozenset({"site", "account", "package", "client", "domain"})
"""What one command makes, and another deletes."""
_FIELDS: Final = {
    "site": ("aliases", "document_root", "php_version", "extra_directives"),
    "account": ("package_id",),
    "package": ("cpu_percent", "memory_bytes", "processes_max", "io_weight", "disk_bytes"),
    "node": ("roles", "is_cordoned", "drift_policy"),
}
"""Fields of a PATCH, by noun, as options of the command line name them."""


async def read_background(session: AsyncSession, job: Job, reader: Reach) -> Background:
    """Everything about the job that its own row does not say."""
    entries = await _list_entries(session, job)
    waits = await find_waits(session, [job])
    return Background(
        asker=await _find_asker(session, job, entries, reader),
        cause=await _find_cause(session, job, entries),
        undo_commands=tuple(words for entry in reversed(entries) if (words := render_undo(entry))),
        waits_for=waits.get(job.id, ""),
    )


async def _list_entries(session: AsyncSession, job: Job) -> list[AuditEntry]:
    """What was changed with the job: in its own transaction, or else by its request.

    One request may change many things one by one, each for itself; what became of the others is no reason for this
    job, and its way back would take them along. All runs of a schedule have one request id: they know their own
    transaction only.
    """
    of_request = select(AuditEntry).where(AuditEntry.request_id == job.request_id).order_by(AuditEntry.number)
    own = list(await session.scalars(of_request.where(AuditEntry.at == job.created_at).limit(ENTRIES_MAX)))
    if own or job.request_id.startswith(SCHEDULED):
        return own
    return list(await session.scalars(of_request.limit(ENTRIES_MAX)))


async def _find_asker(session: AsyncSession, job: Job, entries: Sequence[AuditEntry], reader: Reach) -> AskerView:
    kind, _, row_id = job.actor.partition("/")
    own = next((entry for entry in entries if entry.actor == job.actor), None)
    name, user = (own.actor_name if own is not None else ""), ""
    if kind == "token":
        found = select(ApiToken.name, User.username).join(User, User.id == ApiToken.user_id)
        row = (await session.execute(found.where(ApiToken.id == row_id))).first()
        name, user = (row[0], row[1]) if row is not None else (name, "")
    elif kind == "user":
        user = (await session.scalar(select(User.username).where(User.id == row_id))) or name
        name = name or user
    else:
        name = name or "controller"
    address = own.address if own is not None and own.address else ""
    if address and await find_hidden(session, reader, (job.actor,)):
        address = ""
    return AskerView(reference=job.actor, kind=kind, name=name, user=user, address=address, request_id=job.request_id)


async def _find_cause(session: AsyncSession, job: Job, entries: Sequence[AuditEntry]) -> CauseView:
    changes = tuple(f"{entry.action} {entry.target_name}" for entry in entries)
    limits = await _list_limits(session, job)
    if job.retry_of is not None:
        return CauseView(kind="retry", words=f"It does again what {job.retry_of} did not.", changes=changes)
    for prefix, kind, words in _CAUSES:
        if job.actor.startswith("system/") and job.request_id.startswith(prefix):
            return CauseView(kind=kind, words=words, changes=changes, limits=limits)
    permission = ""
    if entries:
        # A use case notes what it needed on the way first, and what was asked for last.
        noun = entries[-1].action.partition(".")[0]
        permission = f"{_GROUPS.get(noun, noun)}:write"
    words = f"{changes[-1]} made it necessary." if changes else "Somebody asked for it."
    return CauseView(kind="request", words=words, changes=changes, permission=permission, limits=limits)


async def _list_limits(session: AsyncSession, job: Job) -> tuple[str, ...]:
    if job.account_id is None:
        return ()
    account = await session.get(Account, job.account_id)
    if account is None:
        return ()
    package = await terms_of(session, account)
    names = (*NODE_KEYS, "php_versions")
    given = [f"{name} {getattr(package, name)}" for name in names if getattr(package, name) is not None]
    given += [f"{key} {value['hard']}" for key, value in package.limits.items() if value["hard"] is not None]
    return tuple(f"package {package.name}: {words}" for words in given) or (f"package {package.name}: no limit",)


def render_undo(entry: AuditEntry) -> str:
    """The command that takes one audited change back; empty when there is none."""
    noun, _, verb = entry.action.partition(".")
    name = shlex.quote(entry.target_name)
    if entry.action in _OPPOSITES:
        return f"wcp360 {_OPPOSITES[entry.action].format(name=name)}"
    group = _GROUPS.get(noun)
    if group is None:
        return ""
    if verb == "create" and noun in _MADE:
        return f"wcp360 {group} delete {name}"
    if verb == "unsuspend":
        return f"wcp360 accounts suspend {name} --reason WORDS"
    if verb == "update" and entry.before is not None and entry.after is not None:
        options = _render_options(_FIELDS.get(noun, ()), entry.before, entry.after)
        return f"wcp360 {group} update {name} {options}" if options else ""
    return ""


def _render_options(names: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """As docs/cli.md says: `none` clears a field, and is the empty list."""
    words = []
    for name in names:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(old, bool):
            words.append(option if old else f"--no-{name.replace('_', '-')}")
        elif isinstance(old, list):
            words += [f"{option} {shlex.quote(str(item))}" for item in old] or [f"{option} none"]
        else:
            words.append(f"{option} {'none' if old is None else shlex.quote(str(old))}")
    return " ".join(words)
