"""Use cases of custom roles. A role that changes counts from the next request of everybody who has it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import Session, User
from controller.core.context import SYSTEM, Actor, Change, OpContext, ReachKind, Role
from controller.core.fields import not_found, require_id, require_text
from controller.core.operations import FleetContext, Operations
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.permissions import ROLE_PERMISSIONS, allows
from controller.core.tenancy.catalogue import is_known
from controller.core.tenancy.grants import effective_permissions, split_permission
from controller.core.tenancy.models import CustomRole
from controller.core.tenancy.standing import require_has, require_under
from controller.core.tenancy.views import RoleCreate, RolePage, RoleUpdate, RoleView
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError, ForbiddenError, InvalidInputError

NOUN = "roles"
_OWN = ("tokens:write", "sessions:write", "passkeys:write")
_DEFAULTS = (
    ("Developer", "Looks after sites and domains.", ("sites:write", "domains:write", "parked:write", "ssh-keys:write",
     "accounts:read", "packages:read", "jobs:read", "attention:read", "events:read", *_OWN)),
    ("Viewer", "Sees everything of the account and changes nothing.", ("*:read", *_OWN[1:])),
    ("Billing", "Sees what there is and its limits.", ("accounts:read", "packages:read", "clients:read", *_OWN[1:])),
)  # fmt: skip
"""For team members."""


async def list_roles(ctx: OpContext, page: PageRequest) -> RolePage:
    """One's own and those that the platform has for everybody, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    statement = select(CustomRole)
    condition = contains((CustomRole.name,), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    counts = await _count_users(ctx.session, [row.id for row in found.rows])
    items = tuple(_view(row, counts.get(row.id, 0)) for row in found.rows)
    return RolePage(items=items, next_cursor=found.next_cursor)


async def show_role(ctx: OpContext, role_id: str) -> RoleView:
    """One of them.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "read")
    return await _show(ctx, await _get_role(ctx.session, role_id))


async def create_role(ctx: OpContext, params: RoleCreate) -> RoleView:
    """Add a set of permissions that people below oneself can have.

    Raises:
        InvalidInputError: A field is outside its rules, or the level may not have a permission.
        ForbiddenError: The actor may not, or has not all of it.
        ConflictError: There is one of this name.
    """
    ctx.actor.require(NOUN, "write")
    level = Role(params.level)
    require_under(ctx.actor, level)
    permissions = _parse_permissions(level, params.permissions)
    require_has(ctx.actor, effective_permissions(level, permissions))
    row = CustomRole(
        name=require_text("name", params.name, low=1, high=64),
        description=require_text("description", params.description, high=500),
        level=level.value,
        permissions=permissions,
        owner=_owner_of(ctx.actor),
    )
    await _require_free(ctx.session, row.owner, row.name)
    ctx.session.add(row)
    await ctx.session.flush()
    view = _view(row, 0)
    record(ctx, Change("role.create", f"role/{row.id}", row.name, after=_facts(view)))
    return view


async def update_role(ctx: OpContext, role_id: str, params: RoleUpdate) -> RoleView:
    """Change what a role allows, for everybody who has it.

    Raises:
        InvalidInputError, NotFoundError
        ForbiddenError: The actor may not, has not all of it (before or afterwards), or has this role.
        ConflictError: There is one of this name.
    """
    ctx.actor.require(NOUN, "write")
    row = await _get_role(ctx.session, role_id)
    await _require_own(ctx, row)
    before = await _show(ctx, row)
    if params.name is not msgspec.UNSET:
        name = require_text("name", params.name, low=1, high=64)
        if name != row.name:
            await _require_free(ctx.session, row.owner, name)
        row.name = name
    if params.description is not msgspec.UNSET:
        row.description = require_text("description", params.description, high=500)
    if params.permissions is not msgspec.UNSET:
        level = Role(row.level)
        permissions = _parse_permissions(level, params.permissions)
        require_has(ctx.actor, effective_permissions(level, permissions))
        row.permissions = permissions
    if _facts(await _show(ctx, row)) == _facts(before):
        return before
    await ctx.session.flush()
    await _end_views_of(ctx.session, row)
    view = await _show(ctx, row)
    record(ctx, Change("role.update", f"role/{row.id}", row.name, before=_facts(before), after=_facts(view)))
    return view


async def delete_role(ctx: OpContext, role_id: str) -> None:
    """Remove a role that nobody has.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: Somebody has it.
    """
    ctx.actor.require(NOUN, "write")
    row = await _get_role(ctx.session, role_id)
    await _require_own(ctx, row)
    # Everybody's rows: a role that somebody out of sight has is in use as well.
    statement = select(func.count(User.id)).where(User.role_id == row.id)
    count = await ctx.session.scalar(statement.execution_options(**EVERYBODY)) or 0
    if count:
        raise ConflictError(
            f"{count} {'person has' if count == 1 else 'people have'} the role {row.name!r}",
            hint="Give them another one first: wcp360 users update USER --role-id ROLE.",
        )
    before = _facts(_view(row, 0))
    await ctx.session.delete(row)
    await ctx.session.flush()
    record(ctx, Change("role.delete", f"role/{row.id}", row.name, before=before))


async def ensure_default_roles(operations: Operations) -> int:
    """Make those for team members when there is no role, and never was one that the audit log knows of.

    Returns:
        How many were made now.
    """

    async def use_case(ctx: FleetContext) -> int:
        # A role that was made has an entry in the audit log, which outlives it.
        for statement in (select(CustomRole.id), select(AuditEntry.id).where(AuditEntry.action == "role.create")):
            if (await ctx.session.scalars(statement.limit(1))).first() is not None:
                return 0
        for name, description, permissions in _DEFAULTS:
            params = RoleCreate(name=name, description=description, level="member", permissions=list(permissions))
            await create_role(ctx, params)
        return len(_DEFAULTS)

    return (await operations.change(SYSTEM, "first-start", use_case)).resource


def _parse_permissions(level: Role, given: Collection[str]) -> list[str]:
    """In order, each once; writing includes reading.

    Raises:
        InvalidInputError: There is no such permission, or people of this level cannot have it.
    """
    found: set[str] = set()
    for position, permission in enumerate(given):
        noun, verb = split_permission(permission)
        is_wide = permission == "*" or noun == "*"
        if not is_known(permission):
            message = f"there is no permission {permission[:60]!r}"
        elif not is_wide and not allows(ROLE_PERMISSIONS[level], noun, verb):
            message = f"people with the role {level.value} cannot have {permission}"
        else:
            found |= {permission} if verb != "write" else {permission, f"{noun}:read"}
            continue
        raise InvalidInputError(message, field=f"permissions.{position}", hint="See: wcp360 permissions list")
    return sorted(found)


def _owner_of(actor: Actor) -> str:
    if actor.reach.is_everything:
        return "platform"
    if actor.reach.kind in (ReachKind.RESELLER, ReachKind.CLIENT) and actor.reach.id:
        return f"{actor.reach.kind.value}/{actor.reach.id}"
    raise ForbiddenError(f"{actor.name} may not make roles")


async def _get_role(session: AsyncSession, role_id: str) -> CustomRole:
    row = await session.get(CustomRole, require_id("role", role_id))
    if row is None:
        raise not_found("role", role_id)
    return row


async def _require_own(ctx: OpContext, row: CustomRole) -> None:
    """Pass when the actor may change this role: theirs or of a tenant below, and no more than they have.

    Raises:
        ForbiddenError
    """
    require_under(ctx.actor, Role(row.level))
    if row.owner == "platform" and not ctx.actor.reach.is_everything:
        raise ForbiddenError(f"the role {row.name!r} is the platform's", hint="Make one of your own.")
    own_role_id = None
    if ctx.actor.user_id:
        # A user always sees themselves.
        own_role_id = await ctx.session.scalar(select(User.role_id).where(User.id == ctx.actor.user_id))
    if own_role_id == row.id:
        raise ForbiddenError("nobody changes the role that they have themselves")
    require_has(ctx.actor, effective_permissions(Role(row.level), row.permissions))


async def _require_free(session: AsyncSession, owner: str, name: str) -> None:
    taken = select(CustomRole.id).where(CustomRole.owner == owner, CustomRole.name == name)
    if (await session.scalars(taken.limit(1))).first() is not None:
        raise ConflictError(f"there is a role {name!r} already")


async def _end_views_of(session: AsyncSession, row: CustomRole) -> None:
    """Whoever has the role may do less from now on, perhaps: also as somebody else."""
    holders = select(User.id).where(User.role_id == row.id)
    statement = delete(Session).where(Session.impersonator_id.in_(holders))
    await session.execute(statement, execution_options={"synchronize_session": False})


async def _count_users(session: AsyncSession, role_ids: Collection[str]) -> dict[str, int]:
    statement = select(User.role_id, func.count(User.id)).where(User.role_id.in_(role_ids)).group_by(User.role_id)
    return {str(row[0]): row[1] for row in await session.execute(statement)}


async def _show(ctx: OpContext, row: CustomRole) -> RoleView:
    return _view(row, (await _count_users(ctx.session, [row.id])).get(row.id, 0))


def _view(row: CustomRole, users: int) -> RoleView:
    return RoleView(
        id=row.id,
        name=row.name,
        description=row.description,
        level=row.level,
        permissions=list(row.permissions),
        owner=row.owner,
        users=users,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _facts(view: RoleView) -> dict[str, object]:
    """For the audit log; a client's role is told to the client."""
    kind, _, owner_id = view.owner.partition("/")
    tenant = {f"{kind}_id": owner_id} if owner_id else {}
    return {
        "name": view.name, "description": view.description, "level": view.level, "permissions": view.permissions,
        "owner": view.owner, **tenant,
    }  # fmt: skip
