"""The process dies at every fault point, really (a forked child that ends without clean-up), and is started again.

Afterwards the account is fully as it was or fully as it was asked for, and the journal says which.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from agent.core import faults
from agent.core.recovery import MAX_ATTEMPTS, recover
from shared.errors import UnavailableError
from shared.faults import forget_hits
from shared.protocol.job import Job, JobState, Semantics
from shared.protocol.local import CancelLocal, SubmitTrust
from shared.specs.account import StorageDriver
from shared.specs.base import Presence
from tests.integration.executor.bench import Bench, DiskHost, account, bundle, job, manifest, pool, signed_bundle, site

MAX_HITS = 100
CHILD_SECONDS = 60


@pytest.fixture
def tmp_path():
    """In memory where there is such a place: a dying process needs no disk, and the sweep waits for none."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def die_at(fault: str | None, base: Path, work: Callable[[Bench], Awaitable[None]]) -> int:
    """Run the work in a child with this fault armed; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        signal.alarm(CHILD_SECONDS)
        try:
            os.environ.pop(faults.VARIABLE, None)
            if fault is not None:
                os.environ[faults.VARIABLE] = fault
            forget_hits()
            asyncio.run(_work(base, work))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _work(base: Path, work: Callable[[Bench], Awaitable[None]]) -> None:
    await work(Bench(base))


def run_one(a_job: Job) -> Callable[[Bench], Awaitable[None]]:
    async def work(bench: Bench) -> None:
        await bench.executor.start()
        bench.submit(a_job)
        await bench.settle()

    return work


async def start_again(bench: Bench) -> None:
    await bench.executor.start()
    await bench.settle()


async def only_recover(bench: Bench) -> None:
    await recover(bench.node)


BEFORE = manifest(1, account(), pool(), site(php="8.2"))
SCENARIOS = {
    "creates": (None, BEFORE, JobState.SUCCEEDED),
    "changes": (
        BEFORE,
        manifest(2, account(), pool(version="8.4"), site(php="8.4"), site("b.example.com")),
        JobState.SUCCEEDED,
    ),
    "parks": (
        BEFORE,
        manifest(2, account(), pool(), site(php="8.2"), site("b.example.com", text="broken;"), site("c.example.com")),
        JobState.FAILED,
    ),
    "fails": (
        BEFORE,
        manifest(2, msgspec.structs.replace(account(), storage=StorageDriver.BTRFS), site("d.example.com")),
        JobState.FAILED,
    ),
    "suspends": (
        BEFORE,
        manifest(2, account(), pool(), site(php="8.2"), presence=Presence.DISABLED),
        JobState.SUCCEEDED,
    ),
    "removes": (BEFORE, manifest(2, presence=Presence.ABSENT), JobState.SUCCEEDED),
}
JOB_POINTS = [point for point in faults.POINTS if not point.startswith(("recovery.", "trust."))]


def prepare(base: Path, before, *, seq: int = 1) -> dict[str, str]:
    """The host with what was there before; returns its snapshot."""
    if before is not None:
        assert die_at(None, base, run_one(job(before, seq=seq))) == 0
    return DiskHost(base / "host").snapshot()


def files_of(snapshot: dict[str, str]) -> dict[str, str]:
    """Parents that were created on the way down are nobody's resource."""
    shared = {"/etc/", "/srv/"} | {
        f"/{top}/{kind}/" for top in ("etc", "srv") for kind in ("account", "site", "php_pool")
    }
    return {path: text for path, text in snapshot.items() if path not in shared}


def is_one_of(snapshot: dict[str, str], *candidates: dict[str, str]) -> bool:
    return files_of(snapshot) in [files_of(candidate) for candidate in candidates]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("point", JOB_POINTS)
def test_crash_when_it_hits_a_fault_point_leaves_all_or_nothing(tmp_path, scenario, point) -> None:
    before, asked, final_state = SCENARIOS[scenario]
    wanted = tmp_path / "wanted"
    prepare(wanted, before)
    assert die_at(None, wanted, run_one(job(asked, seq=2))) == 0
    after = DiskHost(wanted / "host").snapshot()
    prepared = tmp_path / "prepared"
    was = prepare(prepared, before)

    for hit in range(1, MAX_HITS):
        base = tmp_path / str(hit)
        shutil.copytree(prepared, base)
        a_job = job(asked, seq=2)
        if die_at(f"{point}:{hit}", base, run_one(a_job)) == 0:
            break
        assert die_at(None, base, only_recover) == 0
        recovered = Bench(base)
        assert is_one_of(recovered.host.snapshot(), was, after), f"half done after {point}:{hit}"
        assert recovered.journal.ledger.list_transactions() == []
        recovered.journal.close()

        assert die_at(None, base, start_again) == 0
        assert die_at(None, base, run_one(a_job)) == 0
        end = Bench(base)
        row = end.journal.find_job(a_job.job_id)
        assert row is not None
        assert row.result is not None
        assert row.result.state is final_state
        assert is_one_of(end.host.snapshot(), after)
        assert not end.journal.quarantine
        end.journal.close()
        shutil.rmtree(base)
    else:
        pytest.fail(f"{point} is hit more than {MAX_HITS} times")


def test_sweep_when_all_scenarios_are_run_reaches_every_point(tmp_path) -> None:
    """A point that nothing passes would prove nothing."""
    unreached = set(JOB_POINTS)
    for name, (before, asked, _) in SCENARIOS.items():
        for point in sorted(unreached):
            base = tmp_path / name / point
            base.mkdir(parents=True)
            prepare(base, before)
            if die_at(point, base, run_one(job(asked, seq=2))) == faults.EXIT_STATUS:
                unreached.discard(point)

    assert unreached == set()


