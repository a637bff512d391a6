"""The executor's socket: who may speak, what garbage does, what survives a kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from agent.core import sdnotify
from agent.core.connection import encode_fitting
from agent.core.server import ExecutorConfig, ExecutorServer, listen_at
from shared.protocol.frames import MAX_FRAME_BYTES
from shared.protocol.job import ChangeKind, JobResult, JobState, PlannedChange
from shared.protocol.local import (
    LENGTH_BYTES,
    Complaint,
    ExecutorStatus,
    JobAccepted,
    JobFinished,
    RequestStatus,
    ResultStored,
    SubmitJob,
    SubmitTrust,
    TrustTaken,
    decode_from_executor,
    encode_local,
)
from tests.integration.executor.bench import (
    Bench,
    DiskHost,
    account,
    bundle,
    job,
    manifest,
    signed,
    signed_bundle,
    site,
)

WAIT_SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[3]


class Client:
    """Speaks to the socket as the agent does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __aenter__(self) -> Self:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self.reader, self.writer = await asyncio.open_unix_connection(str(self.path))
            except OSError:
                assert time.monotonic() < deadline, "nobody listens"
                await asyncio.sleep(0.01)
            else:
                return self

    async def __aexit__(self, *_) -> None:
        self.writer.close()

    def send(self, frame) -> None:
        self.writer.write(encode_local(frame))

    async def read(self):
        async with asyncio.timeout(WAIT_SECONDS):
            length = int.from_bytes(await self.reader.readexactly(LENGTH_BYTES), "big")
            return decode_from_executor(await self.reader.readexactly(length))

    async def read_until(self, kind):
        while True:
            frame = await self.read()
            if isinstance(frame, kind):
                return frame

    async def is_closed(self) -> bool:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.read(1) == b""


@pytest.fixture
async def served(tmp_path):
    """A bench behind a socket, in this process."""
    bench = Bench(tmp_path)
    await bench.executor.start()
    task, stop, path = serve(bench, frozenset({os.geteuid()}))
    bench.socket_path = path
    yield bench
    stop.set()
    await task
    await bench.executor.stop(grace_seconds=1.0)
    bench.journal.close()


def serve(bench, allowed_uids, idle_seconds=WAIT_SECONDS):
    path = bench.base / "executor.sock"
    config = ExecutorConfig(
        state_dir=bench.state_dir, socket_path=path, allowed_uids=allowed_uids, idle_seconds=idle_seconds
    )
    stop = asyncio.Event()
    task = asyncio.create_task(ExecutorServer(bench.executor, config).serve(listen_at(path), stop))
    return task, stop, path


async def test_socket_when_asked_answers_with_its_status(served) -> None:
    async with Client(served.socket_path) as client:
        client.send(RequestStatus())
        status = await client.read()

    assert isinstance(status, ExecutorStatus)
    assert (status.node_id, status.node_gen, status.bundle_version, status.quarantine) == ("node-1", 1, 1, "")
    assert status.modules == {"bench": "1"}


async def test_socket_when_a_job_is_submitted_answers_accepted_then_finished(served) -> None:
    a_job = job(manifest())
    async with Client(served.socket_path) as client:
        client.send(SubmitJob(envelope=signed(a_job)))
        accepted = await client.read_until(JobAccepted)
        finished = await client.read_until(JobFinished)

    assert (accepted.job_id, accepted.state) == (a_job.job_id, JobState.RECEIVED)
    assert finished.result.state is JobState.SUCCEEDED


async def test_socket_when_the_result_is_not_stored_sends_it_again(served) -> None:
    a_job = job(manifest())
    async with Client(served.socket_path) as client:
        client.send(SubmitJob(envelope=signed(a_job)))
        first = await client.read_until(JobFinished)
    async with Client(served.socket_path) as client:
        again = await client.read_until(JobFinished)
        client.send(ResultStored(job_id=a_job.job_id))
    async with Client(served.socket_path) as client:
        client.send(RequestStatus())
        after = await client.read()

    assert again == first
    assert isinstance(after, ExecutorStatus)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1", "bad_frame"),
        (b"\x00\x00\x00\x00", "bad_frame"),
        (b"GET / HTTP/1.1\r\n\r\n", "frame_too_large"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "frame_too_large"),
        (encode_local(JobAccepted(job_id="x", seq=1, state=JobState.RECEIVED)), "bad_frame"),
    ],
)
async def test_socket_when_garbage_arrives_complains_and_closes(served, raw, code) -> None:
    async with Client(served.socket_path) as client:
        client.writer.write(raw)
        complaint = await client.read_until(Complaint)
        is_closed = await client.is_closed()
    async with Client(served.socket_path) as client:
        client.send(RequestStatus())
        after = await client.read()

    assert complaint.error.code == code
    assert is_closed
    assert isinstance(after, ExecutorStatus)


