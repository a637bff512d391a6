"""The unix socket to the executor: on demand, kept while something is owed, made again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.link.executor_client import UnixExecutorPort
from shared.errors import UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import OfferJob
from shared.protocol.job import ErrorBody, JobResult, JobState
from shared.protocol.local import (
    LENGTH_BYTES,
    ExecutorStatus,
    FromExecutor,
    JobAccepted,
    JobFinished,
    RequestStatus,
    SubmitJob,
    ToExecutor,
    decode_length,
    decode_to_executor,
    encode_local,
)
from tests.integration.link.gateway import wait_until

OFFER = OfferJob(envelope=Envelope(payload_type="t", payload=b"", signatures=()), job_id="a", seq=1)
FORGED = b"forged"


class SocketExecutor:
    """The other end of the socket; `running` is what its status says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[ToExecutor] = []
        self.connections = 0
        self.running = 0
        self.pending: list[JobFinished] = []
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.crash()
        self.path.unlink(missing_ok=True)

    def crash(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def tell(self, frame: FromExecutor) -> None:
        self._writers[-1].write(encode_local(frame))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        for finished in self.pending:
            self.tell(finished)
        try:
            while True:
                length = decode_length(await reader.readexactly(LENGTH_BYTES))
                self._answer(decode_to_executor(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError):
            if writer in self._writers:
                self._writers.remove(writer)
            writer.close()

    def _answer(self, frame: ToExecutor) -> None:
        self.received.append(frame)
        if isinstance(frame, RequestStatus):
            self.tell(
                ExecutorStatus(
                    journal_epoch="e",
                    last_seq=0,
                    bundle_version=0,
                    node_id="n",
                    node_gen=1,
                    cluster_id="c",
                    running_jobs=self.running,
                )
            )
        elif isinstance(frame, SubmitJob):
            self._take(frame)

    def _take(self, frame: SubmitJob) -> None:
        if frame.envelope.payload == FORGED:
            error = ErrorBody(code="bad_signature", message="no")
            self.tell(JobAccepted(job_id="", seq=0, state=JobState.REFUSED, error=error))
        else:
            self.running += 1
            self.tell(JobAccepted(job_id="a", seq=1, state=JobState.RECEIVED))


class Ear:
    def __init__(self) -> None:
        self.frames: list[FromExecutor] = []

    async def __call__(self, frame: FromExecutor) -> None:
        self.frames.append(frame)


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[SocketExecutor]:
    running = SocketExecutor(tmp_path / "executor.sock")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def port(executor: SocketExecutor, ear: Ear) -> AsyncIterator[UnixExecutorPort]:
    made = UnixExecutorPort(str(executor.path), idle_seconds=0.05)
    made.listen(ear)
    yield made
    await made.close()


def finished(job_id: str = "a") -> JobFinished:
    return JobFinished(result=JobResult(job_id=job_id, state=JobState.SUCCEEDED))


async def test_port_when_nothing_was_sent_is_not_connected(executor: SocketExecutor, port: UnixExecutorPort) -> None:
    assert not port.is_connected
    assert executor.connections == 0


async def test_status_is_asked_and_the_idle_connection_is_closed(
    executor: SocketExecutor, port: UnixExecutorPort
) -> None:
    status = await port.request_status()

    assert status.node_id == "n"
    await wait_until(lambda: not port.is_connected)
    await wait_until(lambda: executor.open_connections == 0)


async def test_connection_is_kept_while_a_job_runs_and_closed_after_its_result(
    executor: SocketExecutor, port: UnixExecutorPort, ear: Ear
) -> None:
    await port.submit(OFFER)
    await wait_until(lambda: port.open_jobs == {"a"})
    asked = executor.received.count(RequestStatus())
    await wait_until(lambda: executor.received.count(RequestStatus()) > asked + 2)
    assert port.is_connected

    executor.running = 0
    executor.tell(finished())

    await wait_until(lambda: finished() in ear.frames)
    await wait_until(lambda: not port.is_connected)
    assert executor.connections == 1


async def test_refusal_of_what_could_not_be_verified_names_the_offered_job(port: UnixExecutorPort, ear: Ear) -> None:
    forged = Envelope(payload_type="t", payload=FORGED, signatures=())
    await port.submit(OFFER)
    await port.submit(OfferJob(envelope=forged, job_id="b", seq=2))

    await wait_until(lambda: len(ear.frames) == 2)

    assert [(frame.job_id, frame.seq) for frame in ear.frames if isinstance(frame, JobAccepted)] == [("a", 1), ("b", 2)]


async def test_job_of_an_earlier_life_keeps_the_connection_until_its_result_came(
    executor: SocketExecutor, port: UnixExecutorPort, ear: Ear
) -> None:
    executor.running = 1
    await port.request_status()
    asked = executor.received.count(RequestStatus())
    await wait_until(lambda: executor.received.count(RequestStatus()) > asked + 2)
    assert port.is_connected

    executor.running = 0
    executor.tell(finished("of-before"))

    await wait_until(lambda: finished("of-before") in ear.frames)
    await wait_until(lambda: not port.is_connected)


async def test_executor_that_dies_in_a_job_is_connected_again_and_its_result_arrives(
    executor: SocketExecutor, port: UnixExecutorPort, ear: Ear
) -> None:
    await port.submit(OFFER)
    await wait_until(lambda: port.open_jobs == {"a"})
    executor.pending.append(finished())
    executor.running = 0

    executor.crash()

    await wait_until(lambda: finished() in ear.frames)
    assert executor.connections == 2


async def test_executor_that_dies_while_nothing_is_owed_is_left_alone(executor: SocketExecutor, ear: Ear) -> None:
    port = UnixExecutorPort(str(executor.path), idle_seconds=30.0)
    port.listen(ear)
    await port.request_status()

    executor.crash()

    await wait_until(lambda: not port.is_connected)
    assert executor.connections == 1
    assert (await port.request_status()).node_id == "n"
    await port.close()


async def test_garbage_of_the_executor_ends_the_connection_and_the_next_frame_makes_a_new_one(
    executor: SocketExecutor, port: UnixExecutorPort
) -> None:
    await port.request_status()
    executor._writers[-1].write(b"\x00\x00\x00\x01\xc1")

    await wait_until(lambda: not port.is_connected)
    assert (await port.request_status()).node_id == "n"


async def test_missing_socket_says_what_to_look_at(tmp_path: Path, ear: Ear) -> None:
    port = UnixExecutorPort(str(tmp_path / "nobody.sock"))
    port.listen(ear)

    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        await port.request_status()

    assert "systemctl" in str(caught.value.hint)
