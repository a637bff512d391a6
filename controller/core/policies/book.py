"""The platform's policies: read in a transaction, or as this process knows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.policies.models import PlatformPolicyRow
from controller.core.policies.registry import KINDS, PlatformPolicies
from controller.db.engine import Database

REFRESH_SECONDS: Final = 5.0
"""A process is at most this far behind a change that another one made."""

_log = structlog.get_logger("controller.policies")


class PlatformPolicyBook:
    """The policies as this process knows them, so that no request asks the database for them."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._policies = PlatformPolicies()
        self._read_at: float | None = None
        self._is_known = False
        self._turn = asyncio.Lock()

    async def current(self) -> PlatformPolicies:
        """What holds now, at most REFRESH_SECONDS old. Without a database: what was read last.

        Raises:
            SQLAlchemyError: Nothing was ever read, and what an administrator made stricter is not to be guessed.
        """
        if self._is_fresh():
            return self._policies
        async with self._turn:
            if not self._is_fresh():
                await self._read()
        return self._policies

    @property
    def latest(self) -> PlatformPolicies:
        """What was read last, for those who must not wait."""
        return self._policies

    async def _read(self) -> None:
        try:
            async with self._database.read() as session:
                self._policies = await read_policies(session)
            self._is_known = True
        except SQLAlchemyError:
            if not self._is_known:
                raise
        self._read_at = self._clock()

    def forget(self) -> None:
        """Read them again at the next question: they were changed here."""
        self._read_at = None

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < REFRESH_SECONDS


async def read_policies(session: AsyncSession) -> PlatformPolicies:
    """What is stored, and the defaults of the others."""
    rows = await session.scalars(select(PlatformPolicyRow).where(PlatformPolicyRow.name.in_(list(KINDS))))
    return parse_stored({row.name: row.value for row in rows})


def parse_stored(values: dict[str, Any]) -> PlatformPolicies:
    """Policies of stored values. One that another release stored and this one does not take is as by default."""
    good: dict[str, Any] = {}
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, PlatformPolicies)
        except msgspec.ValidationError as error:
            _log.warning("policies.not_taken", policy=name, error=str(error))
        else:
            good[name] = value
    return msgspec.convert(good, PlatformPolicies)


async def read_now(database: Database) -> PlatformPolicies:
    """What holds, for what happens now and then and may ask the database."""
    async with database.read() as session:
        return await read_policies(session)
