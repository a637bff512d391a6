"""A throwaway PostgreSQL server from Debian's binaries: on a unix socket, without fsync, gone when the block ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

_USER = "postgres"
_OPTIONS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "listen_addresses=",
    "max_connections=60",
    "shared_buffers=32MB",
    "autovacuum=off",
)

_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
"""Waits for each, so that nothing is committed behind our back."""

_LIST_FILLED = """
SELECT quote_ident(relname) FROM pg_class
  WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
    AND pg_relation_size(oid) > 0
"""
"""Tables whose file is not empty. A test fills a few of a hundred, and to truncate all of them takes 0.2 s."""

_LIST_GUARDS = "SELECT quote_ident(tgname), tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"


def find_binaries() -> Path | None:
    """Folder of the newest installed server's programs; None when none is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return next((path for path in reversed(folders) if (path / "initdb").exists()), None)


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_USER}", f"--regid={pwd.getpwnam(_USER).pw_gid}", "--clear-groups", "--"]


def _run(*argv: str | Path) -> str:
    command = [*_as_postgres(), *(str(word) for word in argv)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@dataclass
class PostgresCluster:
    """A running server; its user has all rights and no password."""

    binaries: Path
    socket_dir: Path
    user: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _idle: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+asyncpg://{self.user}@/{name}?host={self.socket_dir}"

    def create_database(self, name: str, *, template: str = "template0") -> None:
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" ENCODING UTF8')

    @contextmanager
    def lend(self, template: str) -> Iterator[str]:
        """A database with the template's tables and no rows, for one test. Emptied afterwards: creating one takes 0.4 s."""
        if not self._idle:
            name = f"wcp_test_{next(self._numbers)}"
            self.create_database(name, template=template)
            self._idle.append(name)
        name = self._idle.pop()
        yield name
        self._empty(name)
        self._idle.append(name)

    @contextmanager
    def lend_empty(self) -> Iterator[str]:
        """A database without any table, dropped afterwards."""
        name = f"wcp_empty_{next(self._numbers)}"
        self.create_database(name)
        yield name
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def restart(self) -> None:
        """As after a crash: open transactions are lost, connections cut."""
        data = self.socket_dir / "data"
        log = self.socket_dir / "server.log"
        _run(self.binaries / "pg_ctl", "-D", data, "-w", "-t", "60", "-m", "immediate", "-l", log, "restart")

    def set_read_only(self, name: str, *, is_read_only: bool) -> None:
        """For every connection from now on; the open ones are cut."""
        mode = "on" if is_read_only else "off"
        self._execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {mode}')
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def _empty(self, name: str) -> None:
        """End what a test left open, then remove all rows and the space that they took."""

        async def run() -> None:
            connection = await asyncpg.connect(host=str(self.socket_dir), user=self.user, database=name)
            try:
                await connection.execute(_END_OTHERS)
                filled = [row[0] for row in await connection.fetch(_LIST_FILLED)]
                if filled:
                    await _delete_rows(connection, filled)
                    await connection.execute(f"VACUUM {', '.join(filled)}")
            finally:
                await connection.close()

        asyncio.run(run())

    def _execute(self, statement: str, *, database: str = "postgres") -> None:
        async def run() -> None:
            connection = await asyncpg.connect(host=str(self.socket_dir), user=self.user, database=database)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


async def _delete_rows(connection: asyncpg.Connection, tables: list[str]) -> None:
    """In no order: foreign keys and other triggers stand aside, those of the audit log too, which else refuse it."""
    guards = [(name, table) for name, table in await connection.fetch(_LIST_GUARDS) if table in tables]
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for name, table in guards:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
        for table in tables:
            await connection.execute(f"DELETE FROM {table}")
        for name, table in guards:
            await connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


@contextmanager
def start_cluster(binaries: Path, *, options: tuple[str, ...] = ()) -> Iterator[PostgresCluster]:
    """Initialise and start a server, stop it and remove its files at the end. Later options win."""
    folder = Path(tempfile.mkdtemp(prefix="wcp-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    user = _USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    data = folder / "data"
    try:
        _run(binaries / "initdb", "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        with (data / "postgresql.conf").open("a", encoding="utf-8") as config:
            lines = (
                f"{key} = '{value}'" for key, _, value in (option.partition("=") for option in (*_OPTIONS, *options))
            )
            config.write("\n".join([*lines, f"unix_socket_directories = '{folder}'", ""]))
        _run(binaries / "pg_ctl", "-D", data, "-w", "-t", "60", "-l", folder / "server.log", "start")
        try:
            yield PostgresCluster(binaries, folder, user)
        finally:
            _run(binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
