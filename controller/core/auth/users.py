"""People who may sign in: creating them and giving them a new password."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import PasswordHistory, PasswordReset, Session, User
from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.tenancy.models import Reseller
from controller.db.base import utc_now
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError, InvalidInputError, NotFoundError

_USERNAME: Final = re.compile(r"[a-z][a-z0-9._@+-]{1,63}")


def parse_username(raw: str) -> str:
    """Return the canonical (lower-case) name.

    Raises:
        InvalidInputError: It is not 2 to 64 of a-z, 0-9 and . _ @ + -, starting with a letter.
    """
    name = raw.strip().lower()
    if not _USERNAME.fullmatch(name):
        raise InvalidInputError(
            "a user name has 2 to 64 letters, digits and . _ @ + -, and starts with a letter", field="username"
        )
    return name


async def count_users(session: AsyncSession) -> int:
    """How many people there are; 0 on a new installation."""
    return (await session.execute(select(func.count()).select_from(User))).scalar_one()


async def find_user(session: AsyncSession, username: str) -> User | None:
    """The user of this name, in whatever case it was typed."""
    return (await session.execute(select(User).where(User.username == username.strip().lower()))).scalar_one_or_none()


async def is_name_taken(session: AsyncSession, username: str) -> bool:
    """Whether anybody has it, of whichever tenant: all people sign in at one place."""
    statement = select(User.id).where(User.username == username).execution_options(**EVERYBODY)
    return (await session.execute(statement)).first() is not None


async def create_user(
    session: AsyncSession, username: str, password_hash: str, *, role: Role, must_change_password: bool
) -> User:
    """Add a person.

    Raises:
        InvalidInputError: The name is malformed.
        ConflictError: The name is taken.
    """
    name = parse_username(username)
    if await is_name_taken(session, name):
        raise ConflictError(f"there is a user {name!r} already")
    user = User(username=name, password_hash=password_hash, role=role.value, must_change_password=must_change_password)
    session.add(user)
    await session.flush()
    return user


async def set_password(session: AsyncSession, username: str, password_hash: str, *, must_change_password: bool) -> User:
    """Give a new password to a person, end all their sessions and all links for another one; API tokens stay.

    Raises:
        NotFoundError: Nobody has this name.
    """
    user = await find_user(session, username)
    if user is None:
        raise NotFoundError(f"there is no user {username!r}")
    user.password_hash = password_hash
    user.must_change_password = must_change_password
    await end_sessions(session, user.id)
    await end_resets(session, user.id, utc_now())
    return user


async def end_resets(session: AsyncSession, user_id: str, now: datetime, *, but_for: str = "") -> None:
    """Make every link that was mailed to this person worthless, but for the one of this id."""
    live = update(PasswordReset).where(
        PasswordReset.user_id == user_id, PasswordReset.ended_at.is_(None), PasswordReset.id != but_for
    )
    await session.execute(live.values(ended_at=now), execution_options={"synchronize_session": False})


async def read_former(session: AsyncSession, user_id: str, count: int) -> list[str]:
    """Hashes of the passwords before the present one, newest first."""
    statement = select(PasswordHistory.password_hash).where(PasswordHistory.user_id == user_id)
    return list(await session.scalars(statement.order_by(PasswordHistory.id.desc()).limit(count)))


async def replace_password(session: AsyncSession, username: str, password_hash: str, *, keep: int) -> User:
    """A person chose another password: as `set_password`, and so many former ones are remembered.

    Raises:
        NotFoundError: Nobody has this name.
    """
    user = await find_user(session, username)
    if user is not None:
        session.add(PasswordHistory(user_id=user.id, password_hash=user.password_hash))
        await session.flush()
        newest = select(PasswordHistory.id).where(PasswordHistory.user_id == user.id)
        kept = list(await session.scalars(newest.order_by(PasswordHistory.id.desc()).limit(keep)))
        old = delete(PasswordHistory).where(PasswordHistory.user_id == user.id, PasswordHistory.id.not_in(kept))
        await session.execute(old, execution_options={"synchronize_session": False})
    return await set_password(session, username, password_hash, must_change_password=False)


async def end_sessions(session: AsyncSession, user_id: str) -> None:
    """Sign the user out everywhere, also where they view as somebody else."""
    theirs = or_(Session.user_id == user_id, Session.impersonator_id == user_id)
    await session.execute(delete(Session).where(theirs), execution_options={"synchronize_session": False})


async def end_views(session: AsyncSession, user_id: str) -> None:
    """Sign the user out where they view as somebody else, because they may do less from now on."""
    statement = delete(Session).where(Session.impersonator_id == user_id)
    await session.execute(statement, execution_options={"synchronize_session": False})


async def is_tenant_open(session: AsyncSession, user: User) -> bool:
    """Whether the reseller or client whom the user works for is there, and not suspended."""
    statement = (
        select(User.id)
        .outerjoin(Reseller, Reseller.id == User.reseller_id)
        .outerjoin(Client, Client.id == User.client_id)
        .where(
            User.id == user.id,
            Reseller.suspended_at.is_(None),
            Reseller.deleted_at.is_(None),
            Client.deleted_at.is_(None),
        )
    )
    return (await session.execute(statement.execution_options(**EVERYBODY))).first() is not None
