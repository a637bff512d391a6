"""Fault 25 on a real file system that is really full: the reserve, the refusal, the end of what runs, and the way back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.database import Database, JournalBrokenError
from agent.core.journal import Journal
from agent.core.registry import Registry
from agent.core.reserve import RESERVE_DIR, Room
from agent.link.room import RoomWatch
from agent.link.spool import Spool
from agent.system import files
from shared.errors import UnavailableError
from shared.protocol.job import ErrorBody, JobResult, JobState
from shared.protocol.local import ExecutorStatus, JobAccepted, JobFinished
from tests.faults.node_files_host import MODULE, FilesHost, lay_ground
from tests.integration.executor.bench import Bench, account, job, manifest, site

KIB = 1024
RESERVE = 512 * KIB
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """2 MiB and 150 inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=150", "wcp-small", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Not a byte is left."""
    with (disk / "filler").open("ab", buffering=0) as stream:
        for size in (64 * KIB, KIB):
            try:
                while stream.write(b"x" * size):
                    pass
            except OSError:
                continue


def fill_inodes(disk: Path) -> None:
    (disk / "filler").mkdir()
    try:
        for number in range(10_000):
            (disk / "filler" / str(number)).touch()
    except OSError:
        return
    pytest.fail("there is no limit of inodes")


def make_room(disk: Path) -> None:
    subprocess.run(["rm", "-rf", str(disk / "filler")], check=True)


def small_room(disk: Path) -> Room:
    return Room(disk, reserve_bytes=RESERVE, least_free_bytes=128 * KIB)


class SmallBench(Bench):
    """Its journal lies on the small disk."""

    def open(self) -> None:
        super().open()
        self.journal.close()
        self.journal = Journal(self.state_dir, small_room(self.state_dir))
        self.rewire()


def open_bench(base: Path, disk: Path) -> SmallBench:
    lay_ground(base)
    (base / "state").symlink_to(disk)
    return SmallBench(base, host=FilesHost(base), registry=Registry([MODULE]))


@needs_mount
@pytest.mark.parametrize("fill_it", [fill, fill_inodes], ids=["bytes", "inodes"])
async def test_fault_25_job_when_the_disk_is_full_is_refused_with_the_reason(tmp_path, disk, fill_it) -> None:
    bench = open_bench(tmp_path, disk)
    await bench.executor.start()
    await bench.run(job(manifest(1, account()), seq=1))
    fill_it(disk)

    refused = bench.submit(job(manifest(2, account(), site()), seq=2))

    assert (refused.state, refused.error.code) == (JobState.REFUSED, "disk_full")
    assert not bench.executor._status().has_room
    make_room(disk)
    result = await bench.run(job(manifest(3, account(), site()), seq=3))
    assert result.state is JobState.SUCCEEDED
    assert (disk / RESERVE_DIR / "whole").exists()
    bench.journal.close()


@needs_mount
@pytest.mark.parametrize("word", ["alice.conf", "alice.link", "web"])
async def test_fault_25_job_when_the_disk_fills_in_any_step_ends_and_reports(tmp_path, disk, word) -> None:
    """What it writes from then on is written at the reserve's expense: its end, its result, its undo."""
    bench = open_bench(tmp_path, disk)
    await bench.executor.start()
    await bench.run(job(manifest(1, account()), seq=1))
    apply = bench.host.apply

    async def apply_and_fill(action) -> None:
        await apply(action)
        if word in action.target:
            fill(disk)

    bench.host.apply = apply_and_fill
    a_job = job(manifest(2, account("alice"), site("b.test"), site("c.test", text="broken;")), seq=2)
    result = await bench.run(a_job)

    assert bench.outcomes(result)["site/b.test"] == "changed"
    assert bench.outcomes(result)["site/c.test"] == "parked"
    assert bench.journal.ledger.list_transactions() == []
    bench.journal.close()
    again = Journal(disk, small_room(disk))
    assert again.find_job(a_job.job_id).result == result
    again.close()


@needs_mount
def test_fault_25_transaction_when_the_disk_fills_in_the_middle_is_written_again_as_a_whole(disk) -> None:
    room = small_room(disk)
    assert room.has_room()
    database = Database(disk / "journal.db", room)
    with database.soft():
        first = database.execute("INSERT INTO transactions (subject, state) VALUES ('soft', 'open')")
    with database.durable():
        second = database.execute("INSERT INTO transactions (subject, state) VALUES ('one', 'open')")
        fill(disk)
        third = database.execute(
            "INSERT INTO transactions (subject, state, draft) VALUES ('two', 'open', ?)", b"x" * 300 * KIB
        )

    rows = database.rows("SELECT number, subject FROM transactions ORDER BY number")
    assert rows == [(first, "soft"), (second, "one"), (third, "two")]
    assert not (disk / RESERVE_DIR).exists()
    with pytest.raises(UnavailableError) as caught, database.durable():
        database.execute("INSERT INTO transactions (subject, state, draft) VALUES ('3', 'open', ?)", b"x" * 900 * KIB)
    assert caught.value.code == "disk_full"
    assert len(database.rows("SELECT 1 FROM transactions")) == 3
    database.close()


