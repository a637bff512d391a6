"""Drift: found, reported with a diff, repaired only where the signed policy says so."""

from __future__ import annotations

import msgspec
import pytest

from shared.protocol.job import ACTION_DRIFT, DriftRequest, JobMode, JobState
from shared.protocol.local import DriftFound, RequestDrift
from shared.specs.manifest import NODE_SUBJECT, DriftPolicy, Manifest
from tests.integration.executor.bench import Bench, account, job, manifest, site

CONF = "/etc/site/example.com.conf"


@pytest.fixture
async def bench(tmp_path):
    built = Bench(tmp_path)
    await built.executor.start()
    yield built
    await built.executor.stop(grace_seconds=0.0)
    built.journal.close()


async def check(bench, *subjects):
    bench.executor.answer(RequestDrift(subjects=subjects))
    await bench.settle()
    reports = [frame.report for frame in bench.frames if isinstance(frame, DriftFound)]
    return reports[-1]


async def test_drift_when_nothing_changed_finds_nothing(bench) -> None:
    await bench.run(job(manifest()))

    report = await check(bench)

    assert (report.subjects, report.findings) == (("account/alice",), ())


async def test_drift_when_a_file_was_edited_reports_it_and_leaves_it(bench) -> None:
    await bench.run(job(manifest()))
    bench.host.real(CONF).write_text("by hand")

    report = await check(bench, "account/alice")

    assert [(finding.key, finding.is_repaired) for finding in report.findings] == [("site/example.com", False)]
    assert CONF in report.findings[0].summary
    assert report.findings[0].diff.startswith("+enabled")
    assert bench.host.real(CONF).read_text() == "by hand"


@pytest.mark.parametrize("node_policy", DriftPolicy)
async def test_drift_when_node_and_account_differ_the_nodes_policy_decides(bench, node_policy: DriftPolicy) -> None:
    """The node's manifest comes when the policy changes, an account's only with its next change."""
    stale = DriftPolicy.REPORT if node_policy is DriftPolicy.REPAIR else DriftPolicy.REPAIR
    await bench.run(job(msgspec.structs.replace(manifest(), drift_policy=stale)))
    await bench.run(job(Manifest(subject=NODE_SUBJECT, generation=1, drift_policy=node_policy, specs=()), seq=2))
    bench.host.real(CONF).unlink()

    report = await check(bench, "account/alice")

    is_repaired = node_policy is DriftPolicy.REPAIR
    assert [finding.is_repaired for finding in report.findings] == [is_repaired]
    assert bench.host.real(CONF).exists() == is_repaired


async def test_drift_when_the_policy_says_repair_repairs(bench) -> None:
    await bench.run(job(msgspec.structs.replace(manifest(), drift_policy=DriftPolicy.REPAIR)))
    good = bench.host.snapshot()
    bench.host.real(CONF).unlink()

    report = await check(bench)

    assert [finding.is_repaired for finding in report.findings] == [True]
    assert bench.host.snapshot() == good
    assert (await check(bench)).findings == ()
    assert bench.journal.ledger.find_applied("account/alice").generation == 1


async def test_drift_job_in_plan_mode_changes_nothing_even_with_the_policy(bench) -> None:
    await bench.run(job(msgspec.structs.replace(manifest(), drift_policy=DriftPolicy.REPAIR)))
    bench.host.real(CONF).write_text("by hand")
    request = msgspec.msgpack.encode(DriftRequest(subjects=("account/alice",)))

    result = await bench.run(job(action=ACTION_DRIFT, args=request, mode=JobMode.PLAN, seq=2))

    assert result.state is JobState.SUCCEEDED
    assert [change.target for change in result.changes] == [CONF]
    assert bench.host.real(CONF).read_text() == "by hand"


async def test_drift_when_a_parked_resource_holds_its_old_state_is_none(bench) -> None:
    await bench.run(job(manifest()))
    await bench.run(job(manifest(2, account(), site(text="broken;")), seq=2))

    assert (await check(bench)).findings == ()


async def test_drift_when_the_host_cannot_be_read_says_so(bench) -> None:
    await bench.run(job(manifest()))
    bench.host.path = unreadable

    report = await check(bench)

    assert {finding.key for finding in report.findings} == {"account/alice", "site/example.com"}
    assert all("cannot be compared" in finding.summary for finding in report.findings)


async def unreadable(path: str):
    raise OSError(5, "Input/output error")


async def test_drift_when_the_repair_fails_reports_it_unrepaired(bench) -> None:
    await bench.run(job(msgspec.structs.replace(manifest(), drift_policy=DriftPolicy.REPAIR)))
    bench.host.real(CONF).unlink()
    bench.host._write = refuse

    report = await check(bench)

    assert [finding.is_repaired for finding in report.findings] == [False]


def refuse(real, content) -> None:
    raise OSError(30, "Read-only file system")
