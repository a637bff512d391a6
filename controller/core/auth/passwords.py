"""Passwords at rest: argon2id, computed beside the event loop and never more than two at once (64 MiB each)."""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.errors import InvalidInputError

MIN_PASSWORD_LENGTH: Final = 12
MAX_PASSWORD_LENGTH: Final = 256

_CONCURRENT_HASHES: Final = 2


class Passwords:
    """Hashes and verifies passwords.

    Args:
        hasher: argon2 parameters; the library's defaults (RFC 9106, low-memory profile) unless a test wants speed.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._slots = asyncio.Semaphore(_CONCURRENT_HASHES)
        self._decoy = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            InvalidInputError: It is too short or too long.
        """
        require_acceptable(password)
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """True when the password belongs to the hash; None costs the same time and is never true."""
        is_possible = stored is not None and len(password) <= MAX_PASSWORD_LENGTH
        async with self._slots:
            is_right = await asyncio.to_thread(self._verify, stored or self._decoy, password[:MAX_PASSWORD_LENGTH])
        return is_right and is_possible

    def is_outdated(self, stored: str) -> bool:
        """True when the hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def require_acceptable(password: str, *, field: str = "password") -> None:
    """Pass when somebody may choose this password. Length is what counts (NIST SP 800-63B section 5.1.1.2).

    Raises:
        InvalidInputError: It is too short or too long.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise InvalidInputError(f"a password has at least {MIN_PASSWORD_LENGTH} characters", field=field)
    if len(password) > MAX_PASSWORD_LENGTH:
        raise InvalidInputError(f"a password has at most {MAX_PASSWORD_LENGTH} characters", field=field)
