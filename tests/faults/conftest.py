"""A fleet of processes for each test, on each kind of database."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Zygote
from tests.faults.stage import Stage, open_stage
from tests.faults.template import build_template
from tests.integration.conftest import postgres_cluster, quiet_logs, sqlite_template
from tests.integration.postgresql import PostgresCluster

__all__ = ["postgres_cluster", "quiet_logs", "sqlite_template"]

_PREPARED = "faults_template"


@pytest.fixture(scope="session")
def memory_dir() -> Iterator[Path]:
    """A folder that no disk slows down: processes die here, not machines."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="wcp-faults-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def sqlite_fleet(zygote: Zygote, sqlite_template: Path, memory_dir: Path) -> Path:
    """A prepared fleet whose database is in its folder."""
    folder = memory_dir / "sqlite-template"
    (folder / "data").mkdir(parents=True)
    (folder / "data").rmdir()
    database = memory_dir / "template.db"
    shutil.copyfile(sqlite_template, database)
    asyncio.run(build_template(zygote, folder, f"sqlite+aiosqlite:///{database}"))
    shutil.copyfile(database, folder / "data/controller.db")
    return folder


@pytest.fixture(scope="session")
def postgres_fleet(zygote: Zygote, postgres_cluster: PostgresCluster, memory_dir: Path) -> Path:
    """A prepared fleet whose database is the cluster's template."""
    folder = memory_dir / "postgresql-template"
    postgres_cluster.create_database(_PREPARED, template="wcp_template")
    asyncio.run(build_template(zygote, folder, postgres_cluster.url(_PREPARED)))
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once for each kind of database."""
    return str(request.param)


@pytest.fixture
def prepared(request: pytest.FixtureRequest, memory_dir: Path) -> tuple[Path, Path, str]:
    """Template, folder and database of one test."""
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else "sqlite"
    template: Path = request.getfixturevalue("sqlite_fleet" if kind == "sqlite" else "postgres_fleet")
    folder = Path(tempfile.mkdtemp(dir=memory_dir))
    if kind == "sqlite":
        return template, folder, f"sqlite+aiosqlite:///{folder / 'data/controller.db'}"
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    name = f"faults_{folder.name.replace('-', '_')}"
    cluster.create_database(name, template=_PREPARED)
    return template, folder, cluster.url(name)


@pytest.fixture
async def stage(zygote: Zygote, prepared: tuple[Path, Path, str]) -> AsyncIterator[Stage]:
    """A fleet at rest: one controller, two nodes, each with an account and a site. Nothing runs yet.

    On both kinds of database for a test that takes `kind`, else on SQLite.
    """
    template, folder, url = prepared
    made = await open_stage(zygote, template, folder, url)
    yield made
    await made.close()
    shutil.rmtree(folder, ignore_errors=True)
