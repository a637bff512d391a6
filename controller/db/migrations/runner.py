"""Runs alembic on one connection of its own: the whole walk in one transaction, and only one process at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

_FOLDER: Final = Path(__file__).parent
_LOCK_KEY: Final = 0x77637033_36300002
"""Advisory lock of PostgreSQL: "wcp360" and a number; changes (core.operations) use another one."""
_LOCK_TIMEOUT: Final = "60s"
SEARCH_INDEX_PREFIX: Final = "tg_"
"""Of indexes that only PostgreSQL can have: models do not name them (revision 0004)."""


async def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to the revision; does nothing when it is there."""
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Take the database back to the revision (`base` for an empty one)."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def write_revision(url: str, metadata: MetaData, message: str, *, revision_id: str | None = None) -> None:
    """For developers: write the revision that leads from the database to the models."""

    def write(config: Config) -> None:
        command.revision(config, message, autogenerate=True, rev_id=revision_id)

    await _run(url, write, metadata=metadata)


async def find_differences(url: str, metadata: MetaData) -> list[Any]:
    """What autogenerate would change; empty when revisions and models agree."""
    async with _connect(url) as connection:
        return await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts=_COMPARISON), metadata)
        )


def is_compared(_object: Any, name: str | None, kind: str, _is_in_database: bool, _compare_to: Any) -> bool:  # noqa: FBT001 - alembic calls it so
    """Whether autogenerate looks at it: alembic's `include_object`."""
    return not (kind == "index" and name is not None and name.startswith(SEARCH_INDEX_PREFIX))


_COMPARISON: Final[dict[str, Any]] = {"compare_type": True, "include_object": is_compared}


async def read_revision(url: str) -> str | None:
    """The database's revision; None when it never saw one."""
    async with _connect(url) as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def head_revision() -> str | None:
    """The newest revision of this release."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def known_revisions() -> tuple[str, ...]:
    """All revisions of this release; a database with another one belongs to a newer release."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


async def _run(url: str, run: Callable[[Config], None], *, metadata: MetaData | None = None) -> None:
    def run_on(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        config.attributes["metadata"] = metadata
        run(config)

    async with _connect(url) as connection:
        await connection.run_sync(run_on)


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[AsyncConnection]:
    """One write transaction. On SQLite foreign keys are off, because altering a table means copying and dropping it."""
    engine = create_async_engine(url, poolclass=NullPool)
    if url.startswith("sqlite"):
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        async with engine.begin() as connection:
            if url.startswith("postgresql"):
                await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
            yield connection
    finally:
        await engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config
