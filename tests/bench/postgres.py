"""A PostgreSQL server as durable as a real one: the tests' throwaway server, with everything that makes a commit one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from tests.bench.framework import BenchError
from tests.integration.postgresql import PostgresCluster, find_binaries, start_cluster

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
NAME = "bench"


@contextmanager
def durable_postgres() -> Iterator[str]:
    """The URL of an empty database; the server ends with the block.

    Raises:
        BenchError: No server is installed.
    """
    binaries = find_binaries()
    if binaries is None:
        raise BenchError("no PostgreSQL server is installed")
    with start_cluster(binaries) as cluster:
        asyncio.run(_make_durable(cluster))
        cluster.create_database(NAME)
        yield cluster.url(NAME)


async def _make_durable(cluster: PostgresCluster) -> None:
    connection = await asyncpg.connect(host=str(cluster.socket_dir), user=cluster.user, database="postgres")
    try:
        for name, value in DURABLE.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
