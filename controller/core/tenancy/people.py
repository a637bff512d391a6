"""Use cases of people: making, changing, shutting out and removing those who sign in."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, func, select

from controller.core.audit.chain import record
from controller.core.auth.models import User
from controller.core.auth.users import end_sessions, end_views, is_name_taken, parse_username, set_password
from controller.core.clients.store import get_client
from controller.core.context import Change, OpContext, ReachKind, Role
from controller.core.fields import not_found, parse_field, require_id, require_id_field, require_reference
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.tenancy.grants import effective_permissions
from controller.core.tenancy.models import CustomRole, Reseller
from controller.core.tenancy.standing import find_custom_role, get_person, require_has, require_over, require_under
from controller.core.tenancy.views import PersonCreate, PersonPage, PersonUpdate, PersonView
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError, InvalidInputError

NOUN = "users"
_PLATFORM = (Role.ROOT, Role.ADMIN)


async def list_people(
    ctx: OpContext, page: PageRequest, *, role: str | None, client_id: str | None, reseller_id: str | None
) -> PersonPage:
    """Those within reach, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    statement = select(User)
    if role is not None:
        statement = statement.where(User.role == _parse_role(role))
    if client_id is not None:
        statement = statement.where(User.client_id == require_id_field("client_id", client_id))
    if reseller_id is not None:
        statement = statement.where(User.reseller_id == require_id_field("reseller_id", reseller_id))
    condition = contains((User.username,), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    return PersonPage(items=tuple(view_person(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_person(ctx: OpContext, user_id: str) -> PersonView:
    """One of them.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "read")
    return view_person(await get_person(ctx.session, user_id))


async def create_person(ctx: OpContext, params: PersonCreate, password_hash: str) -> PersonView:
    """Add somebody below oneself, with a one-time password.

    Raises:
        InvalidInputError: A field is outside its rules, or names what is not there (or not within reach).
        ForbiddenError: The actor may not, or would give more than they have.
        ConflictError: The name is taken, by whomever.
    """
    ctx.actor.require(NOUN, "write")
    role = Role(params.role)
    require_under(ctx.actor, role)
    username = parse_field("username", parse_username, params.username)
    user = User(
        username=username,
        password_hash=password_hash,
        role=role.value,
        must_change_password=True,
        reseller_id=await _find_reseller_id(ctx, role, params.reseller_id),
        client_id=await _find_client_id(ctx, role, params.client_id),
    )
    custom = None if params.role_id is None else await find_custom_role(ctx, user, params.role_id)
    require_has(ctx.actor, effective_permissions(role, None if custom is None else custom.permissions))
    if await is_name_taken(ctx.session, username):
        raise ConflictError(f"there is a user {username!r} already", hint="All people sign in at one place.")
    user.role_id = None if custom is None else custom.id
    ctx.session.add(user)
    await ctx.session.flush()
    view = view_person(user)
    record(ctx, Change("user.create", f"user/{user.id}", username, after=msgspec.to_builtins(view)))
    return view


async def update_person(ctx: OpContext, user_id: str, params: PersonUpdate) -> PersonView:
    """Give somebody another role or custom role; it counts from their next request on.

    Raises:
        InvalidInputError, NotFoundError
        ForbiddenError: The actor may not, or would give more than they have.
        ConflictError: It would leave no root.
    """
    ctx.actor.require(NOUN, "write")
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    before = view_person(user)
    role = Role(user.role) if params.role is msgspec.UNSET else Role(params.role)
    role_id = user.role_id if params.role_id is msgspec.UNSET else params.role_id
    if (role.value, role_id) == (user.role, user.role_id):
        return before
    require_under(ctx.actor, role)
    _require_same_kind(Role(user.role), role)
    if user.role == Role.ROOT.value and role is not Role.ROOT:
        await _require_other_root(ctx, user)
    user.role = role.value
    with ctx.session.no_autoflush:
        custom = None if role_id is None else await find_custom_role(ctx, user, role_id)
        require_has(ctx.actor, effective_permissions(role, None if custom is None else custom.permissions))
    user.role_id = None if custom is None else custom.id
    await ctx.session.flush()
    await end_views(ctx.session, user.id)
    return _note(ctx, "user.update", user, before)


async def set_person_state(ctx: OpContext, user_id: str, *, is_disabled: bool) -> PersonView:
    """Shut somebody out at once, with their sessions and tokens, or let them in again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It would leave no root.
    """
    ctx.actor.require(NOUN, "write")
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    before = view_person(user)
    if (user.disabled_at is not None) == is_disabled:
        return before
    if is_disabled:
        await _require_other_root(ctx, user)
        await end_sessions(ctx.session, user.id)
    user.disabled_at = ctx.now if is_disabled else None
    await ctx.session.flush()
    return _note(ctx, "user.disable" if is_disabled else "user.enable", user, before)


async def reset_password(ctx: OpContext, user_id: str, password_hash: str) -> PersonView:
    """Give somebody a one-time password and sign them out everywhere; API tokens stay.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "write")
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    before = view_person(user)
    await set_password(ctx.session, user.username, password_hash, must_change_password=True)
    await ctx.session.flush()
    return _note(ctx, "user.reset_password", user, before)


async def delete_person(ctx: OpContext, user_id: str) -> None:
    """Remove somebody with their sessions, tokens and memberships; the audit log keeps what they did.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It would leave no root.
    """
    ctx.actor.require(NOUN, "write")
    user = await get_person(ctx.session, user_id)
    await require_over(ctx, user)
    await _require_other_root(ctx, user)
    await _remove(ctx, user)


async def remove_people_of_client(ctx: OpContext, client_id: str) -> None:
    """Remove everybody who works for a client, and its custom roles: the client is being deleted."""
    people = (await ctx.session.scalars(select(User).where(User.client_id == client_id).order_by(User.id))).all()
    for user in people:
        await _remove(ctx, user)
    await ctx.session.execute(delete(CustomRole).where(CustomRole.owner == f"client/{client_id}"))


def _parse_role(name: str) -> str:
    known = [role.value for role in Role]
    if name not in known:
        raise InvalidInputError(f"there is no role {name[:40]!r}", field="role", hint=f"Roles: {', '.join(known)}.")
    return name


async def _remove(ctx: OpContext, user: User) -> None:
    before = view_person(user)
    await end_sessions(ctx.session, user.id)
    await ctx.session.delete(user)
    await ctx.session.flush()
    record(ctx, Change("user.delete", f"user/{user.id}", user.username, before=msgspec.to_builtins(before)))


async def _find_reseller_id(ctx: OpContext, role: Role, given: str | None) -> str | None:
    if role is not Role.RESELLER:
        _require_left_out("reseller_id", given, role)
        return None
    if given is None and ctx.actor.reach.kind is ReachKind.RESELLER:
        return ctx.actor.reach.id
    if given is None:
        raise InvalidInputError("whose person is it? name the reseller", field="reseller_id")
    return (await require_reference("reseller_id", _get_reseller(ctx, given))).id


async def _find_client_id(ctx: OpContext, role: Role, given: str | None) -> str | None:
    if role not in (Role.CLIENT, Role.MEMBER):
        _require_left_out("client_id", given, role)
        return None
    if given is None and ctx.actor.reach.kind is ReachKind.CLIENT:
        return ctx.actor.reach.id
    if given is None:
        raise InvalidInputError("whose person is it? name the client", field="client_id")
    return (await require_reference("client_id", get_client(ctx.session, given))).id


def _require_left_out(field: str, given: str | None, role: Role) -> None:
    if given is not None:
        raise InvalidInputError(f"somebody with the role {role.value} has no {field}", field=field)


async def _get_reseller(ctx: OpContext, reseller_id: str) -> Reseller:
    found = await ctx.session.get(Reseller, require_id("reseller", reseller_id))
    if found is None or found.deleted_at is not None:
        raise not_found("reseller", reseller_id)
    return found


def _require_same_kind(now: Role, wanted: Role) -> None:
    """Whose person somebody is never changes: that would be another person."""
    kinds = (frozenset(_PLATFORM), frozenset({Role.RESELLER}), frozenset({Role.CLIENT, Role.MEMBER}))
    if not any({now, wanted} <= kind for kind in kinds):
        raise InvalidInputError(
            f"a {now.value} cannot become a {wanted.value}", field="role", hint="Make another user for that."
        )


async def _require_other_root(ctx: OpContext, user: User) -> None:
    """Pass when somebody else is root and can sign in, or this is not root at all.

    Raises:
        ConflictError: Nobody would be left who owns the platform.
    """
    if user.role != Role.ROOT.value:
        return
    statement = select(func.count(User.id)).where(
        User.role == Role.ROOT.value, User.disabled_at.is_(None), User.id != user.id
    )
    # Everybody's rows: the platform's people are of no tenant.
    if not await ctx.session.scalar(statement.execution_options(**EVERYBODY)):
        raise ConflictError(f"{user.username} is the last root", code="last_root", hint="Make another root first.")


def _note(ctx: OpContext, action: str, user: User, before: PersonView) -> PersonView:
    after = view_person(user)
    states = {"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(after)}
    record(ctx, Change(action, f"user/{user.id}", user.username, **states))
    return after


def view_person(user: User) -> PersonView:
    """For the API."""
    return PersonView(
        id=user.id,
        username=user.username,
        role=user.role,
        reseller_id=user.reseller_id,
        client_id=user.client_id,
        role_id=user.role_id,
        must_change_password=user.must_change_password,
        disabled_at=user.disabled_at,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )
