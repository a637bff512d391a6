"""The history of sign-ins, and what about one is unusual. No database of countries: it would be wrong and age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import SignInAttempt, User
from controller.core.auth.networks import place_of
from controller.core.context import OpContext
from controller.core.fields import not_found
from controller.core.paging import PageRequest, Rows, fetch_page
from controller.core.policies.book import read_now
from controller.db.base import utc_now
from controller.db.engine import Database

NEW_NETWORK: Final = "new_network"
NEW_DEVICE: Final = "new_device"
IMPOSSIBLE_PACE: Final = "impossible_pace"
PACE: Final = timedelta(minutes=10)
"""Nobody changes both their device and their network within this; two people with one password do."""
KNOWN_FOR: Final = timedelta(days=90)
"""A network or device counts as known so long after a success."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a sign-in came from, for the list of sessions and the audit log."""

    address: str
    user_agent: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a user's successes of the last months looked like."""

    networks: frozenset[str] = frozenset()
    user_agents: frozenset[str] = frozenset()
    last_at: datetime | None = None
    last_network: str = ""
    last_user_agent: str = ""


def judge_signals(habits: Habits, device: Device, now: datetime) -> list[str]:
    """What is unusual about a success; pure. Nothing is unusual about the first one."""
    if habits.last_at is None:
        return []
    network, user_agent = place_of(device.address), printable(device.user_agent)
    is_other_place = network != habits.last_network and user_agent != habits.last_user_agent
    found = {
        NEW_NETWORK: network not in habits.networks,
        NEW_DEVICE: user_agent not in habits.user_agents,
        IMPOSSIBLE_PACE: is_other_place and now - habits.last_at < PACE,
    }
    return [name for name, is_so in found.items() if is_so]


async def read_habits(session: AsyncSession, user_id: str, now: datetime) -> Habits:
    """Of one user. The last 200 successes are enough of a habit."""
    statement = (
        select(SignInAttempt.created_at, SignInAttempt.network, SignInAttempt.user_agent)
        .where(
            SignInAttempt.user_id == user_id,
            SignInAttempt.is_success.is_(True),
            SignInAttempt.created_at > now - KNOWN_FOR,
        )
        .order_by(SignInAttempt.id.desc())
        .limit(200)
    )
    rows = (await session.execute(statement)).all()
    if not rows:
        return Habits()
    return Habits(
        networks=frozenset(row.network for row in rows),
        user_agents=frozenset(row.user_agent for row in rows),
        last_at=rows[0].created_at,
        last_network=rows[0].network,
        last_user_agent=rows[0].user_agent,
    )


async def is_known_place(session: AsyncSession, username: str, address: str, now: datetime) -> bool:
    """Whether the owner of this name signed in from this network before. A name of nobody costs the same statement."""
    network = place_of(address)
    statement = (
        select(SignInAttempt.id)
        .join(User, User.id == SignInAttempt.user_id)
        .where(
            User.username == username.strip().lower(),
            SignInAttempt.is_success.is_(True),
            SignInAttempt.network == network,
            SignInAttempt.created_at > now - KNOWN_FOR,
        )
        .limit(1)
    )
    return bool(network) and (await session.execute(statement)).first() is not None


def note_attempt(
    session: AsyncSession, username: str, user_id: str | None, device: Device, *, reason: str, signals: list[str]
) -> None:
    """Add a row; an empty reason means success."""
    shown = username.strip().lower()[:64]
    session.add(
        SignInAttempt(
            user_id=user_id,
            username=printable(shown),
            is_success=not reason,
            reason=reason or "signed_in",
            address=device.address[:64],
            network=place_of(device.address),
            user_agent=printable(device.user_agent),
            signals=signals,
            is_unusual=bool(signals),
        )
    )


def printable(text: str) -> str:
    """A header as it may stand in tables and terminals."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


async def list_own_attempts(ctx: OpContext, user_id: str, page: PageRequest) -> Rows[SignInAttempt]:
    """Of whoever asks, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("sessions", "read")
    return await fetch_page(ctx.session, select(SignInAttempt).where(SignInAttempt.user_id == user_id), page)


async def list_attempts(
    ctx: OpContext, page: PageRequest, *, username: str | None, is_unusual: bool
) -> Rows[SignInAttempt]:
    """Of everybody, newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("security", "read")
    statement = select(SignInAttempt)
    if username:
        statement = statement.where(SignInAttempt.username == username.strip().lower()[:64])
    if is_unusual:
        statement = statement.where(SignInAttempt.is_unusual.is_(True))
    return await fetch_page(ctx.session, statement, page)


async def get_user_of(session: AsyncSession, username: str) -> User:
    """The user of this name.

    Raises:
        NotFoundError: Nobody has it.
    """
    statement = select(User).where(User.username == username.strip().lower()[:64])
    user = (await session.scalars(statement)).one_or_none()
    if user is None:
        raise not_found("user", username)
    return user


@dataclass(frozen=True, slots=True)
class AttemptRetention:
    """A schedule's work: forget what is older than the policy `sign_in_retention_days`."""

    database: Database
    clock: Callable[[], datetime] = utc_now

    async def run(self) -> str | None:
        """One round; safe to run again."""
        keep = timedelta(days=(await read_now(self.database)).sign_in_retention_days)
        statement = delete(SignInAttempt).where(SignInAttempt.created_at < self.clock() - keep)
        async with self.database.write() as session:
            result = await session.execute(statement, execution_options={"synchronize_session": False})
        gone = result.rowcount if isinstance(result, CursorResult) else 0
        return f"{gone} sign-ins forgotten" if gone else None