@needs_mount
def test_fault_25_file_when_the_disk_is_full_stays_the_old_one(disk) -> None:
    path = str(disk / "site.conf")
    files.write_file(path, b"old", uid=0, gid=0, mode=0o644)
    fill(disk)

    with pytest.raises(UnavailableError) as caught:
        files.write_file(path, b"new" * 64 * KIB, uid=0, gid=0, mode=0o644)

    assert caught.value.code == "disk_full"
    assert Path(path).read_bytes() == b"old"
    assert sorted(entry.name for entry in disk.iterdir()) == ["filler", "site.conf"]


@needs_mount
def test_fault_25_journal_when_inodes_are_out_opens_all_the_same(disk) -> None:
    """SQLite needs two files beside its own; without them the executor could not even start to end its jobs."""
    room = small_room(disk)
    Database(disk / "journal.db", room).close()
    assert room.has_room()
    fill_inodes(disk)

    database = Database(disk / "journal.db", small_room(disk))

    with database.durable():
        database.execute("INSERT INTO meta VALUES ('key', 'value')")
    assert database.row("SELECT value FROM meta WHERE key = 'key'") == ("value",)
    database.close()


# --- the agent's side -----------------------------------------------------------------------------------------------------


class FakeExecutor:
    """Says whether it has room."""

    def __init__(self) -> None:
        self.has_room = False
        self.asked = 0

    async def request_status(self) -> ExecutorStatus:
        self.asked += 1
        self.has_room = self.asked > 2
        return ExecutorStatus(
            journal_epoch="e", last_seq=1, bundle_version=1, node_id="n", node_gen=1, cluster_id="c", running_jobs=0,
            has_room=self.has_room,
        )  # fmt: skip


@needs_mount
async def test_fault_25_result_when_the_agents_disk_is_full_is_kept_once_there_is_room(disk) -> None:
    spool = Spool(disk / "spool.db")
    kept: list[JobFinished] = []
    frame = JobFinished(result=JobResult(job_id="job-1", state=JobState.SUCCEEDED, started_at=1.0))
    fill(disk)
    large = JobResult(job_id="job-2", state=JobState.FAILED, error=ErrorBody(code="x", message="y" * 400 * KIB))
    with pytest.raises(Exception, match="full"):
        spool.append_result(large)
    make_room(disk)

    has_kept = asyncio.Event()

    async def keep(waiting: JobFinished) -> None:
        spool.append_result(waiting.result)
        kept.append(waiting)
        has_kept.set()

    watch = RoomWatch(FakeExecutor(), keep, look_seconds=0.01)
    watch.note_unkept(frame)
    watch.note_unkept(JobFinished(result=large))
    task = asyncio.create_task(watch.run(_never))
    async with asyncio.timeout(20):
        while len(kept) < 2:
            has_kept.clear()
            await has_kept.wait()
    task.cancel()

    assert spool.head == 2
    spool.close()


async def _never() -> None:
    raise AssertionError("no job was refused")


async def test_fault_25_link_when_the_executor_has_room_again_connects_anew() -> None:

    executor, reconnected = FakeExecutor(), asyncio.Event()

    async def reconnect() -> None:
        reconnected.set()

    watch = RoomWatch(executor, _keep_nothing, look_seconds=0.01)
    error = ErrorBody(code="disk_full", message="full")
    watch.note_answer(JobAccepted(job_id="j", seq=1, state=JobState.REFUSED, error=error))
    task = asyncio.create_task(watch.run(reconnect))
    async with asyncio.timeout(20):
        await reconnected.wait()
    task.cancel()

    assert executor.asked == 3


async def _keep_nothing(_frame: JobFinished) -> None:
    raise AssertionError("there is nothing to keep")


def test_fault_29_journal_when_its_file_cannot_be_read_says_that_it_is_broken(tmp_path) -> None:
    database = Database(tmp_path / "journal.db")
    with database.durable():
        for number in range(2000):
            database.execute("INSERT INTO meta VALUES (?, ?)", f"key-{number}", "v" * 100)
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray((tmp_path / "journal.db").read_bytes())
    raw[8192:] = b"\xff" * (len(raw) - 8192)
    (tmp_path / "journal.db").write_bytes(bytes(raw))
    database._connection.execute("PRAGMA cache_size=0")

    with pytest.raises(JournalBrokenError):
        database.rows("SELECT * FROM meta")
