"""Faults of streams: a reader that stands still, a node that breaks the rules, a tenant that plays with links."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.workers.beneath import open_beneath, open_root
from controller.db.engine import Database
from controller.fleet.streams.router import StreamRequest
from controller.fleet.streams.streams import LocalStream
from controller.jobs.states import JobState
from shared.errors import AgentOfflineError, FleetError
from shared.protocol.envelope import Envelope
from shared.protocol.grant import KIND_LOG_TAIL, LogTailArgs
from shared.protocol.streams import MAX_CHUNK_BYTES, STREAM_WINDOW_BYTES, OpenStream, StreamData, StreamOpened
from tests.integration.fleet.agent import Session
from tests.integration.fleet.bench import FleetBench, build_bench, running
from tests.integration.live import wait_until
from tests.integration.streams.stage import StreamStage, stream_stage

MIB = 1024 * 1024
LINE = b"a line of a log that is long enough to make the file large with few of them " * 4 + b"%09d\n"
GRANT = Envelope(payload_type="test", payload=b"", signatures=())


@pytest.fixture
def database_file(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "controller.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def site(database_file: str, tmp_path: Path) -> AsyncIterator[StreamStage]:
    """A site on a simulated node, behind a controller that serves."""
    async with stream_stage(database_file, tmp_path) as made:
        yield made


@pytest.fixture
async def bench(database_file: str, tmp_path: Path) -> AsyncIterator[FleetBench]:
    """A gateway for agents that the test plays."""
    database = Database(database_file)
    async with running(build_bench(database, tmp_path / "data")) as started:
        yield started
    await database.close()


# --- 23: slow consumers ----------------------------------------------------------------------------------------------


def write_large_log(stage: StreamStage, size_bytes: int) -> int:
    """A log of about this size; how many lines it has."""
    count = size_bytes // len(LINE % 0)
    with stage.log_path().open("wb") as log:
        for number in range(count):
            log.write(LINE % number)
    return count


async def ping(stage: StreamStage) -> None:
    """A job there and back, through the session that carries the stream."""
    await stage.operator.change("POST", f"/nodes/{stage.node['id']}/ping")


async def beats_on(stage: StreamStage) -> None:
    """A heartbeat or a sample that came after this was called."""
    node_id = stage.node["id"]
    gateway = stage.live.controller.fleet.gateway
    before = gateway.find_metrics(node_id)
    await wait_until(lambda: gateway.find_metrics(node_id) is not before)


def open_streams(stage: StreamStage) -> list[LocalStream]:
    return list(stage.streams._streams.values())


async def test_fault_23_browser_that_stops_reading_stops_the_worker_and_nothing_else(site: StreamStage) -> None:
    count = write_large_log(site, 64 * MIB)
    cursor = f"{site.log_path().stat().st_ino}:0"

    async with site.operator.http.stream(
        "GET", site.url(), params={"follow": "true", "after": cursor}, timeout=60.0
    ) as answer:
        lines = answer.aiter_lines()
        first = await anext(lines)
        (stream,) = open_streams(site)
        await until_still(lambda: stream._window.received)
        received = stream._window.received

        await ping(site)
        await beats_on(site)

        assert b"000000000" in first.encode()
        assert site.streams.promised_bytes <= STREAM_WINDOW_BYTES
        assert sum(len(chunk) for chunk in stream._chunks) <= STREAM_WINDOW_BYTES
        assert received < 32 * MIB, "what nobody reads must stay in the file"
        last = 0
        async for line in lines:
            if line:
                last += 1
            if last == count - 1:
                break
    await wait_until(lambda: site.streams.open_count == 0)


async def test_fault_23_controller_that_stops_reading_gets_its_window_and_no_byte_more(site: StreamStage) -> None:
    write_large_log(site, 8 * MIB)
    request = log_request(site, cursor=f"{site.log_path().stat().st_ino}:0")
    stream = await site.live.controller.streams.open(request)
    (inner,) = open_streams(site)

    await wait_until(lambda: inner._window.received == STREAM_WINDOW_BYTES)
    await ping(site)
    await until_still(lambda: inner._window.received)

    assert inner._window.received == STREAM_WINDOW_BYTES
    assert site.streams.promised_bytes == STREAM_WINDOW_BYTES
    assert len(await stream.read()) == MAX_CHUNK_BYTES
    await stream.close()
    await wait_until(lambda: not worker_threads())


async def test_fault_23_many_readers_that_stand_still_share_one_window_of_the_session(site: StreamStage) -> None:
    write_large_log(site, 4 * MIB)
    streams = site.live.controller.streams
    opened = [await streams.open(log_request(site, cursor=f"{site.log_path().stat().st_ino}:0")) for _ in range(8)]
    with pytest.raises(FleetError) as refused:
        await streams.open(log_request(site))

    await until_still(lambda: sum(stream._window.received for stream in open_streams(site)))
    await ping(site)

    assert refused.value.code == "too_many_streams"
    assert site.streams.promised_bytes <= 2 * MIB
    assert sum(stream._window.received for stream in open_streams(site)) <= 2 * MIB
    # Each of them goes on as soon as it is read, whatever the others do.
    for stream in reversed(opened):
        assert sum([len(await stream.read()) for _ in range(8)]) > MAX_CHUNK_BYTES
        await stream.close()
    await wait_until(lambda: not worker_threads())


def log_request(stage: StreamStage, *, cursor: str = "") -> StreamRequest:
    args = LogTailArgs(cursor=cursor, is_following=True)
    return StreamRequest(
        node_id=stage.node["id"],
        account=stage.account["name"],
        uid=stage.account["uid"],
        kind=KIND_LOG_TAIL,
        path=stage.log_path().name,
        args=msgspec.msgpack.encode(args),
        max_bytes=1024 * MIB,
        actor="user/test",
        request_id="request-test",
    )


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker-")]


async def until_still(read: Callable[[], int], *, quiet_reads: int = 25) -> None:
    """Until a number has not changed for many looks in a row."""
    last, same = read(), 0
    async with asyncio.timeout(30):
        while same < quiet_reads:
            await asyncio.sleep(0.01)
            now = read()
            last, same = now, same + 1 if now == last else 0


# --- 24: a node that breaks the rules --------------------------------------------------------------------------------


async def open_on(bench: FleetBench, session: Session) -> LocalStream:
    """A stream that the played node has opened."""
    streams = bench.fleet.gateway.find_streams(session.agent.node_id)
    assert streams is not None
    opening = asyncio.create_task(streams.open(GRANT))
    frame = await session.expect(OpenStream)
    await session.send(StreamOpened(sid=frame.sid))
    return await opening


async def beyond_credit(session: Session) -> None:
    offset = 0
    while offset < 4 * STREAM_WINDOW_BYTES:
        await session.send(StreamData(sid=1, offset=offset, data=b"x" * MAX_CHUNK_BYTES))
        offset += MAX_CHUNK_BYTES


async def never_opened(session: Session) -> None:
    for sid in range(2, 1_000_000):
        await session.send(StreamData(sid=sid, offset=0, data=b"x"))


async def million_ids(session: Session) -> None:
    await session.connection.send(msgspec.msgpack.encode({"t": "stream_list", "sids": list(range(1_000_000))}))


async def huge_chunk(session: Session) -> None:
    await session.connection.send(msgspec.msgpack.encode({"t": "sd", "sid": 1, "offset": 0, "data": b"x" * 5 * MIB}))


async def gigabyte_frame(session: Session) -> None:
    # The header of a binary message of 1 GiB (RFC 6455 section 5.2), and then some of it.
    header = bytes([0x82, 0xFF]) + (1024 * MIB).to_bytes(8, "big") + bytes(4)
    transport: Any = session.connection.transport
    transport.write(header + bytes(1 * MIB))


async def nested_bomb(session: Session) -> None:
    await session.connection.send(b"\x82\xa1t\xacstream_close\xa1x" + b"\x91" * 4_000_000 + b"\x00")


async def empty_chunks(session: Session) -> None:
    for _ in range(1_000_000):
        await session.send(StreamData(sid=1, offset=0, data=b""))


async def wrong_offset(session: Session) -> None:
    await session.send(StreamData(sid=1, offset=7, data=b"x"))


@pytest.mark.parametrize(
    "attack",
    [
        beyond_credit, never_opened, million_ids, huge_chunk, gigabyte_frame, nested_bomb, empty_chunks, wrong_offset,
    ],
)  # fmt: skip
async def test_fault_24_node_that_breaks_the_rules_is_cut_off_and_others_go_on(
    bench: FleetBench, attack: Callable[[Session], Awaitable[None]]
) -> None:
    bad = await (await bench.enrol()).connect(capability=2)
    good = await (await bench.enrol()).connect(capability=2)
    await good.run_next()
    stream = await open_on(bench, bad)
    fine = await open_on(bench, good)

    with_errors = asyncio.create_task(_attack(bad, attack))
    await asyncio.wait_for(bad.connection.wait_closed(), 20)
    await with_errors

    with pytest.raises(AgentOfflineError):
        await read_to_end(stream)
    assert sum(len(chunk) for chunk in stream._chunks) <= STREAM_WINDOW_BYTES
    await good.send(StreamData(sid=1, offset=0, data=b"still here"))
    assert await fine.read() == b"still here"
    job_id = await bench.request(good.agent.node_id)
    await good.finish(await good.take_job())
    assert (await bench.job(job_id)).state is JobState.SUCCEEDED
    assert bad.connection.close_code in (1006, 1009, 4400)
    await good.close()


async def read_to_end(stream: LocalStream) -> None:
    while await stream.read():
        pass


async def _attack(session: Session, attack: Callable[[Session], Awaitable[None]]) -> None:
    try:
        await attack(session)
        while True:
            await session.receive()
    except (OSError, EOFError, Exception):  # noqa: BLE001 - however the line breaks, it is what was wanted
        return


# --- 31: a tenant that plays with links ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_openat2", [True, False], ids=["openat2", "walk"])
def test_fault_31_file_that_is_swapped_for_a_link_while_it_is_opened_never_leads_outside(
    tmp_path: Path, is_openat2: bool
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("not yours")
    folder = tmp_path / "root/folder"
    folder.mkdir(parents=True)
    (folder / "file").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            folder.rename(tmp_path / "root/aside")
            folder.symlink_to(tmp_path / "outside")
            folder.unlink()
            (tmp_path / "root/aside").rename(folder)
            (folder / "file").rename(folder / "real")
            (folder / "file").symlink_to(tmp_path / "outside/file")
            (folder / "file").unlink()
            (folder / "real").rename(folder / "file")

    thread = threading.Thread(target=swap)
    thread.start()
    root = open_root(str(tmp_path / "root"))
    contents = set()
    try:
        for _ in range(3000):
            try:
                descriptor = open_beneath(root, "folder/file", is_openat2_tried=is_openat2)
            except FleetError as error:
                contents.add(error.code)
                continue
            contents.add(os.read(descriptor, 100).decode())
            os.close(descriptor)
    finally:
        stop.set()
        thread.join()
        os.close(root)

    assert "not yours" not in contents
    assert "mine" in contents
