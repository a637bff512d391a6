"""Which rows of each table belong to a tenant, as conditions for a narrowed session (controller.db.criteria).

A table with an `account_id` is narrowed without a word here; anything else that a tenant may read has an entry in
`_CONDITIONS`. A table that is in neither is the platform's: its permission keeps tenants away, and a test counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, false, literal, or_, select, union
from sqlalchemy.orm import with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from controller.core.accounts.models import Account
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import User
from controller.core.clients.models import Client
from controller.core.context import Reach, ReachKind
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.rollouts.models import PackageRollout
from controller.core.resellers.models import ResellerBranding
from controller.core.rules.models import Rule, RuleRun
from controller.core.tenancy.models import AccountMember, CustomRole, Reseller
from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint
from controller.db.base import Model
from controller.jobs.models import Job, JobTransition

# Aliases of plain tables: they are neither narrowed themselves nor taken for the tables of the statement around them.
_ACCOUNTS: Final = Account.__table__.alias("own_accounts")
_CLIENTS: Final = Client.__table__.alias("own_clients")
_MEMBERS: Final = AccountMember.__table__.alias("own_members")
_USERS: Final = User.__table__.alias("own_users")
_PACKAGES: Final = Package.__table__.alias("own_packages")
_JOBS: Final = Job.__table__.alias("own_jobs")
_ENTRIES: Final = AuditEntry.__table__.alias("own_entries")
_RULES: Final = Rule.__table__.alias("own_rules")
_ENDPOINTS: Final = WebhookEndpoint.__table__.alias("own_endpoints")

Condition = Callable[[Reach], ColumnElement[bool]]


@lru_cache(maxsize=4096)
def criteria_of(reach: Reach) -> tuple[ExecutableOption, ...]:
    """What narrows a session to what this actor reaches; empty for who reaches everything."""
    if reach.is_everything:
        return ()
    return tuple(
        with_loader_criteria(entity, condition(reach), include_aliases=True) for entity, condition in _list_conditions()
    )


def tenant_entities() -> frozenset[type[Model]]:
    """Every table that a narrowed session shows only in part."""
    return frozenset(entity for entity, _condition in _list_conditions())


@lru_cache(maxsize=1)
def _list_conditions() -> tuple[tuple[type[Model], Condition], ...]:
    """Once all modules have been imported, as bootstrap does."""
    found: dict[type[Model], Condition] = dict(_CONDITIONS)
    for mapper in Model.registry.mappers:
        entity = mapper.class_
        if entity not in found and "account_id" in mapper.columns:
            found[entity] = _by_account(entity)
    return tuple(found.items())


def _by_account(entity: Any) -> Condition:
    return lambda reach: entity.account_id.in_(_own_account_ids(reach))


def _is_in(column: Any, wanted: Select[Any]) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.in_(wanted)
    return condition


def _own_account_ids(reach: Reach) -> Select[Any]:
    return select(_ACCOUNTS.c.id).where(_is_own_account(_ACCOUNTS.c, reach))


def _own_client_ids(reach: Reach) -> Select[Any]:
    return select(_CLIENTS.c.id).where(_is_own_client(_CLIENTS.c, reach))


def _is_own_account(columns: Any, reach: Reach) -> ColumnElement[bool]:
    if reach.kind is ReachKind.CLIENT:
        own: ColumnElement[bool] = columns.client_id == reach.id
        return own
    if reach.kind is ReachKind.RESELLER:
        return _is_in(columns.client_id, _own_client_ids(reach))
    on_team = _is_in(columns.id, select(_MEMBERS.c.account_id).where(_MEMBERS.c.user_id == reach.id))
    # An account that went to another client is the old team's no more, whoever forgot to take them off.
    return and_(on_team, _is_in(columns.client_id, select(_USERS.c.client_id).where(_USERS.c.id == reach.id)))


def _is_own_client(columns: Any, reach: Reach) -> ColumnElement[bool]:
    if reach.kind is ReachKind.CLIENT:
        own: ColumnElement[bool] = columns.id == reach.id
        return own
    if reach.kind is ReachKind.RESELLER:
        sold: ColumnElement[bool] = columns.reseller_id == reach.id
        return sold
    return _is_in(columns.id, select(_USERS.c.client_id).where(_USERS.c.id == reach.id))


def _is_own_package(columns: Any, reach: Reach) -> ColumnElement[bool]:
    """A reseller sees their own and those that everybody may sell; a client those that its accounts have."""
    if reach.kind is ReachKind.RESELLER:
        return or_(
            columns.reseller_id == reach.id,
            (columns.reseller_id.is_(None)) & (columns.tier.in_(("client", "reseller"))),
        )
    used = select(_ACCOUNTS.c.package_id).where(_is_own_account(_ACCOUNTS.c, reach))
    return _is_in(columns.id, used)


def _is_own_user(columns: Any, reach: Reach) -> ColumnElement[bool]:
    """Oneself, and the people of one's clients or team."""
    if reach.kind is ReachKind.RESELLER:
        return or_(columns.reseller_id == reach.id, columns.client_id.in_(_own_client_ids(reach)))
    if reach.kind is ReachKind.CLIENT:
        own: ColumnElement[bool] = columns.client_id == reach.id
        return own
    myself: ColumnElement[bool] = columns.id == reach.id
    return myself


