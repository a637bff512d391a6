"""One simulated agent: the real link and the real executor, joined in process, over a host in memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.workers import WorkerSide
from agent.core.context import NodeContext
from agent.core.executor import Executor
from agent.core.journal import Journal
from agent.core.registry import Registry
from agent.core.server import build_executor
from agent.link.dial import DEAD_LINE_SECONDS, Dialer
from agent.link.port import Listener, OpenWork
from agent.link.renewal import Renewer
from agent.link.service import LinkParts, LinkService, MachineIdentity
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.spool import Spool
from agent.link.status_file import LinkStatus, StatusFile
from agent.link.watchdog import Pulse, ServiceNotifier
from agent.link.witness import Witness
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import HostState
from agent.simulator.workers import MemoryWorkers
from shared.errors import BugError, UnavailableError
from shared.protocol.frames import OfferJob
from shared.protocol.local import ExecutorStatus, FromExecutor, JobFinished, RequestStatus, SubmitJob, ToExecutor

STOP_SECONDS: Final = 5.0
_HOST_FILE: Final = "host.msgpack"


class InProcessExecutorPort:
    """ExecutorPort without a socket: frames go to the executor object and come back through a queue, in order."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._listener: Listener | None = None
        self._work = OpenWork()
        self._frames: asyncio.Queue[FromExecutor] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None
        self._is_cut = False

    @property
    def is_connected(self) -> bool:
        return not self._is_cut

    @property
    def open_jobs(self) -> frozenset[str]:
        return self._work.jobs

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def start(self) -> None:
        """Take what the executor has to say from now on, results that nobody stored first."""
        if self._listener is None:
            raise BugError("listen() was not called")
        self._executor.subscribe(self._frames.put_nowait)
        self._pump = asyncio.create_task(self._pass_on(self._listener), name="executor-pump")

    def cut(self) -> None:
        """From now on the executor does not answer (a fault for tests)."""
        self._is_cut = True

    def heal(self) -> None:
        """It answers again, and delivers what was not stored, as a new connection would."""
        self._is_cut = False
        for frame in self._list_unstored():
            self._frames.put_nowait(frame)

    async def request_status(self) -> ExecutorStatus:
        await self.send(RequestStatus())
        (status,) = self._executor.answer(RequestStatus())
        if not isinstance(status, ExecutorStatus):
            raise BugError("the executor answered something else than its status")
        return status

    async def submit(self, offer: OfferJob) -> None:
        self._require_reachable()
        self._work.note_submitted(offer)
        self._ask(SubmitJob(envelope=offer.envelope))

    async def send(self, frame: ToExecutor) -> None:
        self._require_reachable()
        self._work.note_sent(frame)
        self._ask(frame)

    def _require_reachable(self) -> None:
        if self._is_cut:
            raise UnavailableError("the executor cannot be reached", code="executor_unavailable")

    def _ask(self, frame: ToExecutor) -> None:
        for answer in self._executor.answer(frame):
            self._frames.put_nowait(answer)

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _pass_on(self, listener: Listener) -> None:
        while True:
            frame = await self._frames.get()
            await listener(self._work.note_received(frame))

    def _list_unstored(self) -> list[JobFinished]:
        frames: list[JobFinished] = []
        unsubscribe = self._executor.subscribe(lambda frame: _keep_results(frame, frames))
        unsubscribe()
        return frames


def _keep_results(frame: FromExecutor, frames: list[JobFinished]) -> None:
    if isinstance(frame, JobFinished):
        frames.append(frame)


def ensure_simulated_machine(machine_id: Path) -> MachineIdentity:
    """The machine id stays in the agent's folder, the boot id is new at each start, as on a real machine."""
    if not machine_id.exists():
        machine_id.write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    digest = hashlib.sha256(machine_id.read_bytes().strip()).hexdigest()
    return MachineIdentity(boot_id=str(uuid.uuid4()), machine_id_hash=digest)


class SimulatedAgent:
    """Lives in a folder that looks like the root of an enrolled node."""

    def __init__(
        self,
        name: str,
        paths: NodePaths,
        registry: Registry,
        *,
        keeps_state: bool = True,
        host: MemoryHost | None = None,
        dead_line_seconds: float = DEAD_LINE_SECONDS,
    ) -> None:
        """`keeps_state`: journal, spool and host outlive this object in the folder; else all is in memory.

        A `host` that is handed in keeps its state itself.
        """
        self.name = name
        self.host = host or MemoryHost(config_trees=tuple(registry.config_trees.values()))
        self._paths = paths
        self._host_file = paths.executor_state_dir / _HOST_FILE if keeps_state and host is None else None
        if self._host_file is not None:
            _load_host(self.host, self._host_file)
        self._journal = Journal(paths.executor_state_dir if keeps_state else None)
        self.workers = MemoryWorkers(self.host.state)
        node = NodeContext(
            host=self.host,
            registry=registry,
            journal=self._journal,
            workers=WorkerSide(launcher=self.workers, peer_uids=(os.geteuid(),)),
        )
        self.executor = build_executor(node, paths.executor_state_dir)
        self.port = InProcessExecutorPort(self.executor)
        self._spool = Spool(paths.spool_db if keeps_state else None)
        self._status_file = StatusFile(None)
        settings = read_agent_settings(paths)
        self._link = LinkService(
            LinkParts(
                dialer=Dialer(settings, paths, dead_line_seconds=dead_line_seconds),
                renewer=Renewer(settings, paths),
                executor=self.port,
                spool=self._spool,
                machine=ensure_simulated_machine(paths.machine_id),
                sample=self._sample,
                status_file=self._status_file,
                notifier=ServiceNotifier(None),
                pulse=Pulse(),
                witness=Witness(paths, settings.node_id),
            )
        )

    @property
    def status(self) -> LinkStatus | None:
        """What the link does now."""
        return self._status_file.last

    async def run(self) -> None:
        """Run until cancelled."""
        await self.executor.start()
        self.port.start()
        try:
            await self._link.run()
        finally:
            await self.executor.stop(grace_seconds=STOP_SECONDS)
            self._journal.close()
            self._spool.close()
            self.workers.close()
            if self._host_file is not None:
                self._host_file.write_bytes(msgspec.msgpack.encode(self.host.state))

    def _sample(self) -> dict[str, float]:
        """Made up, and the same each time: a load test is about numbers of messages, not about their content."""
        return {
            "cpu_percent": 5.0,
            "load_1": 0.1,
            "memory_total_bytes": 4.0 * 1024**3,
            "memory_used_bytes": 1.0 * 1024**3,
            "disk_accounts_total_bytes": 100.0 * 1024**3,
            "disk_accounts_used_bytes": float(len(self.host.state.homes)) * 1024**2,
        }


def _load_host(host: MemoryHost, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        stored = msgspec.msgpack.decode(path.read_bytes(), type=HostState)
        for name in HostState.__struct_fields__:
            table = getattr(host.state, name)
            table.clear()
            table.update(getattr(stored, name))
