"""Who stands above whom: whom one may make, change and view as.

Two rules hold besides the rows that one reaches. Nobody acts on somebody above or beside the platform's own people but
root; and nobody gives, or takes over, more than they have themselves: role, custom role and a token's scopes all count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import User
from controller.core.auth.sessions import read_permissions
from controller.core.clients.models import Client
from controller.core.context import Actor, OpContext, Role
from controller.core.fields import not_found, require_id
from controller.core.tenancy.grants import effective_permissions, find_excess
from controller.core.tenancy.models import CustomRole
from shared.errors import ForbiddenError, InvalidInputError

_TENANTS: Final = frozenset({Role.RESELLER, Role.CLIENT, Role.MEMBER})
_UNDER: Final[Mapping[Role, frozenset[Role]]] = MappingProxyType({
    Role.ROOT: frozenset(Role),
    Role.ADMIN: _TENANTS,
    Role.RESELLER: _TENANTS,
    Role.CLIENT: frozenset({Role.CLIENT, Role.MEMBER}),
    Role.MEMBER: frozenset(),
})  # fmt: skip
"""Whom each role makes and changes, within its reach."""


async def get_person(session: AsyncSession, user_id: str) -> User:
    """Somebody within reach.

    Raises:
        NotFoundError
    """
    user = await session.get(User, require_id("user", user_id))
    if user is None:
        raise not_found("user", user_id)
    return user


def require_under(actor: Actor, role: Role) -> None:
    """Pass when the actor may make and change people of this role.

    Raises:
        ForbiddenError
    """
    if role not in _UNDER[actor.role]:
        raise ForbiddenError(f"{actor.name} may not make or change people with the role {role.value}")


def require_has(actor: Actor, permissions: Collection[str]) -> None:
    """Pass when the actor has all of these.

    Raises:
        ForbiddenError: Nobody gives or takes over what they have not.
    """
    excess = find_excess(actor, permissions)
    if excess is not None:
        raise ForbiddenError(
            f"{actor.name} has not {excess} and cannot give it",
            hint="Choose a custom role with less, or let somebody do it who has it.",
            context={"permission": excess},
        )


async def require_over(ctx: OpContext, user: User) -> None:
    """Pass when the actor may act on this person: not on themselves, nor on anybody who may more.

    Raises:
        ForbiddenError
    """
    if user.id == ctx.actor.user_id:
        raise ForbiddenError(
            "nobody changes their own role, reach or state", hint="Your own password: wcp360 auth change-password."
        )
    role = Role(user.role)
    require_under(ctx.actor, role)
    require_has(ctx.actor, effective_permissions(role, await read_permissions(ctx.session, user)))


async def find_custom_role(ctx: OpContext, user: User, role_id: str) -> CustomRole:
    """The custom role, if people like this user may have it.

    Raises:
        InvalidInputError: There is no such role within reach, or it is of another level or tenant.
    """
    found = await ctx.session.get(CustomRole, _parse_reference("role_id", role_id))
    if found is None or found.owner not in await _owners_for(ctx.session, user):
        raise InvalidInputError(f"there is no role {role_id[:80]!r}", field="role_id")
    if found.level != user.role:
        raise InvalidInputError(f"the role {found.name!r} is for people with the role {found.level}", field="role_id")
    return found


async def _owners_for(session: AsyncSession, user: User) -> set[str]:
    """Whose custom roles the user may have."""
    owners = {"platform", f"reseller/{user.reseller_id}", f"client/{user.client_id}"}
    if user.client_id is not None:
        client = await session.get(Client, user.client_id)
        if client is not None and client.reseller_id is not None:
            owners.add(f"reseller/{client.reseller_id}")
    return owners


def _parse_reference(field: str, raw: str) -> str:
    try:
        return require_id(field.removesuffix("_id"), raw)
    except LookupError as error:
        raise InvalidInputError(f"there is no {field.removesuffix('_id')} {raw[:80]!r}", field=field) from error