def _is_own_entry(reach: Reach) -> ColumnElement[bool]:
    """What was done to one's clients, accounts and people, by whomever, and what one's people did.

    The log says whose an entry is, as it was then: one index has a tenant's entries in their order. Who gets a client
    from somebody else begins with a clean log, and who had it keeps what was done in their time.
    """
    if reach.kind is ReachKind.CLIENT:
        return AuditEntry.client_id == reach.id
    if reach.kind is ReachKind.RESELLER:
        return AuditEntry.reseller_id == reach.id
    myself = f"user/{reach.id}"
    # Of the time since it is their client's: what was before is somebody else's, as it is for the client itself.
    of_accounts = and_(
        _ENTRIES.c.account_id.in_(_own_account_ids(reach)), _ENTRIES.c.client_id.in_(_own_client_ids(reach))
    )
    # One search in an index for each, not one walk through the log that asks all of them of every entry.
    places = (of_accounts, _ENTRIES.c.actor == myself, _ENTRIES.c.target == myself)
    found = (select(_ENTRIES.c.id).where(place) for place in places)
    return AuditEntry.id.in_(union(*found))


def _is_own_reseller(reach: Reach) -> ColumnElement[bool]:
    return Reseller.id == reach.id if reach.kind is ReachKind.RESELLER else false()


def _is_own_branding(reach: Reach) -> ColumnElement[bool]:
    return ResellerBranding.reseller_id == reach.id if reach.kind is ReachKind.RESELLER else false()


def _is_own_role(reach: Reach) -> ColumnElement[bool]:
    """One's own, those of one's clients, and those that the platform has for everybody."""
    platform = CustomRole.owner == "platform"
    if reach.kind is ReachKind.RESELLER:
        of_clients = select(literal("client/").concat(_CLIENTS.c.id)).where(_is_own_client(_CLIENTS.c, reach))
        return or_(platform, CustomRole.owner == f"reseller/{reach.id}", CustomRole.owner.in_(of_clients))
    return or_(platform, CustomRole.owner == f"client/{reach.id}")


def _is_own_version(reach: Reach) -> ColumnElement[bool]:
    return PackageVersion.package_id.in_(select(_PACKAGES.c.id).where(_is_own_package(_PACKAGES.c, reach)))


def _is_own_rollout(reach: Reach) -> ColumnElement[bool]:
    """Of one's own packages: why a package of the platform stopped would name somebody else's account."""
    if reach.kind is not ReachKind.RESELLER:
        return false()
    return PackageRollout.package_id.in_(select(_PACKAGES.c.id).where(_PACKAGES.c.reseller_id == reach.id))


def _is_own_transition(reach: Reach) -> ColumnElement[bool]:
    return JobTransition.job_id.in_(select(_JOBS.c.id).where(_JOBS.c.account_id.in_(_own_account_ids(reach))))


def _is_own_endpoint(columns: Any, reach: Reach) -> ColumnElement[bool]:
    """One's own alone: a client's is not its reseller's business."""
    if reach.kind is ReachKind.MEMBER:
        return false()
    column = columns.reseller_id if reach.kind is ReachKind.RESELLER else columns.client_id
    own: ColumnElement[bool] = column == reach.id
    return own


def _is_own_delivery(reach: Reach) -> ColumnElement[bool]:
    """Of one's own endpoint, and about what is one's own now: an account that went away takes its messages along."""
    of_us = select(_ENDPOINTS.c.id).where(_is_own_endpoint(_ENDPOINTS.c, reach))
    account, client = WebhookDelivery.account_id, WebhookDelivery.client_id
    return and_(
        WebhookDelivery.endpoint_id.in_(of_us),
        or_(account.is_(None), account.in_(_own_account_ids(reach))),
        or_(client.is_(None), client.in_(_own_client_ids(reach))),
    )


def _is_own_rule(columns: Any, reach: Reach) -> ColumnElement[bool]:
    if reach.kind is not ReachKind.RESELLER:
        return false()
    own: ColumnElement[bool] = columns.owner == f"reseller/{reach.id}"
    return own


def _is_own_run(reach: Reach) -> ColumnElement[bool]:
    """As messages of webhooks: what a rule did to an account goes with the account."""
    of_us = select(_RULES.c.id).where(_is_own_rule(_RULES.c, reach))
    account, client = RuleRun.account_id, RuleRun.client_id
    return and_(
        RuleRun.rule_id.in_(of_us),
        or_(account.is_(None), account.in_(_own_account_ids(reach))),
        or_(client.is_(None), client.in_(_own_client_ids(reach))),
    )


_CONDITIONS: Final[Mapping[type[Model], Condition]] = {
    Account: lambda reach: _is_own_account(Account, reach),
    Client: lambda reach: _is_own_client(Client, reach),
    Package: lambda reach: _is_own_package(Package, reach),
    PackageVersion: _is_own_version,
    User: lambda reach: _is_own_user(User, reach),
    AuditEntry: _is_own_entry,
    Reseller: _is_own_reseller,
    ResellerBranding: _is_own_branding,
    CustomRole: _is_own_role,
    JobTransition: _is_own_transition,
    PackageRollout: _is_own_rollout,
    WebhookEndpoint: lambda reach: _is_own_endpoint(WebhookEndpoint, reach),
    WebhookDelivery: _is_own_delivery,
    Rule: lambda reach: _is_own_rule(Rule, reach),
    RuleRun: _is_own_run,
}
