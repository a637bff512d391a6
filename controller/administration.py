"""What an operator does on the controller's own machine: first administrator, lost passwords, a look at the setup."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import append_entries
from controller.core.auth.factor_service import reset_factor
from controller.core.auth.models import User
from controller.core.auth.passwords import Passwords
from controller.core.auth.sealing import KEY_BYTES, Sealer
from controller.core.auth.second_factor import SecondFactors
from controller.core.auth.secrets import new_password
from controller.core.auth.users import count_users, create_user, find_user, set_password
from controller.core.context import SYSTEM, Change, OpContext, Role
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.migrations import runner
from controller.settings import Settings

FIRST_ADMIN_NAME: Final = "admin"
FIRST_ADMIN_FILE: Final = "first-admin.json"
_FIRST_ADMIN_LOCK: Final = 0x77637033_36300003
"""Advisory lock of PostgreSQL; see _CHANGE_LOCK of controller.core.operations."""


@dataclass(frozen=True, slots=True)
class IssuedPassword:
    """A password that was just made; it must be changed after the first sign-in."""

    username: str
    password: str


async def ensure_first_admin(database: Database, passwords: Passwords, data_dir: Path) -> bool:
    """Create the first administrator when nobody can sign in yet, and write the password to a file of mode 0600.

    The file is written before the row is committed: a crash in between costs a file that the next start replaces, never
    an administrator whose password nobody knows. It is removed once the password was changed.

    Returns:
        True when an administrator was created now.
    """
    path = data_dir / FIRST_ADMIN_FILE
    async with database.read() as session:
        user_count = await count_users(session)
        first = await find_user(session, FIRST_ADMIN_NAME)
    if user_count:
        if first is None or not first.must_change_password:
            path.unlink(missing_ok=True)
        return False
    issued = IssuedPassword(username=FIRST_ADMIN_NAME, password=new_password())
    hashed = await passwords.hash(issued.password)
    async with database.write() as session:
        if not database.is_sqlite:
            # Two processes that start at the same moment: the second one waits here, and then finds a user.
            await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FIRST_ADMIN_LOCK})
        if await count_users(session):
            return False
        user = await create_user(session, issued.username, hashed, role=Role.ROOT, must_change_password=True)
        await _audit(session, "user.create", user)
        _write_private(path, {"username": issued.username, "password": issued.password})
    return True


async def create_admin(database: Database, passwords: Passwords, username: str) -> IssuedPassword:
    """Add an administrator with a one-time password.

    Raises:
        InvalidInputError: The name is malformed.
        ConflictError: The name is taken.
    """
    password = new_password()
    hashed = await passwords.hash(password)
    async with database.write() as session:
        user = await create_user(session, username, hashed, role=Role.ADMIN, must_change_password=True)
        await _audit(session, "user.create", user)
    return IssuedPassword(username=user.username, password=password)


async def reset_password(database: Database, passwords: Passwords, username: str) -> IssuedPassword:
    """Give a one-time password to somebody who lost theirs; ends their sessions.

    Raises:
        NotFoundError: Nobody has this name.
    """
    password = new_password()
    hashed = await passwords.hash(password)
    async with database.write() as session:
        user = await set_password(session, username, hashed, must_change_password=True)
        await _audit(session, "user.reset_password", user)
    return IssuedPassword(username=user.username, password=password)


async def reset_second_factor(database: Database, username: str) -> None:
    """Forget the second factor of somebody who lost their device and their recovery codes.

    Raises:
        NotFoundError: Nobody has this name, or they have none.
    """
    factors = SecondFactors(Sealer(bytes(KEY_BYTES)))  # nothing is opened with it: what is forgotten need not be read
    async with database.write() as session:
        ctx = OpContext(actor=SYSTEM, session=session, request_id="", now=utc_now())
        await reset_factor(ctx, factors, username)
        await append_entries(ctx, ctx.changes)


async def with_database(
    url: str, act: Callable[[Database, Passwords, str], Awaitable[IssuedPassword]], username: str
) -> IssuedPassword:
    """Run one of the above on a database of its own; works while the controller runs, and while it does not."""
    database = Database(url)
    try:
        return await act(database, Passwords(), username)
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str


async def check_setup(settings: Settings) -> list[Finding]:
    """Look at settings, folder and database without changing anything."""
    findings = [Finding(is_good=True, text="settings are valid"), check_folder(settings.data_dir)]
    url = settings.effective_database_url
    if _is_missing_sqlite(url):
        return [*findings, Finding(is_good=True, text="the database does not exist yet; wcpd run makes it")]
    try:
        revision = await runner.read_revision(url)
    except (SQLAlchemyError, OSError) as error:
        return [*findings, Finding(is_good=False, text=f"the database cannot be read: {error}")]
    head = runner.head_revision()
    is_known = revision in (None, *runner.known_revisions())
    text = f"the database is at revision {revision}, this release has {head}"
    return [*findings, Finding(is_good=is_known, text=text)]


def _is_missing_sqlite(url: str) -> bool:
    return url.startswith("sqlite") and not Path(url.partition(":///")[2]).exists()


def check_folder(path: Path) -> Finding:
    """Keys and the database lie there, so nobody else may look in."""
    if not path.exists():
        return Finding(is_good=True, text=f"{path} does not exist yet; wcpd run makes it")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding(is_good=False, text=f"{path} has mode {mode:o}; others must not enter it (chmod 700)")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(is_good=False, text=f"{path} cannot be written by this user")
    return Finding(is_good=True, text=f"{path} is private and writable")


async def _audit(session: AsyncSession, action: str, user: User) -> None:
    ctx = OpContext(actor=SYSTEM, session=session, request_id="", now=utc_now())
    after = {"role": user.role}
    await append_entries(ctx, [Change(action=action, target=f"user/{user.id}", target_name=user.username, after=after)])


def _write_private(path: Path, content: dict[str, str]) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
