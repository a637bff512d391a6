"""Second factors: time-based codes (RFC 6238, by pyotp) and recovery codes for a lost device."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyotp
from sqlalchemy import CursorResult, Executable, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import Passkey, RecoveryCode, SecondFactor, Session
from controller.core.auth.passkeys import Passkeys, RelyingParty
from controller.core.auth.sealing import Sealer
from shared.errors import ConflictError, InvalidInputError

ISSUER: Final = "WCP360"
STEP_SECONDS: Final = 30
"""Source: RFC 6238 section 4, the default X; every authenticator app knows no other."""
_WINDOW: Final = 1
"""Steps before and after now that are taken: one, for clocks and slow fingers (RFC 6238 section 5.2)."""
RECOVERY_CODES: Final = 10
_RECOVERY_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_RECOVERY_LENGTH: Final = 16
"""31^16 is 79 bits: too many to guess, so a fast hash is enough at rest."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor that was begun. The secret is shown once."""

    secret: str
    """In base32, for typing."""
    uri: str
    """otpauth://..., for a QR code."""


@dataclass(frozen=True, slots=True)
class FactorState:
    """What a user has."""

    is_enabled: bool
    """Codes or a passkey."""
    has_codes: bool
    passkeys: int
    since: datetime | None
    recovery_codes_left: int


def normalise_code(raw: str) -> str:
    """Without the blanks and dashes that people type and apps show."""
    return "".join(letter for letter in raw.lower() if letter.isalnum())


