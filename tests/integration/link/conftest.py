"""A fake gateway, a fake executor and a whole link between them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.link.dial import Dialer
from agent.link.port import ExecutorPort
from agent.link.renewal import Exchange, Renewer
from agent.link.service import LinkParts, LinkService, MachineIdentity
from agent.link.settings import AgentSettings, NodePaths
from agent.link.spool import Spool
from agent.link.status_file import StatusFile
from agent.link.watchdog import Pulse, ServiceNotifier
from tests.integration.link.executor import FakeExecutor
from tests.integration.link.gateway import FakeGateway
from tests.integration.link.pki import TestAuthority


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "pki")


@pytest.fixture
async def gateway(authority: TestAuthority) -> AsyncIterator[FakeGateway]:
    async with FakeGateway().running(authority) as running:
        yield running


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
def paths(tmp_path: Path, authority: TestAuthority) -> NodePaths:
    """An enrolled node in a folder."""
    paths = NodePaths(tmp_path / "node")
    for folder in (paths.config_dir, paths.tls_dir, paths.executor_state_dir, paths.runtime_dir):
        folder.mkdir(parents=True)
    paths.node_pem.write_text(authority.issue_pem("node"))
    paths.ca_pem.write_text(authority.ca_pem)
    return paths


class RunningLink:
    """A link with its parts at hand."""

    def __init__(self, service: LinkService, spool: Spool, status_file: StatusFile, task: asyncio.Task[None]) -> None:
        self.service = service
        self.spool = spool
        self.status_file = status_file
        self.task = task

    @property
    def state(self) -> str:
        return "" if self.status_file.last is None else self.status_file.last.state.value

    @property
    def last_error(self) -> str:
        return "" if self.status_file.last is None else self.status_file.last.last_error


@asynccontextmanager
async def running_link(
    url: str, executor: ExecutorPort, paths: NodePaths, *, exchange: Exchange | None = None
) -> AsyncIterator[RunningLink]:
    """The link as a node runs it, until the block ends."""
    spool = Spool(paths.spool_db)
    status_file = StatusFile(paths.status_json)
    settings = AgentSettings(
        controller_url="https://localhost", gateway_url=url, ca_file=str(paths.ca_pem), node_id="n1"
    )
    service = LinkService(
        LinkParts(
            dialer=Dialer(settings, paths),
            renewer=Renewer(settings, paths, exchange=exchange),
            executor=executor,
            spool=spool,
            machine=MachineIdentity(boot_id=str(uuid.uuid4()), machine_id_hash="0" * 64),
            sample=lambda: {"cpu_percent": 1.0},
            status_file=status_file,
            notifier=ServiceNotifier(None),
            pulse=Pulse(),
        )
    )
    task = asyncio.create_task(service.run())
    try:
        yield RunningLink(service, spool, status_file, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        spool.close()


@pytest.fixture
async def link(gateway: FakeGateway, executor: FakeExecutor, paths: NodePaths) -> AsyncIterator[RunningLink]:
    async with running_link(gateway.url, executor, paths) as running:
        yield running
