"""Fault 29 with real executor processes: a journal that is cut, damaged where SQLite cannot see it, or gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.identity import save_identity
from shared.protocol.job import Job, JobState
from shared.protocol.local import (
    LENGTH_BYTES,
    ExecutorStatus,
    FromExecutor,
    JobFinished,
    RequestStatus,
    SubmitJob,
    SubmitTrust,
    ToExecutor,
    decode_from_executor,
    decode_length,
    encode_local,
)
from tests.integration.executor.bench import account, bundle, identity, job, manifest, pool, signed, signed_bundle, site

SERVE = [sys.executable, "-m", "tests.integration.executor.serve_child"]
ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30.0
WANTED = manifest(1, account(), pool(), site(php="8.2"))


class ExecutorProcess:
    """A real executor over a folder, as systemd runs it: started when it is needed, ended with a kill."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.process: subprocess.Popen[bytes] | None = None
        (base / "state").mkdir(parents=True)
        save_identity(base / "state", identity())

    def start(self) -> None:
        self.process = subprocess.Popen([*SERVE, str(self.base), "60"], cwd=ROOT, stderr=subprocess.PIPE)

    def wait(self) -> int:
        assert self.process is not None
        self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.wait()

    async def ask(self, *frames: ToExecutor, until: type) -> FromExecutor:
        """Send frames on one connection and wait for the first answer of a kind."""
        async with asyncio.timeout(WAIT_SECONDS):
            reader, writer = await self._connect()
            try:
                for frame in frames:
                    writer.write(encode_local(frame))
                while True:
                    length = decode_length(await reader.readexactly(LENGTH_BYTES))
                    answer = decode_from_executor(await reader.readexactly(length))
                    if isinstance(answer, until):
                        return answer
            finally:
                writer.close()

    async def _connect(self):
        while True:
            try:
                return await asyncio.open_unix_connection(str(self.base / "executor.sock"))
            except OSError:
                await asyncio.sleep(0.02)

    async def run(self, a_job: Job) -> JobFinished:
        trust = SubmitTrust(envelope=signed_bundle(bundle()))
        answer = await self.ask(trust, SubmitJob(envelope=signed(a_job)), until=JobFinished)
        assert isinstance(answer, JobFinished)
        return answer

    async def status(self) -> ExecutorStatus:
        answer = await self.ask(RequestStatus(), until=ExecutorStatus)
        assert isinstance(answer, ExecutorStatus)
        return answer

    @property
    def journal(self) -> Path:
        return self.base / "state/journal.db"

    def set_aside(self) -> list[str]:
        return [path.name for path in self.journal.parent.iterdir() if "corrupt" in path.name]


@pytest.fixture
def executor(tmp_path: Path):
    made = ExecutorProcess(tmp_path / "node")
    yield made
    made.kill()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("keep", [0, 1, 33, 4000, 9000], ids=lambda size: f"{size}-bytes")
async def test_fault_29_journal_when_its_log_was_cut_is_consistent_and_the_job_comes_to_its_end(
    executor: ExecutorProcess, keep: int
) -> None:
    """SQLite goes back to an older moment by itself; what was forgotten is offered again by the controller."""
    a_job = job(WANTED, seq=1)
    executor.start()
    assert (await executor.run(a_job)).result.state is JobState.SUCCEEDED
    executor.kill()
    log = executor.journal.with_name("journal.db-wal")
    assert log.stat().st_size > keep
    os.truncate(log, keep)
    log.with_name("journal.db-shm").unlink(missing_ok=True)

    executor.start()
    finished = await executor.run(a_job)

    assert finished.result.state is JobState.SUCCEEDED
    assert sqlite3.connect(executor.journal).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (executor.base / "host/etc/site/example.com.conf").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jobs SET payload = x'c1c1c1', state = 'started'",
        "INSERT INTO transactions (subject, job_id, state, draft) VALUES ('account/alice', NULL, 'sealed', x'c1')",
        """
        INSERT INTO transactions (number, subject, state) VALUES (900, 'account/alice', 'open');
        INSERT INTO steps (transaction_number, resource, action, undo, state)
            VALUES (900, 'site/a', x'c1', x'c1', 'begun')
        """,
    ],
    ids=["job", "draft", "step"],
)
async def test_fault_29_journal_when_a_row_makes_no_sense_is_set_aside_by_the_next_process(
    executor: ExecutorProcess, damage: str
) -> None:
    """A flipped bit inside a value passes SQLite's own check; the executor must not fail at it for ever."""
    executor.start()
    await executor.run(job(WANTED, seq=1))
    epoch = (await executor.status()).journal_epoch
    executor.kill()
    connection = sqlite3.connect(executor.journal)
    connection.executescript(damage)
    connection.close()

    executor.start()
    assert executor.wait() == 1
    executor.start()
    finished = await executor.run(job(WANTED, seq=2))

    assert finished.result.state is JobState.SUCCEEDED
    assert executor.set_aside()
    assert (await executor.status()).journal_epoch != epoch


@pytest.mark.timeout(120)
async def test_fault_29_journal_when_its_pages_are_damaged_is_set_aside_and_a_new_epoch_begins(
    executor: ExecutorProcess,
) -> None:
    executor.start()
    await executor.run(job(WANTED, seq=1))
    before = await executor.status()
    connection = sqlite3.connect(executor.journal)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    raw = bytearray(executor.journal.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    executor.journal.write_bytes(bytes(raw))

    executor.kill()
    executor.start()
    finished = await executor.run(job(WANTED, seq=2))

    assert finished.result.state is JobState.SUCCEEDED
    assert executor.set_aside()
    assert (await executor.status()).journal_epoch != before.journal_epoch