async def test_socket_when_fuzzed_has_no_effect_and_keeps_serving(served) -> None:
    dice = random.Random(7)
    good = encode_local(SubmitJob(envelope=signed(job(manifest()))))
    for _ in range(60):
        raw = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            raw[dice.randrange(LENGTH_BYTES, len(raw))] = dice.randrange(256)
        if bytes(raw) == good:
            continue
        async with Client(served.socket_path) as client:
            client.writer.write(bytes(raw))
            frame = await client.read()
            assert isinstance(frame, (Complaint, JobAccepted))
            assert frame.error is not None

    assert served.host.snapshot() == {}
    assert served.journal.last_seq == 0


async def test_socket_when_the_peer_is_somebody_else_refuses(tmp_path) -> None:
    bench = Bench(tmp_path)
    task, stop, path = serve(bench, frozenset({os.geteuid() + 4242}))

    async with Client(path) as client:
        complaint = await client.read()
        is_closed = await client.is_closed()
    stop.set()
    await task

    assert isinstance(complaint, Complaint)
    assert complaint.error.code == "wrong_peer"
    assert is_closed
    bench.journal.close()


async def test_server_when_nobody_comes_ends_by_itself(tmp_path) -> None:
    bench = Bench(tmp_path)
    task, _, _ = serve(bench, frozenset({os.geteuid()}), idle_seconds=0.05)

    async with asyncio.timeout(WAIT_SECONDS):
        await task
    bench.journal.close()


def test_encode_fitting_when_the_result_is_too_large_leaves_the_explanation_out() -> None:
    huge = PlannedChange(
        resource="site/a",
        action="write_file",
        kind=ChangeKind.CREATE,
        target="/x",
        reason="r",
        diff="x" * MAX_FRAME_BYTES,
    )
    result = JobResult(job_id="j", state=JobState.SUCCEEDED, changes=(huge,))

    frame = decode_from_executor(encode_fitting(JobFinished(result=result))[LENGTH_BYTES:])

    assert isinstance(frame, JobFinished)
    assert (frame.result.job_id, frame.result.state, frame.result.changes) == ("j", JobState.SUCCEEDED, ())


def test_notify_when_systemd_listens_tells_it(tmp_path, monkeypatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")

        sdnotify.notify("READY=1")

        assert systemd.recv(100) == b"READY=1"
        assert sdnotify.watchdog_seconds() == 60.0


def test_take_passed_socket_when_it_is_another_process_takes_none(monkeypatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")

    assert sdnotify.take_passed_socket() is None


# --- a process of its own ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def child(base: Path, *, idle_seconds: float = WAIT_SECONDS):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.executor.serve_child",
        str(base),
        str(idle_seconds),
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), WAIT_SECONDS)


@pytest.mark.parametrize("seed", range(4))
async def test_executor_when_killed_at_random_ends_with_all_or_nothing(tmp_path, seed) -> None:
    dice = random.Random(seed)
    path = tmp_path / "executor.sock"
    sites = [site(f"s{number}.example.com") for number in range(6)]
    a_job = job(manifest(1, account(), *sites), expires_at=job().expires_at + 86_400)
    async with child(tmp_path) as process, Client(path) as client:
        client.send(SubmitTrust(envelope=signed_bundle(bundle())))
        await client.read_until(TrustTaken)
        client.send(SubmitJob(envelope=signed(a_job)))
        await client.read_until(JobAccepted)
        await asyncio.sleep(dice.uniform(0.0, 0.08))
        process.kill()
        await process.wait()

    path.unlink()
    async with child(tmp_path) as process:
        async with Client(path) as client:
            finished = await client.read_until(JobFinished)
            client.send(ResultStored(job_id=a_job.job_id))
            client.send(SubmitJob(envelope=signed(a_job)))
            repeated = await client.read_until(JobAccepted)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), WAIT_SECONDS) == 0

    assert finished.result.state is JobState.SUCCEEDED
    assert repeated.state is JobState.SUCCEEDED
    assert len([name for name in DiskHost(tmp_path / "host").snapshot() if name.endswith(".conf")]) == 7


async def test_executor_when_systemd_passes_the_socket_serves_it_and_rests(tmp_path) -> None:
    path = tmp_path / "passed.sock"
    listening = listen_at(path)
    wrapper = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, '-m', 'tests.integration.executor.serve_child', sys.argv[2], '0.3'])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", wrapper, str(listening.fileno()), str(tmp_path), cwd=ROOT, pass_fds=(listening.fileno(),)
    )
    async with Client(path) as client:
        client.send(RequestStatus())
        status = await client.read()
    listening.close()

    assert isinstance(status, ExecutorStatus)
    assert await asyncio.wait_for(process.wait(), WAIT_SECONDS) == 0
    assert not (tmp_path / "executor.sock").exists()
    assert path.exists()
