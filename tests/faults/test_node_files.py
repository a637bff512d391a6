"""Faults 4 and 5: killed between any two steps of writing, renaming, syncing and removing real files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core import faults as core_faults
from agent.core.recovery import recover
from agent.core.registry import Registry
from agent.system import faults as system_faults
from shared.protocol.job import Job, JobState
from shared.protocol.local import SubmitTrust
from shared.specs.base import Presence
from shared.specs.manifest import Manifest
from tests.faults.dying import EXIT_STATUS, die_at, run_job
from tests.faults.node_files_host import MODULE, FilesHost, lay_ground
from tests.integration.executor.bench import Bench, account, bundle, job, manifest, pool, signed_bundle, site

HITS = (1, 2, 4, 7, 12, 20)
SYSTEM_POINTS = system_faults.POINTS
BEFORE = manifest(1, account(), pool(), site("a.example.com"))
SCENARIOS: dict[str, tuple[Manifest | None, Manifest]] = {
    "creates": (None, BEFORE),
    "changes": (BEFORE, manifest(2, account(), pool(version="8.4"), site("a.example.com", text="x;"), site("b.test"))),
    "parks": (BEFORE, manifest(2, account(), site("a.example.com"), site("b.test", text="broken;"), site("c.test"))),
    "suspends": (
        BEFORE,
        manifest(2, account(), pool(), site("a.example.com"), presence=Presence.DISABLED),
    ),
    "removes": (BEFORE, manifest(2, presence=Presence.ABSENT)),
}
UNREACHED_BY_JOBS = {"link.after_temporary", "link.after_rename"}
"""Only an undo puts a link back."""


@pytest.fixture
def base() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="wcp-files-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def open_bench(base: Path) -> Bench:
    return Bench(base, host=FilesHost(base), registry=Registry([MODULE]))


def prepare(base: Path, before: Manifest | None) -> None:
    base.mkdir()
    lay_ground(base)
    if before is not None:
        assert die_at(None, lambda: open_bench(base), run_job(job(before, seq=1))) == 0
        # The tenant has something in its home.
        (base / "host/srv/accounts/alice/deep/deeper").mkdir(parents=True)
        for number in range(3):
            (base / f"host/srv/accounts/alice/deep/file-{number}").write_text("mine")
        (base / "host/srv/accounts/alice/deep/deeper/link").symlink_to("/etc/passwd")


async def only_recover(bench: Bench) -> None:
    await recover(bench.node)


def copy(prepared: Path, base: Path) -> Path:
    shutil.copytree(prepared, base, symlinks=True)
    return base


def is_without_rest(base: Path) -> bool:
    """No temporary file of ours, no stage."""
    return not list((base / "host").rglob(".wcp360-*"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_04_files_when_the_executor_dies_between_any_two_steps_are_old_or_new(base: Path, scenario: str) -> None:
    before, asked = SCENARIOS[scenario]
    prepare(base / "prepared", before)
    was = FilesHost(base / "prepared").snapshot()
    wanted = copy(base / "prepared", base / "wanted")
    a_job = job(asked, seq=2)
    assert die_at(None, lambda: open_bench(wanted), run_job(a_job)) == 0
    after = FilesHost(wanted).snapshot()

    for point in (*SYSTEM_POINTS, "database.before_commit", "database.after_commit", "undo.after_apply"):
        for hit in HITS:
            place = copy(base / "prepared", base / f"{point}-{hit}")
            if not die_and_end(place, f"{point}:{hit}", a_job, was, after):
                break
            shutil.rmtree(place)


def die_and_end(place: Path, fault: str, a_job: Job, was: object, after: object) -> bool:
    if die_at(fault, lambda: open_bench(place), run_job(a_job)) == 0:
        return False
    require_whole_files(place, fault, (was, after))
    assert die_at(None, lambda: open_bench(place), only_recover) == 0
    found = FilesHost(place).snapshot()
    assert found in (was, after), f"half done after {fault}"
    assert is_without_rest(place), fault
    assert die_at(None, lambda: open_bench(place), run_job(a_job)) == 0
    assert FilesHost(place).snapshot() == after, fault
    return True


def require_whole_files(place: Path, fault: str, states: tuple[object, ...]) -> None:
    """At the moment of death already, before any recovery: every file is the old one or the new one."""
    known = [state for state in states if isinstance(state, dict)]
    for path, found in FilesHost(place).snapshot().items():
        if not Path(path).name.startswith(".wcp360-") and content_of(found):
            whole = [content_of(state[path]) for state in known if path in state]
            assert content_of(found) in whole, f"{path} is torn after {fault}"


def content_of(described: tuple[Any, ...]) -> bytes:
    return described[4] if len(described) == 5 else b""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", SYSTEM_POINTS)
def test_fault_04_recovery_when_it_dies_between_any_two_steps_goes_on_the_next_time(base: Path, point: str) -> None:
    before, asked = SCENARIOS["changes"]
    prepare(base / "prepared", before)
    was = FilesHost(base / "prepared").snapshot()

    for hit in HITS:
        # Records name absolute paths, so each death happens where its recovery does.
        place = copy(base / "prepared", base / f"{point}-{hit}")
        a_job = run_job(job(asked, seq=2))
        assert die_at("transaction.before_commit", lambda place=place: open_bench(place), a_job) == EXIT_STATUS
        if die_at(f"{point}:{hit}", lambda place=place: open_bench(place), only_recover) == 0:
            break
        assert die_at(None, lambda place=place: open_bench(place), only_recover) == 0
        assert FilesHost(place).snapshot() == was, f"{point}:{hit}"
        shutil.rmtree(place)


@pytest.mark.timeout(300)
def test_fault_04_sweep_when_all_scenarios_are_run_reaches_every_point(base: Path) -> None:
    unreached = set(SYSTEM_POINTS)
    prepared = {}
    for name, (before, _) in SCENARIOS.items():
        prepared[name] = base / name
        prepare(prepared[name], before)
    for name, (_, asked) in SCENARIOS.items():
        for point in sorted(unreached - UNREACHED_BY_JOBS):
            place = copy(prepared[name], base / f"{name}-{point}")
            if die_at(point, lambda place=place: open_bench(place), run_job(job(asked, seq=2))) == EXIT_STATUS:
                unreached.discard(point)
    for point in sorted(unreached & UNREACHED_BY_JOBS):
        place = copy(prepared["creates"], base / f"undo-{point}")
        a_job = run_job(job(BEFORE, seq=2))
        assert die_at("transaction.before_commit", lambda place=place: open_bench(place), a_job) == EXIT_STATUS
        if die_at(point, lambda place=place: open_bench(place), only_recover) == EXIT_STATUS:
            unreached.discard(point)

    assert unreached - {"config.before_reload", "config.after_reload"} == set()


TRUST_POINTS = [point for point in core_faults.POINTS if point.startswith("trust.")]


@pytest.mark.parametrize("point", TRUST_POINTS)
def test_fault_06_trust_bundle_when_the_executor_dies_is_the_old_or_the_new_one(base: Path, point: str) -> None:
    prepare(base / "node", BEFORE)

    async def take(bench: Bench) -> None:
        bench.executor.answer(SubmitTrust(envelope=signed_bundle(bundle(version=2))))

    assert die_at(point, lambda: open_bench(base / "node"), take) == EXIT_STATUS
    found = open_bench(base / "node").trust.bundle
    assert found is not None
    assert found.version == (2 if point in {"trust.after_rename", "trust.after_sync"} else 1)
    assert die_at(None, lambda: open_bench(base / "node"), take) == 0


def test_fault_05_job_when_its_result_was_written_keeps_its_state(base: Path) -> None:
    """The last commit is the one that counts: after it the job is over, before it nothing of it stands."""
    prepare(base / "node", None)
    a_job = job(BEFORE, seq=2)

    assert die_at("transaction.after_commit", lambda: open_bench(base / "node"), run_job(a_job)) == EXIT_STATUS

    bench = open_bench(base / "node")
    assert bench.result_of(a_job).state is JobState.SUCCEEDED
    assert [row.job_id for row in bench.journal.list_unstored()] == [a_job.job_id]
