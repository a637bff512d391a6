"""Fault 33 where a simulated node is enough: what hangs is ended with all its children, undone, and stops nobody else."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.contract.actions import ConfigTree
from agent.core.merged_requests import MAX_SUBJECTS, MergedRequests
from agent.core.registry import Registry
from agent.system import config_tree
from agent.system.config_tree import Committer, LiveFile
from agent.system.runner import run
from agent.system.threads import in_thread
from shared.errors import CommandError, ConfigTestError, UnavailableError
from shared.protocol.job import JobState
from tests.faults.node_files_host import MODULE, FilesHost, lay_ground
from tests.integration.executor.bench import Bench, account, job, manifest, pool, site

GRANDCHILD = "sleep 300 & echo $! > {file}; exec sleep 300"
ORPHAN = "sleep 300 & echo $! > {file}; exit 0"
IGNORES_TERM = "trap '' TERM INT HUP; echo $$ > {file}; while :; do sleep 300; done"


async def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Dead, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("script", [GRANDCHILD, ORPHAN, IGNORES_TERM], ids=["grandchild", "orphan", "ignores-term"])
async def test_fault_33_program_when_its_time_is_up_is_ended_with_its_children(tmp_path: Path, script: str) -> None:
    """An orphan that holds the output open is a child, too: its parent has ended long ago."""
    noted = tmp_path / "pid"

    with pytest.raises(CommandError) as caught:
        await run(("/bin/sh", "-c", script.format(file=noted)), timeout_seconds=0.5)

    assert caught.value.exit_code == 124
    await wait_until(lambda: is_gone(int(noted.read_text())))


async def test_fault_33_program_when_its_job_is_cancelled_is_ended_with_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    task = asyncio.create_task(run(("/bin/sh", "-c", GRANDCHILD.format(file=noted)), timeout_seconds=60))
    await wait_until(lambda: noted.exists() and bool(noted.read_text().strip()))

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await wait_until(lambda: is_gone(int(noted.read_text())))


async def test_fault_33_thread_when_its_caller_is_cancelled_is_waited_for() -> None:
    """Or an undo would race with the write that it undoes."""
    has_begun, may_end, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        has_begun.set()
        may_end.wait(20)
        ended.append(True)

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(has_begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


# --- a validator that never ends ------------------------------------------------------------------------------------------

HANGS = '#!/bin/sh\ngrep -qs hang "$1" && exec sleep 300\n! grep -qs broken "$1"\n'


def live_file(content: str) -> LiveFile:
    return LiveFile(content=content.encode(), uid=os.geteuid(), gid=os.getegid(), mode=0o644)


def make_committer(tmp_path: Path, reloads: list[str]) -> Committer:
    (tmp_path / "live").mkdir()
    script = tmp_path / "validator"
    script.write_text(HANGS)
    script.chmod(0o755)
    tree = ConfigTree(
        name="web", live_dir=str(tmp_path / "live"), validator=(str(script), "{file}"), reload_unit="web.service"
    )

    async def reload_unit(unit: str) -> None:
        reloads.append(unit)

    return Committer(tree, stage_root=tmp_path / "stage", reload_unit=reload_unit, validator_seconds=1.0)


async def test_fault_33_publication_when_the_validator_hangs_at_one_fails_alone(tmp_path: Path) -> None:
    committer = make_committer(tmp_path, [])
    contents = ["a", "b", "hang", "d"]

    outcomes = await asyncio.gather(
        *(
            committer.publish({f"{tmp_path}/live/{number}.conf": live_file(content)})
            for number, content in enumerate(contents)
        ),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), ConfigTestError, type(None)]
    assert isinstance(outcomes[2], ConfigTestError)
    assert outcomes[2].code == "config_test_timeout"
    assert sorted(path.name for path in (tmp_path / "live").iterdir()) == ["0.conf", "1.conf", "3.conf"]


async def test_fault_33_publication_when_its_batch_has_no_time_left_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many hang: a batch is over before an undo that waits for it would be given up."""
    monkeypatch.setattr(config_tree, "BATCH_SECONDS", 2.5)
    committer = make_committer(tmp_path, [])

    outcomes = await asyncio.gather(
        *(committer.publish({f"{tmp_path}/live/{number}.conf": live_file("hang")}) for number in range(12)),
        return_exceptions=True,
    )

    assert {getattr(outcome, "code", None) for outcome in outcomes} == {"config_test_timeout"}
    assert list((tmp_path / "live").iterdir()) == []


