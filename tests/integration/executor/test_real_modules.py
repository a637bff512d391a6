"""The real modules under the real executor, over a host in memory: a site's whole life, and a death at every action."""

from __future__ import annotations

import pytest

from agent.bootstrap import build_registry
from agent.core.recovery import recover
from agent.simulator.host import MemoryHost
from agent.simulator.host_faults import SimulatedCrash
from shared.protocol.job import JobMode, JobState
from shared.protocol.local import DriftFound, RequestDrift
from shared.specs.account import MIB, AccountSpec, ResourceLimits
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from tests.integration.executor.bench import UID, Bench, job, manifest, pool, site

LIMITS = ResourceLimits(cpu_percent=50, memory_bytes=256 * MIB, processes_max=50, disk_bytes=100 * MIB)
SPECS = (AccountSpec(name="alice", uid=UID, limits=LIMITS), pool(), site(php="8.2"))
NODE_MANIFEST = manifest(1, *(ModuleSpec(name=name) for name in ("account", "php", "web")), subject="node")
CONF = "/etc/nginx/wcp360/sites/example.com.conf"


async def prepared(tmp_path) -> Bench:
    registry = build_registry()
    host = MemoryHost(config_trees=tuple(registry.config_trees.values()))
    bench = Bench(tmp_path, host=host, registry=registry)
    await bench.executor.start()
    result = await bench.run(job(NODE_MANIFEST, seq=1))
    assert result.state is JobState.SUCCEEDED, result.error
    return bench


async def test_life_of_a_site_when_nothing_goes_wrong_leaves_the_host_as_it_was(tmp_path) -> None:
    bench = await prepared(tmp_path)
    empty = bench.host.snapshot()

    planned = await bench.run(job(manifest(1, *SPECS), seq=2, mode=JobMode.PLAN))
    assert bench.host.snapshot() == empty
    created = await bench.run(job(manifest(1, *SPECS), seq=3))
    serving = bench.host.snapshot()
    repeated = await bench.run(job(manifest(1, *SPECS), seq=4))
    suspended = await bench.run(job(manifest(2, *SPECS, presence=Presence.DISABLED), seq=5))
    answer = await bench.host.http_get(host_name="example.com", path="/")
    back = await bench.run(job(manifest(3, *SPECS), seq=6))
    restored = bench.host.snapshot()
    gone = await bench.run(job(manifest(4, presence=Presence.ABSENT), seq=7))

    results = (planned, created, repeated, suspended, back, gone)
    assert [result.state for result in results] == [JobState.SUCCEEDED] * len(results)
    assert [change.target for change in planned.changes] == [change.target for change in created.changes]
    assert {proof.limit for proof in created.proofs} >= {"cpu_percent", "memory_bytes", "processes_max", "disk_bytes"}
    assert "nginx.service" in created.reloads
    assert set(bench.outcomes(repeated).values()) == {"unchanged"}
    assert answer is not None
    assert answer.status == 503
    assert (restored.users, restored.paths) == (serving.users, serving.paths)
    left = bench.host.snapshot()
    assert (left.users, left.homes) == (empty.users, empty.homes)
    assert not [path for path in left.paths if "alice" in path or "example.com" in path]
    bench.journal.close()


async def test_drift_when_a_vhost_was_edited_shows_the_difference(tmp_path) -> None:
    bench = await prepared(tmp_path)
    await bench.run(job(manifest(1, *SPECS), seq=2))
    bench.host.put_file(CONF, "# by hand\n")

    bench.executor.answer(RequestDrift(subjects=("account/alice",)))
    await bench.settle()

    report = next(frame.report for frame in bench.frames if isinstance(frame, DriftFound))
    assert [finding.key for finding in report.findings] == ["site/example.com"]
    assert "-# by hand" in report.findings[0].diff
    bench.journal.close()


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("scenario", ["creates", "suspends", "removes"])
async def test_crash_when_it_hits_any_action_is_undone_or_carried_on(tmp_path, scenario, is_after) -> None:
    asked = {
        "creates": manifest(1, *SPECS),
        "suspends": manifest(2, *SPECS, presence=Presence.DISABLED),
        "removes": manifest(2, presence=Presence.ABSENT),
    }[scenario]

    for number in range(100):
        (tmp_path / str(number)).mkdir()
        bench = await prepared(tmp_path / str(number))
        if scenario != "creates":
            await bench.run(job(manifest(1, *SPECS), seq=2))
        done_before = len(bench.host.applied)
        before = bench.host.snapshot()
        a_job = job(asked, seq=3)
        bench.host.crash_at(done_before + number, is_after=is_after)

        bench.submit(a_job)
        with_task = next(iter(bench.executor._tasks.values()))
        try:
            await with_task
        except SimulatedCrash:
            bench.die()
        else:
            bench.journal.close()
            assert number > 3
            return
        bench.open()
        await recover(bench.node)
        assert bench.journal.ledger.list_transactions() == []
        if scenario != "removes" or "alice" in bench.host.state.users:
            assert bench.host.snapshot().paths == before.paths, number
            assert bench.host.snapshot().users == before.users, number
            assert bench.host.snapshot().units == before.units, number
            assert bench.host.snapshot().slices == before.slices, number
        else:
            assert CONF not in bench.host.state.paths
            assert bench.host.state.homes == {}
        await bench.executor.start()
        await bench.settle()
        assert bench.result_of(a_job).state is JobState.SUCCEEDED, number
        assert not bench.journal.quarantine
        bench.journal.close()
    pytest.fail("the plan never ends")