def matching_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step that this code belongs to; None when it is no code of this time. Pure."""
    totp = pyotp.TOTP(secret, interval=STEP_SECONDS)
    current = int(now.timestamp()) // STEP_SECONDS
    found = None
    for step in range(current - _WINDOW, current + _WINDOW + 1):
        if secrets.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            found = step
    return found


def _hash_code(user_id: str, code: str) -> str:
    return hashlib.sha256(f"{user_id} {code}".encode()).hexdigest()


class SecondFactors:
    """The rows of second factors, in transactions of whoever calls."""

    def __init__(self, sealer: Sealer, party: RelyingParty | None = None) -> None:
        self._sealer = sealer
        self.passkeys = Passkeys(party or RelyingParty.of("https://localhost"))

    async def read_state(self, session: AsyncSession, user_id: str) -> FactorState:
        """What the user has."""
        row = await _find(session, user_id)
        left = select(func.count()).select_from(RecoveryCode).where(
            RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None)
        )  # fmt: skip
        has_codes = row is not None and row.confirmed_at is not None
        of_user = select(func.count()).select_from(Passkey).where(Passkey.user_id == user_id)
        passkeys = (await session.execute(of_user)).scalar_one()
        is_enabled = has_codes or passkeys > 0
        return FactorState(
            is_enabled=is_enabled,
            has_codes=has_codes,
            passkeys=passkeys,
            since=row.confirmed_at if row is not None else None,
            recovery_codes_left=(await session.execute(left)).scalar_one() if is_enabled else 0,
        )

    async def begin(self, session: AsyncSession, user_id: str, username: str) -> Enrolment:
        """Make a secret that counts once `confirm` was told a code of it; replaces one that was only begun.

        Raises:
            ConflictError: The user has a second factor.
        """
        row = await _find(session, user_id)
        if row is not None and row.confirmed_at is not None:
            raise ConflictError(
                "there is a second factor already", hint="Disable it first: wcp360 second-factor disable"
            )
        secret = pyotp.random_base32()
        sealed = self._sealer.seal(secret.encode(), user_id)
        if row is None:
            session.add(SecondFactor(user_id=user_id, sealed_secret=sealed, confirmed_at=None))
        else:
            row.sealed_secret = sealed
        await session.flush()
        uri = pyotp.TOTP(secret, interval=STEP_SECONDS).provisioning_uri(name=username, issuer_name=ISSUER)
        return Enrolment(secret=secret, uri=uri)

    async def confirm(self, session: AsyncSession, user_id: str, code: str, now: datetime) -> list[str]:
        """Let the factor that was begun count from now on; its recovery codes, shown once.

        Raises:
            ConflictError: None was begun, or it counts already.
            InvalidInputError: The code is not of this secret and time.
        """
        row = await _find(session, user_id)
        if row is None or row.confirmed_at is not None:
            raise ConflictError("no second factor was begun", hint="Begin one first: wcp360 second-factor begin")
        step = matching_step(self._open(row), normalise_code(code), now)
        if step is None:
            raise InvalidInputError("this code is not right", field="code", hint="Is the device's clock right?")
        is_first = not (await self.read_state(session, user_id)).is_enabled
        row.confirmed_at, row.last_step = now, step
        return await self.welcome(session, user_id, is_first=is_first)

    async def welcome(self, session: AsyncSession, user_id: str, *, is_first: bool) -> list[str]:
        """A factor counts from now on; recovery codes with the first one, shown once, none with more."""
        await self._mark_sessions(session, user_id, has_one=True)
        return await self.renew_recovery_codes(session, user_id) if is_first else []

    async def take(self, session: AsyncSession, user_id: str, raw: str, now: datetime) -> bool:
        """Use up a code: of the device, or a recovery code. False when it is none, or was used before.

        The row's own condition decides, so of two that come with the same code at once only one gets in.
        """
        row = await _find(session, user_id)
        code = normalise_code(raw)
        if not code:
            return False
        step = None
        if row is not None and row.confirmed_at is not None:
            step = matching_step(self._open(row), code, now)
        if row is not None and step is not None:
            fresh = update(SecondFactor).where(SecondFactor.id == row.id, SecondFactor.last_step < step)
            return await _changes_one(session, fresh.values(last_step=step))
        unused = update(RecoveryCode).where(
            RecoveryCode.code_hash == _hash_code(user_id, code), RecoveryCode.used_at.is_(None)
        )
        return await _changes_one(session, unused.values(used_at=now))

    async def renew_recovery_codes(self, session: AsyncSession, user_id: str) -> list[str]:
        """New recovery codes in place of all others."""
        await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        codes = [
            "".join(secrets.choice(_RECOVERY_ALPHABET) for _ in range(_RECOVERY_LENGTH)) for _ in range(RECOVERY_CODES)
        ]
        session.add_all(RecoveryCode(user_id=user_id, code_hash=_hash_code(user_id, code)) for code in codes)
        await session.flush()
        return ["-".join(code[start : start + 4] for start in range(0, _RECOVERY_LENGTH, 4)) for code in codes]

    async def remove(self, session: AsyncSession, user_id: str) -> bool:
        """Forget the codes of the user's device; False when there were none. Passkeys stay."""
        is_gone = await _changes_one(session, delete(SecondFactor).where(SecondFactor.user_id == user_id))
        await self.settle(session, user_id)
        return is_gone

    async def remove_all(self, session: AsyncSession, user_id: str) -> bool:
        """Forget every factor of the user; False when there was none."""
        had_one = (await self.read_state(session, user_id)).is_enabled
        for table in (Passkey, SecondFactor):
            statement = delete(table).where(table.user_id == user_id)
            await session.execute(statement, execution_options={"synchronize_session": False})
        await self.settle(session, user_id)
        return had_one

    async def settle(self, session: AsyncSession, user_id: str) -> None:
        """A factor was removed; with the last one go the recovery codes."""
        if not (await self.read_state(session, user_id)).is_enabled:
            await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
            await self._mark_sessions(session, user_id, has_one=False)

    async def end_other_sessions(self, session: AsyncSession, user_id: str, own_id: str) -> None:
        """End the sessions that began without the factor."""
        await session.execute(delete(Session).where(Session.user_id == user_id, Session.id != own_id))

    async def _mark_sessions(self, session: AsyncSession, user_id: str, *, has_one: bool) -> None:
        await session.execute(update(Session).where(Session.user_id == user_id).values(has_second_factor=has_one))

    def _open(self, row: SecondFactor) -> str:
        return self._sealer.open(row.sealed_secret, row.user_id).decode()


async def _find(session: AsyncSession, user_id: str) -> SecondFactor | None:
    return (await session.scalars(select(SecondFactor).where(SecondFactor.user_id == user_id))).one_or_none()


async def _changes_one(session: AsyncSession, statement: Executable) -> bool:
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    return isinstance(result, CursorResult) and result.rowcount == 1