async def test_fault_33_undo_when_a_validator_hangs_for_others_is_not_tested(tmp_path: Path) -> None:
    """What is live already waits for nobody's test but the one that runs."""
    reloads: list[str] = []
    committer = make_committer(tmp_path, reloads)
    await committer.publish({f"{tmp_path}/live/a.conf": live_file("a")})
    ended: list[str] = []

    async def publish(name: str, content: str) -> None:
        try:
            await committer.publish({f"{tmp_path}/live/{name}.conf": live_file(content)})
        except ConfigTestError:
            ended.append(f"{name} refused")
        else:
            ended.append(name)

    await asyncio.gather(publish("b", "hang"), publish("a", "a"))

    assert ended == ["a", "b refused"]
    assert len(reloads) == 1, "the service has read it already"


async def test_fault_33_publication_when_nobody_waits_for_it_any_more_does_not_go_live(tmp_path: Path) -> None:
    committer = make_committer(tmp_path, [])
    task = asyncio.create_task(committer.publish({f"{tmp_path}/live/a.conf": live_file("hang")}))
    await wait_until((tmp_path / "stage/web/live/a.conf").exists)
    # The validator would say yes: it is the job's own time that is up.
    (tmp_path / "validator").write_text("#!/bin/sh\nexit 0\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await committer.publish({f"{tmp_path}/live/b.conf": live_file("b")})

    assert [path.name for path in (tmp_path / "live").iterdir()] == ["b.conf"]


# --- jobs -----------------------------------------------------------------------------------------------------------------


class HangingHost(FilesHost):
    """Hangs in every action about one name, and in undo until it is told to go on."""

    def __init__(self, base: Path, word: str) -> None:
        super().__init__(base)
        self.word = word
        self.failing_undos = 0

    async def apply(self, action) -> None:
        if self.word in action.target:
            await asyncio.Event().wait()
        await super().apply(action)

    async def undo(self, action, record) -> None:
        if self.failing_undos:
            self.failing_undos -= 1
            raise UnavailableError("the bus does not answer", code="systemd_unavailable")
        await super().undo(action, record)


async def open_bench(base: Path, word: str) -> Bench:
    lay_ground(base)
    bench = Bench(base, host=HangingHost(base, word), registry=Registry([MODULE]))
    await bench.executor.start()
    return bench


async def test_fault_33_job_when_its_time_is_up_is_undone_and_the_lane_goes_on(tmp_path: Path) -> None:
    bench = await open_bench(tmp_path, "alice-8.2")
    before = bench.host.snapshot()
    hung = job(manifest(1, account(), pool()), seq=1, max_runtime_seconds=1)
    other = job(manifest(1, account("bob", 20_002), subject="account/bob"), seq=2)
    behind = job(manifest(2, account(), site("fast.test")), seq=3)

    for a_job in (hung, other, behind):
        bench.submit(a_job)
    await bench.wait_until(lambda: bench.journal.find_job(other.job_id).state is JobState.SUCCEEDED)
    assert bench.journal.find_job(hung.job_id).state is JobState.STARTED
    await bench.settle()

    result = bench.result_of(hung)
    assert (result.state, result.error.code, result.is_rolled_back) == (JobState.FAILED, "timeout", True)
    assert bench.result_of(behind).state is JobState.SUCCEEDED
    assert bench.host.snapshot()["etc/pools/alice-8.2"] == before["etc/pools/alice-8.2"]
    assert not bench.journal.quarantine
    bench.journal.close()


async def test_fault_33_undo_when_the_bus_is_away_for_a_while_is_tried_again(tmp_path: Path) -> None:
    """A restart of the bus or of systemd must not quarantine the node."""
    bench = await open_bench(tmp_path, "alice-8.2")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    bench.open()
    object.__setattr__(bench.node, "pause", pause)
    before = bench.host.snapshot()
    bench.host.failing_undos = 3

    result = await bench.run(job(manifest(1, account(), pool()), max_runtime_seconds=1))

    assert result.error.code == "timeout"
    assert pauses == [1.0, 2.0, 5.0]
    assert bench.host.snapshot() == before
    assert not bench.journal.quarantine
    bench.journal.close()


async def test_fault_32_requests_when_they_flood_become_two_looks() -> None:
    looks: list[tuple[tuple[str, ...], bool]] = []
    may_go, tasks = asyncio.Event(), []

    async def look(subjects: tuple[str, ...], may_repair: bool) -> None:
        looks.append((subjects, may_repair))
        await may_go.wait()

    requests = MergedRequests(look, lambda work: tasks.append(asyncio.ensure_future(work)))
    requests.add(["first"])
    await asyncio.sleep(0)
    for number in range(5000):
        requests.add([f"account/{number % 3}"], may_repair=number != 7)
    may_go.set()
    await asyncio.gather(*tasks)
    requests.add([f"account/{number}" for number in range(MAX_SUBJECTS + 1)])
    await asyncio.gather(*tasks)

    assert looks == [(("first",), True), (("account/0", "account/1", "account/2"), False), ((), True)]