@pytest.mark.parametrize("first", ["step.after_apply:4", "transaction.after_seal", "irreversible.after_apply:2"])
@pytest.mark.parametrize(
    "second",
    [
        "recovery.before",
        "undo.before",
        "undo.after_apply:2",
        "undo.after_mark",
        "recovery.after_unwind",
        "irreversible.before_apply:2",
        "transaction.before_commit",
        "transaction.after_commit",
        "recovery.after",
    ],
)
@pytest.mark.parametrize("scenario", ["changes", "removes"])
def test_crash_when_recovery_dies_too_is_recovered_the_next_time(tmp_path, scenario, first, second) -> None:
    before, asked, final_state = SCENARIOS[scenario]
    prepare(tmp_path, before)
    a_job = job(asked, seq=2)

    died_first = die_at(first, tmp_path, run_one(a_job))
    died_second = die_at(second, tmp_path, start_again)
    assert die_at(None, tmp_path, start_again) == 0

    assert {died_first, died_second} <= {0, faults.EXIT_STATUS}
    end = Bench(tmp_path)
    row = end.journal.find_job(a_job.job_id)
    assert row is not None
    assert row.state is final_state
    assert end.journal.ledger.list_transactions() == []
    has_site = "/etc/site/example.com.conf" in end.host.snapshot()
    assert has_site == (scenario == "changes")


def test_crash_when_the_job_may_run_once_reports_indeterminate_and_does_not_run_again(tmp_path) -> None:
    a_job = job(BEFORE, semantics=Semantics.ONCE)

    assert die_at("step.after_apply:3", tmp_path, run_one(a_job)) == faults.EXIT_STATUS
    assert die_at(None, tmp_path, run_one(a_job)) == 0

    end = Bench(tmp_path)
    assert end.result_of(a_job).state is JobState.INDETERMINATE
    assert files_of(end.host.snapshot()) == {}


def test_crash_when_the_job_was_cancelled_before_ends_cancelled(tmp_path) -> None:
    a_job = job(BEFORE)

    async def cancel_at_once(bench: Bench) -> None:
        apply = bench.host.apply

        async def apply_and_cancel(action) -> None:
            await apply(action)
            bench.executor.answer(CancelLocal(job_id=a_job.job_id))

        bench.host.apply = apply_and_cancel
        await run_one(a_job)(bench)

    assert die_at("undo.before", tmp_path, cancel_at_once) == faults.EXIT_STATUS
    assert die_at(None, tmp_path, start_again) == 0

    end = Bench(tmp_path)
    assert end.result_of(a_job).state is JobState.CANCELLED
    assert files_of(end.host.snapshot()) == {}


def test_crash_when_a_job_always_takes_the_executor_down_gives_up(tmp_path) -> None:
    a_job = job(BEFORE)
    for _ in range(MAX_ATTEMPTS):
        assert die_at("step.after_begin:2", tmp_path, run_one(a_job)) == faults.EXIT_STATUS
    assert die_at("step.after_begin:2", tmp_path, run_one(a_job)) == 0

    end = Bench(tmp_path)
    assert end.result_of(a_job).error.code == "gave_up"
    assert files_of(end.host.snapshot()) == {}


def test_crash_when_the_job_expired_meanwhile_is_not_run_again(tmp_path) -> None:
    a_job = job(BEFORE)
    assert die_at("step.after_begin:2", tmp_path, run_one(a_job)) == faults.EXIT_STATUS

    async def start_late(bench: Bench) -> None:
        bench.clock = a_job.expires_at + 200
        await start_again(bench)

    assert die_at(None, tmp_path, start_late) == 0

    end = Bench(tmp_path)
    assert end.result_of(a_job).error.code == "expired"
    assert files_of(end.host.snapshot()) == {}


def test_crash_while_a_bundle_is_stored_keeps_the_old_one(tmp_path) -> None:
    prepare(tmp_path, BEFORE)

    async def take(bench: Bench) -> None:
        bench.executor.answer(SubmitTrust(envelope=signed_bundle(bundle(version=2))))

    assert die_at("trust.before_rename", tmp_path, take) == faults.EXIT_STATUS
    assert Bench(tmp_path).trust.bundle.version == 1
    assert die_at(None, tmp_path, take) == 0
    assert Bench(tmp_path).trust.bundle.version == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "noise"])
def test_journal_when_corrupt_is_set_aside_and_a_new_epoch_begins(tmp_path, damage) -> None:
    prepare(tmp_path, BEFORE)
    bench = Bench(tmp_path)
    epoch = bench.journal.epoch
    bench.journal.close()
    path = tmp_path / "state" / "journal.db"
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[4096:12288] = b"\xff" * 8192
    elif damage == "cut":
        del raw[len(raw) // 2 :]
    else:
        raw[:] = b"no database at all " * 500
    path.write_bytes(bytes(raw))

    again = Bench(tmp_path)

    assert again.journal.epoch != epoch
    assert again.journal.database.set_aside is not None
    assert again.journal.database.set_aside.exists()
    assert die_at(None, tmp_path, run_one(job(BEFORE, seq=2))) == 0
    assert "account/alice" in Bench(tmp_path).journal.ledger.list_subjects()


def test_journal_when_a_later_release_wrote_it_is_left_alone(tmp_path) -> None:
    bench = Bench(tmp_path)
    with bench.journal.database.durable():
        bench.journal.database.execute("PRAGMA user_version = 99")
    bench.journal.close()

    with pytest.raises(UnavailableError):
        Bench(tmp_path)
