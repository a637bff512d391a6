"""The guard of the audit log taken away, as somebody with rights on the schema could do it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.engine import Database

_REVISION: Final = importlib.import_module("controller.db.migrations.versions.0002_append_only_audit")


@asynccontextmanager
async def unguarded_audit(database: Database) -> AsyncIterator[AsyncSession]:
    """A transaction in which the audit log can be changed; the guard stands again when it has ended."""
    drop, create = (
        (_REVISION._SQLITE_DOWN, _REVISION._SQLITE)
        if database.is_sqlite
        else (_REVISION._POSTGRESQL_DOWN, _REVISION._POSTGRESQL)
    )
    async with database.write() as session:
        for statement in drop:
            await session.execute(text(statement))
        yield session
        await session.flush()
        for statement in create:
            await session.execute(text(statement.replace(":", "\\:")))
