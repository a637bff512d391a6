"""The processes of a controller: each says in the database that it is there, as long as it is."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.gateway.presence_models import ProcessRow
from controller.jobs.loops import Loops
from shared.version import __version__

BEAT_SECONDS: Final = 5.0
FORGET_AFTER: Final = timedelta(hours=24)
"""So long a process that died is still shown."""

_log = structlog.get_logger("controller.processes")


class ProcessBook:
    """This process's own row."""

    def __init__(
        self,
        database: Database,
        *,
        process_id: str,
        role: str,
        instance: str = "",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._id = process_id
        self._role = role
        self._instance = instance
        self._clock = clock
        self._started_at = clock()
        self._loops = Loops()
        self.find_address: Callable[[], str] = lambda: ""
        """host:port of this process's gateway for other processes; empty while there is none."""
        self.count_nodes: Callable[[], int] = lambda: 0
        """How many nodes are connected to this process."""

    async def start(self) -> None:
        """Say that we are there, and go on saying so."""
        await self.beat()
        self._loops.spawn(self._run(), name="process-beat")

    async def stop(self) -> None:
        """Say that we are gone. Nobody hears it when the database is: the lease ends by itself."""
        await self._loops.stop()
        try:
            async with self._database.write() as session:
                await session.execute(delete(ProcessRow).where(ProcessRow.id == self._id))
        except (SQLAlchemyError, OSError) as error:
            _log.warning("processes.database", error=str(error))

    async def beat(self) -> None:
        """Renew the lease; a row that somebody removed comes back."""
        now = self._clock()
        values = {"seen_at": now, "nodes_connected": self.count_nodes(), "address": self.find_address()[:300]}
        async with self._database.write() as session:
            renew = update(ProcessRow).where(ProcessRow.id == self._id).values(values).returning(ProcessRow.id)
            if (await session.execute(renew.execution_options(synchronize_session=False))).first() is None:
                session.add(self._new_row(now))
                await session.execute(delete(ProcessRow).where(ProcessRow.seen_at < now - FORGET_AFTER))

    def _new_row(self, now: datetime) -> ProcessRow:
        return ProcessRow(
            id=self._id,
            role=self._role,
            instance=self._instance,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            version=__version__[:32],
            started_at=self._started_at,
            seen_at=now,
            nodes_connected=self.count_nodes(),
            address=self.find_address()[:300],
        )

    async def _run(self) -> None:
        while await self._loops.pause(BEAT_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.beat()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("processes.database", error=str(error))


async def list_processes(session: AsyncSession) -> list[ProcessRow]:
    """Those that run, and those that died within a day; by role."""
    order = (ProcessRow.role, ProcessRow.host, ProcessRow.instance, ProcessRow.started_at)
    return list(await session.scalars(select(ProcessRow).order_by(*order)))
