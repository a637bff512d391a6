"""Sessions of a person: how they begin, how many there may be, and the list of devices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.attempts import Device, printable
from controller.core.auth.identities import Identity, SessionRow, session_identity
from controller.core.auth.models import Session, User
from controller.core.auth.secrets import SESSION_PREFIX, hash_secret, new_secret
from controller.core.context import Change, OpContext
from controller.core.fields import not_found, require_id
from controller.core.paging import PageRequest, Rows, fetch_page
from controller.core.policies.book import read_policies
from controller.core.tenancy.models import CustomRole
from shared.errors import ForbiddenError

NOUN: Final = "sessions"


@dataclass(frozen=True, slots=True)
class SignIn:
    """A new session, or one under a new secret. `secret` exists nowhere else."""

    secret: str
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What a new session is like."""

    now: datetime
    expires_at: datetime
    sessions_max: int
    has_second_factor: bool
    needs_second_factor: bool = False
    """A package asks for one."""
    is_by_link: bool = False
    unused_since: datetime | None = None
    """Sessions that nobody used since then are over; None: none is for that."""


async def open_session(writer: AsyncSession, user: User, device: Device, terms: SessionTerms) -> SignIn:
    """Begin a session; ends those that have expired, and the user's oldest ones beyond `sessions_max`."""
    secret = new_secret(SESSION_PREFIX)
    await writer.execute(delete(Session).where(Session.expires_at <= terms.now))
    if terms.unused_since is not None:
        await writer.execute(delete(Session).where(Session.last_used_at <= terms.unused_since))
    row = Session(
        user_id=user.id,
        secret_hash=hash_secret(secret),
        expires_at=terms.expires_at,
        address=device.address[:64],
        user_agent=printable(device.user_agent),
        last_used_at=terms.now,
        last_address=device.address[:64],
        verified_at=terms.now,
        has_second_factor=terms.has_second_factor,
        needs_second_factor=terms.needs_second_factor,
        is_by_link=terms.is_by_link,
    )
    writer.add(row)
    await writer.flush()
    own = (Session.user_id == user.id, Session.impersonator_id.is_(None))
    newest = select(Session.id).where(*own).order_by(Session.id.desc())
    kept = (await writer.scalars(newest.limit(terms.sessions_max))).all()
    await writer.execute(delete(Session).where(*own, Session.id.not_in([*kept, row.id])))
    return SignIn(secret=secret, identity=session_identity(_shown(row, user, await read_permissions(writer, user))))


async def open_view(writer: AsyncSession, user: User, viewer: Identity, device: Device, terms: SessionTerms) -> SignIn:
    """Begin a session of an administrator who views as the user; it ends none of the user's own.

    `verified_at` is the administrator's: viewing as somebody is no new proof of who one is.
    """
    secret = new_secret(SESSION_PREFIX)
    row = Session(
        user_id=user.id,
        secret_hash=hash_secret(secret),
        expires_at=terms.expires_at,
        address=device.address[:64],
        user_agent=printable(device.user_agent),
        last_used_at=terms.now,
        last_address=device.address[:64],
        verified_at=viewer.verified_at or terms.now,
        has_second_factor=terms.has_second_factor,
        impersonator_id=viewer.user_id,
        impersonator_name=viewer.username,
    )
    writer.add(row)
    await writer.flush()
    return SignIn(secret=secret, identity=session_identity(_shown(row, user, await read_permissions(writer, user))))


async def rotate_session(writer: AsyncSession, identity: Identity, now: datetime) -> SignIn:
    """Give the session of whoever asks a new secret, because it may do more from now on: a copied one is worth nothing.

    Raises:
        NotFoundError: The session was ended meanwhile.
    """
    row = await writer.get(Session, identity.credential_id, populate_existing=True)
    if row is None:
        raise not_found("session", identity.credential_id)
    secret = new_secret(SESSION_PREFIX)
    row.secret_hash, row.verified_at = hash_secret(secret), now
    await writer.flush()
    user = await writer.get_one(User, row.user_id)
    return SignIn(secret=secret, identity=session_identity(_shown(row, user, await read_permissions(writer, user))))


async def list_sessions(ctx: OpContext, user_id: str, page: PageRequest) -> Rows[Session]:
    """Of one user, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require(NOUN, "read")
    rules = await read_policies(ctx.session)
    statement = select(Session).where(
        Session.user_id == user_id,
        Session.expires_at > ctx.now,
        Session.created_at > ctx.now - timedelta(hours=rules.session_hours),
    )
    if rules.session_idle_minutes is not None:
        statement = statement.where(Session.last_used_at > ctx.now - timedelta(minutes=rules.session_idle_minutes))
    return await fetch_page(ctx.session, statement, page)


async def revoke_session(ctx: OpContext, user_id: str, session_id: str) -> None:
    """End one session of the user at once.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require(NOUN, "write")
    row = await ctx.session.get(Session, require_id("session", session_id))
    if row is None or row.user_id != user_id:
        raise not_found("session", session_id)
    await ctx.session.delete(row)
    before = {"address": row.address, "user_agent": row.user_agent}
    record(ctx, Change("session.revoke", f"session/{row.id}", row.address, before=before))


async def revoke_other_sessions(ctx: OpContext, user_id: str, own_id: str) -> int:
    """End all sessions of the user but one; how many there were.

    Args:
        ctx: Whose wish it is.
        user_id: Whose sessions.
        own_id: The session that stays; the id of an API token keeps none.
    """
    ctx.actor.require(NOUN, "write")
    statement = delete(Session).where(Session.user_id == user_id, Session.id != own_id)
    result = await ctx.session.execute(statement, execution_options={"synchronize_session": False})
    count = result.rowcount if isinstance(result, CursorResult) else 0
    record(ctx, Change("session.revoke_others", f"user/{user_id}", ctx.actor.name, after={"ended": count}))
    return count


def require_person(identity: Identity, what: str) -> None:
    """Pass when somebody signed in; an API token has no password and no device.

    Raises:
        ForbiddenError: An API token asks.
    """
    if not identity.is_person:
        raise ForbiddenError(f"an API token cannot {what}", hint="Sign in with the password first.")


async def read_permissions(session: AsyncSession, user: User) -> list[str] | None:
    """Of the user's custom role; None: they have none."""
    if user.role_id is None:
        return None
    return await session.scalar(select(CustomRole.permissions).where(CustomRole.id == user.role_id))


def _shown(row: Session, user: User, permissions: list[str] | None) -> SessionRow:
    return SessionRow(
        id=row.id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        verified_at=row.verified_at,
        has_second_factor=row.has_second_factor,
        needs_second_factor=row.needs_second_factor,
        is_by_link=row.is_by_link,
        impersonator_id=row.impersonator_id,
        impersonator_name=row.impersonator_name,
        impersonator_networks=None,
        user_id=user.id,
        username=user.username,
        must_change_password=user.must_change_password,
        networks=user.networks,
        role=user.role,
        reseller_id=user.reseller_id,
        client_id=user.client_id,
        permissions=permissions,
    )
