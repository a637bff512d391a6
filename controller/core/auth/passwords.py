"""Passwords at rest: argon2id, computed beside the event loop and never more than two at once (64 MiB each)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import zxcvbn
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from controller.core.policies.registry import PlatformPolicies
from shared.errors import InvalidInputError

MIN_PASSWORD_LENGTH: Final = 12
MAX_PASSWORD_LENGTH: Final = 256

_CONCURRENT_HASHES: Final = 2
_JUDGED_LENGTH: Final = 72
"""More cannot make a password worse, and judging costs more than proportionally."""
_SCORE_MIN: Final = 3
"""More than 10^8 guesses. Source: Wheeler, zxcvbn: Low-Budget Password Strength Estimation, USENIX Security 2016."""


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

    async def require_strong(self, password: str, rules: PlatformPolicies, *, words: Sequence[str], field: str) -> None:
        """Pass when somebody may choose this password: long enough, and nothing that is guessed early.

        zxcvbn brings the list of known-bad passwords (30,000 of them, and names, words and keyboard walks) and also
        finds them inside of longer ones, which comparing whole passwords of this length with a list would not.

        Raises:
            InvalidInputError: It is too short or too long, or known or easily guessed (`password_refuses_known`).
        """
        require_acceptable(password, field=field, length_min=rules.password_length_min)
        if not rules.password_refuses_known:
            return
        async with self._slots:
            judged = await asyncio.to_thread(zxcvbn.zxcvbn, password[:_JUDGED_LENGTH], user_inputs=[*words, "wcp360"])
        if judged["score"] < _SCORE_MIN:
            advice = judged["feedback"]["warning"] or "It is easily guessed."
            raise InvalidInputError(
                "the password is on lists of known ones, or easily made of such",
                field=field,
                code="password_too_weak",
                hint=f"{advice} Four or more words that do not belong together are good.",
            )

    async def require_new(self, password: str, former: Sequence[str], *, field: str) -> None:
        """Pass when the password belongs to none of these hashes.

        Raises:
            InvalidInputError: It does: it was used before.
        """
        for stored in former:
            if await self.verify(stored, password):
                raise InvalidInputError(
                    "this password was used before", field=field, code="password_reused", hint="Choose another one."
                )

    def is_outdated(self, stored: str) -> bool:
        """True when the hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def require_acceptable(password: str, *, field: str = "password", length_min: int = MIN_PASSWORD_LENGTH) -> None:
    """Pass when a password has a length that we take (NIST SP 800-63B section 5.1.1.2).

    Raises:
        InvalidInputError: It is too short or too long.
    """
    if len(password) < length_min:
        raise InvalidInputError(f"a password has at least {length_min} characters", field=field)
    if len(password) > MAX_PASSWORD_LENGTH:
        raise InvalidInputError(f"a password has at most {MAX_PASSWORD_LENGTH} characters", field=field)
