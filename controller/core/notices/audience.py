"""Whom an event is told to: by tenancy as it was when it happened, and by what each person may read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken, User
from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.notices.kinds import Audience, NoticeKind
from controller.core.permissions import ROLE_PERMISSIONS, allows
from controller.core.resellers.models import ResellerBranding
from controller.core.tenancy.models import AccountMember, CustomRole, Reseller


@dataclass(frozen=True, slots=True)
class Face:
    """As whom the platform speaks to somebody; empty: as itself."""

    name: str = ""
    reply_to: str = ""
    host: str = ""
    """Of the panel."""


async def find_audience(session: AsyncSession, kind: NoticeKind, entry: AuditEntry) -> Sequence[User]:
    """The people who are told of it. Nobody is told by way of a tenant that the thing came to only later."""
    whom = await _condition(session, kind.audience, entry)
    if whom is None:
        return ()
    people = await list_people(session, whom, noun=kind.noun)
    if kind.is_security:
        return people
    return [user for user in people if f"user/{user.id}" != entry.actor]


async def list_administrators(session: AsyncSession, noun: str) -> Sequence[User]:
    """The platform's people who may read these."""
    return await list_people(session, _is_platform(), noun=noun)


async def list_people(session: AsyncSession, whom: ColumnElement[bool], *, noun: str) -> Sequence[User]:
    """Those of them who can sign in and may read these."""
    statement = select(User).where(whom, User.disabled_at.is_(None)).order_by(User.id)
    people = list(await session.scalars(statement))
    if not noun:
        return people
    grants = await _read_roles(session, [user.role_id for user in people if user.role_id is not None])
    return [user for user in people if _may_read(user, noun, grants)]


async def find_face(session: AsyncSession, user: User) -> Face:
    """The reseller whose people these are, as its clients see it."""
    reseller_id = user.reseller_id
    if reseller_id is None and user.client_id is not None:
        reseller_id = await session.scalar(select(Client.reseller_id).where(Client.id == user.client_id))
    reseller = await session.get(Reseller, reseller_id) if reseller_id is not None else None
    if reseller is None or reseller.deleted_at is not None:
        return Face()
    statement = select(ResellerBranding).where(ResellerBranding.reseller_id == reseller.id)
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        return Face(name=reseller.name)
    return Face(name=row.name or reseller.name, reply_to=row.support_email, host=row.host or "")


async def _condition(session: AsyncSession, audience: Audience, entry: AuditEntry) -> ColumnElement[bool] | None:
    """None: nobody."""
    noun, _, row_id = entry.target.partition("/")
    if audience is Audience.PLATFORM:
        return _is_platform()
    if audience is Audience.RESELLER:
        return User.reseller_id == row_id
    if audience is Audience.ACCOUNT:
        return await _is_of_account(session, entry)
    if noun == "token":
        row = await session.get(ApiToken, row_id)
        return User.id == row.user_id if row is not None else None
    return User.id == row_id


def _is_platform() -> ColumnElement[bool]:
    return User.role.in_((Role.ROOT.value, Role.ADMIN.value))


async def _is_of_account(session: AsyncSession, entry: AuditEntry) -> ColumnElement[bool] | None:
    """By the client that the entry names: whose it was then."""
    if entry.client_id is None:
        return None
    owners = (User.client_id == entry.client_id) & (User.role == Role.CLIENT.value)
    team = select(AccountMember.user_id).where(AccountMember.account_id == entry.account_id)
    members = (User.client_id == entry.client_id) & User.id.in_(team)
    reseller_id = await session.scalar(select(Client.reseller_id).where(Client.id == entry.client_id))
    if reseller_id is None:
        return or_(owners, members)
    return or_(owners, members, User.reseller_id == reseller_id)


async def _read_roles(session: AsyncSession, ids: Iterable[str]) -> dict[str, frozenset[str]]:
    wanted = set(ids)
    if not wanted:
        return {}
    rows = await session.scalars(select(CustomRole).where(CustomRole.id.in_(wanted)))
    return {row.id: frozenset(row.permissions) for row in rows}


def _may_read(user: User, noun: str, grants: dict[str, frozenset[str]]) -> bool:
    if not allows(ROLE_PERMISSIONS[Role(user.role)], noun, "read"):
        return False
    return user.role_id is None or allows(grants.get(user.role_id, frozenset()), noun, "read")
