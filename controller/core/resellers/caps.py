"""What a reseller's accounts are promised, and the one check that they are not promised too much.

Changes are serialised (ADR 6), so what was added up before a change is still true when it is added up afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, CompoundSelect, Row, Select, bindparam, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.limits.registry import LimitRegistry
from controller.core.operations import FleetContext
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.terms import NODE_KEYS, Terms, hard_of
from controller.core.tenancy.models import Reseller
from controller.db.criteria import EVERYBODY
from shared.errors import BugError, ConflictError, QuotaExceededError

ACCOUNTS: Final = "accounts"
CLIENTS: Final = "clients"
OWN_KEYS: Final = (ACCOUNTS, CLIENTS)
"""What is capped beside the limits of packages."""
_RESELLERS: Final[BindParameter[Any]] = bindparam("resellers", expanding=True)


@dataclass(slots=True)
class Promised:
    """What the accounts of one reseller may use together."""

    sums: dict[str, int] = field(default_factory=dict)
    """Key of a limit to the sum of the hard values; `accounts` and `clients` to how many there are."""
    unlimited: dict[str, int] = field(default_factory=dict)
    """Key of a limit to the number of accounts that have as much of it as they like."""

    def sum_of(self, key: str) -> int:
        """How much was promised in numbers."""
        return self.sums.get(key, 0)

    def unlimited_of(self, key: str) -> int:
        """How many accounts were promised any amount."""
        return self.unlimited.get(key, 0)

    def add(self, hard_values: Mapping[str, int | None], count: int) -> None:
        """So many more accounts that may each have that much; None: as much as they like."""
        self.sums[ACCOUNTS] = self.sum_of(ACCOUNTS) + count
        for key, hard in hard_values.items():
            if hard is None:
                self.unlimited[key] = self.unlimited_of(key) + count
            else:
                self.sums[key] = self.sum_of(key) + count * hard


def allowed_of(reseller: Reseller | Row[Any], key: str) -> int | None:
    """What its accounts may be promised together: the cap times the factor, rounded down; None: any amount."""
    cap = reseller.caps.get(key)
    if cap is None:
        return None
    factor = reseller.oversell.get(key)
    return int(cap) if factor is None else int(int(cap) * Fraction(str(factor)))


def factor_of(reseller: Reseller, key: str) -> float:
    """By how much it may oversell."""
    return float(reseller.oversell.get(key, 1.0))


def list_capped(resellers: Iterable[Reseller | Row[Any]]) -> frozenset[str]:
    """Keys that any of them has a cap on: all that `list_over` looks at."""
    return frozenset(key for reseller in resellers for key in reseller.caps)


def list_over(reseller: Reseller | Row[Any], promised: Promised) -> tuple[str, ...]:
    """Capped keys of which more was promised than is allowed. A row has at least `caps` and `oversell`."""
    found = []
    for key in sorted(reseller.caps):
        allowed = allowed_of(reseller, key)
        if allowed is not None and (promised.sum_of(key) > allowed or promised.unlimited_of(key)):
            found.append(key)
    return tuple(found)


async def read_promised(
    session: AsyncSession,
    registry: LimitRegistry,
    reseller_ids: Collection[str] | None = None,
    *,
    only: Collection[str] | None = None,
) -> dict[str, Promised]:
    """Reseller's id to what was promised, for these resellers or for all. Accounts on their way out still count.

    `only`: keys that are added up, for who asks no others; None: all. How many accounts there are is always told.
    """
    found = {reseller_id: Promised() for reseller_id in reseller_ids or ()}
    if reseller_ids is not None and not found:
        return found
    keys = tuple(kind.key for kind in registry.limits if only is None or kind.key in only)
    asked = {} if reseller_ids is None else {_RESELLERS.key: list(reseller_ids)}
    for row in await session.execute(_select_all_granted(of_all=reseller_ids is None), asked):
        hard_values = {key: hard_of(row, key) for key in keys}
        found.setdefault(row.reseller_id, Promised()).add(hard_values, int(row.granted))
    if only is not None and CLIENTS not in only:
        return found
    is_wanted = _is_wanted(of_all=reseller_ids is None)
    clients = select(Client.reseller_id, func.count()).where(is_wanted, Client.deleted_at.is_(None))
    for reseller_id, count in await session.execute(
        clients.group_by(Client.reseller_id).execution_options(**EVERYBODY), asked
    ):
        found.setdefault(str(reseller_id), Promised()).sums[CLIENTS] = count
    return found


async def find_reseller_id(session: AsyncSession, client_id: str) -> str | None:
    """Who sells to this client; None: the platform itself."""
    statement = select(Client.reseller_id).where(Client.id == client_id).execution_options(**EVERYBODY)
    return (await session.scalars(statement)).one_or_none()


async def require_selling(session: AsyncSession, reseller_id: str | None) -> None:
    """Pass when something new may be made for this reseller.

    Raises:
        ConflictError: It is suspended (`reseller_suspended`).
    """
    if reseller_id is None:
        return
    reseller = await _read_reseller(session, reseller_id)
    if reseller.suspended_at is not None:
        raise ConflictError(
            f"the reseller {reseller.name!r} is suspended: nothing new is made for it",
            code="reseller_suspended",
            hint="An administrator lifts it: wcp360 resellers unsuspend NAME.",
        )


@asynccontextmanager
async def within_caps(ctx: FleetContext, reseller_id: str | None) -> AsyncIterator[None]:
    """The block may promise the reseller's accounts more, or less; more only within its caps. None: no reseller's.

    What was promised too much already (a cap was cut) hinders nobody from promising less.

    Raises:
        QuotaExceededError: It would be promised more than allowed; the context names limit, used and allowed.
    """
    reseller = await _read_reseller(ctx.session, reseller_id) if reseller_id is not None else None
    if reseller is None or not reseller.caps:
        yield
        return
    before = await _read_one(ctx, reseller.id)
    yield
    after = await _read_one(ctx, reseller.id)
    for key in sorted(reseller.caps):
        _require_fits(ctx, reseller, key, (before, after))


def _require_fits(ctx: FleetContext, reseller: Reseller, key: str, sides: tuple[Promised, Promised]) -> None:
    before, after = sides
    allowed = allowed_of(reseller, key)
    if allowed is None:
        return
    unit = key if key in OWN_KEYS else ctx.registry.limits.limit(key).unit
    context = {"limit": key, "used": before.sum_of(key), "allowed": allowed}
    if after.unlimited_of(key) > before.unlimited_of(key):
        raise QuotaExceededError(
            f"the reseller {reseller.name!r} has {allowed} {unit} to hand out, so no account may have any amount",
            hint=f"Choose a package that limits {key}.",
            context=context,
        )
    if after.sum_of(key) > max(allowed, before.sum_of(key)):
        raise QuotaExceededError(
            f"the reseller {reseller.name!r} may hand out {allowed} {unit}, handed out {before.sum_of(key)},"
            f" and this asks for {after.sum_of(key) - before.sum_of(key)} more",
            hint="Take a smaller package, remove something, or let an administrator raise the cap.",
            context=context,
        )


async def _read_one(ctx: FleetContext, reseller_id: str) -> Promised:
    await ctx.session.flush()
    return (await read_promised(ctx.session, ctx.registry.limits, (reseller_id,)))[reseller_id]


async def _read_reseller(session: AsyncSession, reseller_id: str) -> Reseller:
    """Also where whoever asks does not see it."""
    statement = select(Reseller).where(Reseller.id == reseller_id).execution_options(**EVERYBODY)
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise BugError(f"there is no reseller {reseller_id}")
    return row


def _is_wanted(*, of_all: bool) -> ColumnElement[bool]:
    return Client.reseller_id.is_not(None) if of_all else Client.reseller_id.in_(_RESELLERS)


@lru_cache(maxsize=2)
def _select_all_granted(*, of_all: bool) -> CompoundSelect[Any]:
    """Of all resellers, or of `_RESELLERS`. Made once: every change of an account asks it twice."""
    granted = (_select_granted(terms, of_all=of_all) for terms in (Package, PackageVersion))
    # Whoever asks: a cap is about all of the reseller's accounts.
    return union_all(*granted).execution_options(**EVERYBODY)


def _select_granted(terms: type[Terms], *, of_all: bool) -> Select[Any]:
    """Of each reseller how many accounts have which package, or version that they are pinned to, and what it allows."""
    is_version, is_wanted = terms is PackageVersion, _is_wanted(of_all=of_all)
    pinned = Account.package_version_id.is_not(None)
    terms_id = Account.package_version_id if is_version else Account.package_id
    # Added up per client first, in the order of an index: ten thousand accounts are then two thousand rows to join.
    held = (
        select(Account.client_id, terms_id.label("terms_id"), func.count().label("granted"))
        .where(Account.deleted_at.is_(None), pinned if is_version else ~pinned)
        .group_by(Account.client_id, terms_id)
    )
    if not of_all:
        held = held.where(Account.client_id.in_(select(Client.id).where(is_wanted)))
    of_clients = held.subquery()
    granted = (
        select(Client.reseller_id, of_clients.c.terms_id, func.sum(of_clients.c.granted).label("granted"))
        .join(of_clients, of_clients.c.client_id == Client.id)
        .where(is_wanted)
        .group_by(Client.reseller_id, of_clients.c.terms_id)
        .subquery()
    )
    # These columns and no entities: a hoster's list of resellers asks for hundreds of packages.
    columns = (terms.limits, *(getattr(terms, key) for key in NODE_KEYS))
    return select(granted.c.reseller_id, granted.c.granted, *columns).join(terms, terms.id == granted.c.terms_id)
