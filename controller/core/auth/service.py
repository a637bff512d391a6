"""Signing in and out, and finding out who holds a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import append_entries
from controller.core.auth.models import ApiToken, Session, User
from controller.core.auth.passwords import Passwords, require_acceptable
from controller.core.auth.secrets import SESSION_PREFIX, TOKEN_PREFIX, hash_secret, new_secret
from controller.core.auth.users import find_user, set_password
from controller.core.context import Actor, Change, OpContext, Role
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.prepared import Prepared, param
from shared.errors import ForbiddenError, InvalidInputError, UnauthenticatedError

_LAST_USED_RESOLUTION: Final = timedelta(minutes=5)
"""last_used_at is not worth a write transaction for every request."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who showed a secret that is valid now."""

    actor: Actor
    user_id: str
    username: str
    credential_id: str
    """Id of the session or API token."""
    must_change_password: bool
    expires_at: datetime | None
    """None: the token does not expire."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a sign-in came from, for the list of sessions and the audit log."""

    address: str
    user_agent: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class SignIn:
    """A new session. `secret` exists nowhere else."""

    secret: str
    identity: Identity


class Authenticator:
    """Everything about secrets that has to happen before anybody is known, so before there is an OpContext."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        *,
        session_hours: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._lifetime = timedelta(hours=session_hours)
        self._clock = clock

    async def sign_in(self, username: str, password: str, device: Device) -> SignIn:
        """Begin a session under a new secret, whatever the caller had before (no session fixation).

        Raises:
            UnauthenticatedError: No such user, a disabled one, or another password; the three look and cost the same.
        """
        async with self._database.read() as reader:
            user = await find_user(reader, username)
        is_right = await self._passwords.verify(user.password_hash if user else None, password)
        if user is None or not is_right or user.disabled_at is not None:
            raise UnauthenticatedError("user name or password is wrong", code="wrong_credentials")
        secret, now = new_secret(SESSION_PREFIX), self._clock()
        row = Session(
            user_id=user.id,
            secret_hash=hash_secret(secret),
            expires_at=now + self._lifetime,
            address=device.address[:64],
            user_agent=device.user_agent[:200],
        )
        async with self._database.write() as writer:
            writer.add(row)
            await writer.execute(delete(Session).where(Session.expires_at <= now))
            await writer.flush()
            shown = _SessionRow(row.id, row.expires_at, user.id, user.username, user.role, user.must_change_password)
            identity = _session_identity(shown)
            await self._audit(writer, identity, "user.sign_in", device.request_id, after={"address": row.address})
        return SignIn(secret=secret, identity=identity)

    async def sign_out(self, identity: Identity, request_id: str = "") -> None:
        """End one session; ending it twice is the same. An API token is left alone: it is revoked, not signed out."""
        if identity.actor.kind != "user":
            return
        async with self._database.write() as writer:
            await writer.execute(delete(Session).where(Session.id == identity.credential_id))
            await self._audit(writer, identity, "user.sign_out", request_id)

    async def find_identity(self, secret: str) -> Identity | None:
        """Who holds this secret of a session or token; None when it is unknown, ended, or its user disabled."""
        now = self._clock()
        if secret.startswith(SESSION_PREFIX):
            sessions = await self._database.glance(_SESSION, hash=hash_secret(secret), now=now)
            return _session_identity(sessions[0]) if sessions else None
        if not secret.startswith(TOKEN_PREFIX):
            return None
        tokens = await self._database.glance(_TOKEN, hash=hash_secret(secret))
        found: _TokenRow | None = tokens[0] if tokens else None
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        if found.last_used_at is None or now - found.last_used_at > _LAST_USED_RESOLUTION:
            await self._note_use(found.id, now)
        return _token_identity(found)

    async def change_password(self, identity: Identity, current: str, new: str, request_id: str = "") -> None:
        """Replace one's own password and end all sessions of the user.

        Raises:
            ForbiddenError: An API token asks; only a person knows a password.
            InvalidInputError: The current password is wrong, or the new one is too short, too long or the same.
        """
        if identity.actor.kind != "user":
            raise ForbiddenError("an API token cannot change a password", hint="Sign in with the password first.")
        require_acceptable(new, field="new_password")
        if new == current:
            raise InvalidInputError("the new password is the current one", field="new_password")
        async with self._database.read() as reader:
            stored = (await reader.get_one(User, identity.user_id)).password_hash
        if not await self._passwords.verify(stored, current):
            raise InvalidInputError("this is not the current password", field="current_password")
        hashed = await self._passwords.hash(new)
        async with self._database.write() as writer:
            await set_password(writer, identity.username, hashed, must_change_password=False)
            await self._audit(writer, identity, "user.change_password", request_id)

    async def _audit(
        self,
        session: AsyncSession,
        identity: Identity,
        action: str,
        request_id: str,
        *,
        after: dict[str, str] | None = None,
    ) -> None:
        ctx = OpContext(actor=identity.actor, session=session, request_id=request_id, now=self._clock())
        target = f"user/{identity.user_id}"
        await append_entries(ctx, [Change(action=action, target=target, target_name=identity.username, after=after)])

    async def _note_use(self, token_id: str, now: datetime) -> None:
        async with self._database.write() as writer:
            await writer.execute(update(ApiToken).where(ApiToken.id == token_id).values(last_used_at=now))


class _SessionRow(NamedTuple):
    """A session and its user; every request asks for one, so it is read on the hot path."""

    id: str
    expires_at: datetime
    user_id: str
    username: str
    role: str
    must_change_password: bool


class _TokenRow(NamedTuple):
    """An API token and its user."""

    id: str
    name: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    user_id: str
    username: str
    role: str


_SESSION: Final = Prepared(
    select(Session.id, Session.expires_at, User.id, User.username, User.role, User.must_change_password)
    .join(User, User.id == Session.user_id)
    .where(Session.secret_hash == param("hash"), Session.expires_at > param("now"), User.disabled_at.is_(None)),
    _SessionRow,
)
_TOKEN: Final = Prepared(
    select(
        ApiToken.id,
        ApiToken.name,
        ApiToken.scopes,
        ApiToken.expires_at,
        ApiToken.last_used_at,
        User.id,
        User.username,
        User.role,
    )
    .join(User, User.id == ApiToken.user_id)
    .where(ApiToken.secret_hash == param("hash"), ApiToken.revoked_at.is_(None), User.disabled_at.is_(None)),
    _TokenRow,
)


def _session_identity(row: _SessionRow) -> Identity:
    return Identity(
        actor=Actor(kind="user", id=row.user_id, name=row.username, role=Role(row.role)),
        user_id=row.user_id,
        username=row.username,
        credential_id=row.id,
        must_change_password=row.must_change_password,
        expires_at=row.expires_at,
    )


def _token_identity(row: _TokenRow) -> Identity:
    return Identity(
        actor=Actor(kind="token", id=row.id, name=row.name, role=Role(row.role), scopes=frozenset(row.scopes)),
        user_id=row.user_id,
        username=row.username,
        credential_id=row.id,
        must_change_password=False,
        expires_at=row.expires_at,
    )
