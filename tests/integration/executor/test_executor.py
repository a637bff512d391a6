"""The whole root side without a socket: jobs in, a changed folder and results out."""

from __future__ import annotations

import asyncio

import pytest

from agent.contract import actions
from agent.core.identity import TrustStore
from shared.protocol.job import ACTION_NOOP, JobMode, JobState, ResourceOutcome
from shared.protocol.local import CancelLocal, JobFinished, JobProgress, RequestStatus, ResultStored, SubmitTrust
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from tests.integration.executor.bench import (
    NOW,
    Bench,
    DiskHost,
    account,
    bundle,
    identity,
    job,
    key_of,
    manifest,
    pool,
    signed_bundle,
    site,
)


@pytest.fixture
async def bench(tmp_path):
    built = Bench(tmp_path)
    await built.executor.start()
    yield built
    await built.executor.stop(grace_seconds=0.0)
    built.journal.close()


class PausingHost(DiskHost):
    """Stops before it applies an action whose target holds a word, until it is told to go on."""

    def __init__(self, root, word: str) -> None:
        super().__init__(root)
        self.word = word
        self.has_reached = asyncio.Event()
        self.may_go = asyncio.Event()

    async def apply(self, action) -> None:
        if self.word in action.target:
            self.has_reached.set()
            await self.may_go.wait()
        await super().apply(action)


# --- a change ---------------------------------------------------------------------------------------------------------


async def test_converge_when_new_applies_verifies_and_explains(bench) -> None:
    result = await bench.run(job(manifest()))

    assert result.state is JobState.SUCCEEDED
    assert bench.outcomes(result) == {"account/alice": "changed", "site/example.com": "changed"}
    assert [(change.action, change.kind.value) for change in result.changes] == [
        ("ensure_directory", "create"),
        ("write_file", "create"),
    ] * 2
    assert all(change.undo and change.reason for change in result.changes)
    assert [proof.resource for proof in result.proofs] == ["account/alice", "site/example.com"]
    assert bench.journal.ledger.list_transactions() == []


async def test_converge_when_repeated_changes_nothing(bench) -> None:
    await bench.run(job(manifest()))
    bench.host.applied.clear()

    result = await bench.run(job(manifest(), seq=2))

    assert result.state is JobState.SUCCEEDED
    assert set(bench.outcomes(result).values()) == {"unchanged"}
    assert bench.host.applied == []


async def test_converge_when_a_site_is_dropped_removes_it(bench) -> None:
    await bench.run(job(manifest(1, account(), site(), site("b.example.com"))))

    result = await bench.run(job(manifest(2, account(), site()), seq=2))

    assert bench.outcomes(result)["site/b.example.com"] == "removed"
    assert not any("b.example.com" in path for path in bench.host.snapshot())


async def test_converge_when_suspended_passes_disabled_to_everything_and_back_restores(bench) -> None:
    specs = (account(), pool(), site(php="8.2"))
    await bench.run(job(manifest(1, *specs)))
    before = bench.host.snapshot()

    await bench.run(job(manifest(2, *specs, presence=Presence.DISABLED), seq=2))
    suspended = bench.host.snapshot()
    await bench.run(job(manifest(3, *specs), seq=3))

    assert all(text.startswith("disabled") for path, text in suspended.items() if path.endswith(".conf"))
    assert bench.host.snapshot() == before


async def test_converge_when_absent_removes_all_and_the_name_can_be_given_anew(bench) -> None:
    await bench.run(job(manifest(5)))
    gone = await bench.run(job(manifest(6, presence=Presence.ABSENT), seq=2))

    assert set(bench.outcomes(gone).values()) == {"removed"}
    assert not any("alice" in path for path in bench.host.snapshot())

    anew = await bench.run(job(manifest(1, account(uid=20_007), site(uid=20_007)), seq=3))
    assert anew.state is JobState.SUCCEEDED


async def test_converge_when_absent_runs_what_cannot_be_undone_last(bench) -> None:
    await bench.run(job(manifest()))
    bench.host.applied.clear()

    result = await bench.run(job(manifest(2, presence=Presence.ABSENT), seq=2))

    assert bench.host.applied == [
        "/etc/site/example.com.conf",
        "/etc/account/alice.conf",
        "/srv/site/example.com",
        "/srv/account/alice",
    ]
    assert [change.is_irreversible for change in result.changes] == [False, True, False, True]


async def test_converge_when_the_modules_of_the_node_are_asked_applies_them(bench) -> None:
    result = await bench.run(job(manifest(1, ModuleSpec(name="bench"), subject="node")))

    assert bench.outcomes(result) == {"module/bench": "changed"}


# --- what fails -------------------------------------------------------------------------------------------------------


async def test_converge_when_a_site_is_refused_parks_it_with_the_validators_words(bench) -> None:
    bad = site("bad.example.com", text="broken;")

    result = await bench.run(job(manifest(1, account(), bad, site())))

    assert result.state is JobState.FAILED
    assert not result.is_rolled_back
    assert result.error is not None
    assert result.error.code == "resources_parked"
    report = next(report for report in result.resources if report.key == "site/bad.example.com")
    assert report.outcome is ResourceOutcome.PARKED
    assert report.error is not None
    assert (report.error.code, report.error.message) == ("config_refused", 'unknown directive "broken" in site.conf:3')
    assert bench.outcomes(result)["site/example.com"] == "changed"
    assert not any("bad.example.com" in path for path in bench.host.snapshot())


async def test_converge_when_a_change_is_refused_the_old_keeps_serving_and_the_next_goes_through(bench) -> None:
    await bench.run(job(manifest()))
    good = bench.host.snapshot()

    await bench.run(job(manifest(2, account(), site(text="broken;")), seq=2))
    assert bench.host.snapshot() == good
    held = await bench.run(job(manifest(3, account(), site("c.example.com"), held=("site/example.com",)), seq=3))

    assert held.state is JobState.SUCCEEDED
    assert bench.outcomes(held)["site/example.com"] == "held"
    assert bench.journal.ledger.holdings("account/alice")["site/example.com"].spec == site()


async def test_converge_when_verification_fails_parks_and_undoes(bench) -> None:
    result = await bench.run(job(manifest(1, account(), site(text="unverifiable;"))))

    assert bench.outcomes(result) == {"account/alice": "changed", "site/example.com": "parked"}
    assert not any("example.com" in path for path in bench.host.snapshot())


async def test_converge_when_a_module_has_a_bug_parks_only_that_resource(tmp_path) -> None:
    class Buggy(DiskHost):
        async def path(self, path):
            if "bug.example.com" in path:
                raise KeyError("surprise")
            return await super().path(path)

    bench = Bench(tmp_path, host=Buggy(tmp_path / "host"))
    result = await bench.run(job(manifest(1, account(), site("bug.example.com"), site())))

    assert bench.outcomes(result) == {
        "account/alice": "changed",
        "site/bug.example.com": "parked",
        "site/example.com": "changed",
    }
    assert next(r for r in result.resources if r.error).error.code == "bug"


async def test_converge_when_the_account_fails_unwinds_everything(tmp_path) -> None:
    class NoUsers(DiskHost):
        async def apply(self, action) -> None:
            if action.target == "/etc/account/alice.conf":
                raise OSError(28, "No space left on device")
            await super().apply(action)

    bench = Bench(tmp_path, host=NoUsers(tmp_path / "host"))
    result = await bench.run(job(manifest()))

    assert (result.state, result.is_rolled_back) == (JobState.FAILED, True)
    assert result.error is not None
    assert result.error.context["step"] == "write_file /etc/account/alice.conf"
    assert not any("alice" in path for path in bench.host.snapshot())
    assert bench.journal.ledger.find_applied("account/alice") is None


async def test_converge_when_the_pool_fails_parks_its_sites_and_keeps_the_old_pool(bench) -> None:
    await bench.run(job(manifest(1, account(), pool(), site(php="8.2"))))
    before = bench.host.snapshot()
    bad_pool = pool(version="8.4")
    bench.host._write = fail_for("8.4", bench.host._write)

    result = await bench.run(job(manifest(2, account(), bad_pool, site(php="8.4")), seq=2))

    assert bench.outcomes(result) == {
        "account/alice": "unchanged",
        "php_pool/alice-8.4": "parked",
        "site/example.com": "parked",
        "php_pool/alice-8.2": "held",
    }
    assert bench.host.snapshot() == before


def fail_for(word: str, write):
    def wrapped(real, content) -> None:
        if word in str(real):
            raise OSError("no such version")
        write(real, content)

    return wrapped


async def test_converge_when_another_account_has_the_site_parks_it(bench) -> None:
    await bench.run(job(manifest()))
    bobs = (account("bob", 20_002), site(name="bob", uid=20_002))

    result = await bench.run(job(manifest(1, *bobs, subject="account/bob"), seq=2))

    assert bench.outcomes(result) == {"account/bob": "changed", "site/example.com": "parked"}
    assert result.resources[1].error is not None
    assert result.resources[1].error.code == "resource_taken"


async def test_converge_when_removal_for_good_fails_stays_on_the_books(tmp_path) -> None:
    class Busy(DiskHost):
        is_busy = True

        async def apply(self, action) -> None:
            if self.is_busy and isinstance(action, actions.RemoveTree) and "alice" in action.path:
                raise OSError(16, "Device or resource busy")
            await super().apply(action)

    host = Busy(tmp_path / "host")
    bench = Bench(tmp_path, host=host)
    await bench.run(job(manifest()))
    gone = manifest(2, presence=Presence.ABSENT)

    result = await bench.run(job(gone, seq=2))
    assert (result.state, result.is_rolled_back) == (JobState.FAILED, False)
    assert bench.outcomes(result) == {"site/example.com": "removed", "account/alice": "parked"}

    host.is_busy = False
    again = await bench.run(job(gone, seq=3))
    assert again.state is JobState.SUCCEEDED
    assert not any("alice" in path for path in host.snapshot())


async def test_converge_when_an_undo_fails_quarantines_until_cleared(bench) -> None:
    bench.host.failing_undo = "example.com"
    a_job = job(manifest(1, account(), site(text="unverifiable;")))

    result = await bench.run(a_job)
    refused = bench.submit(job(manifest(2), seq=2))

    assert (result.state, result.is_rolled_back) == (JobState.FAILED, False)
    assert result.error is not None
    assert result.error.code == "rollback_failed"
    assert refused.state is JobState.REFUSED
    assert refused.error is not None
    assert refused.error.code == "quarantined"
    assert "could not be undone" in bench.executor.answer(RequestStatus())[0].quarantine

    bench.journal.clear_quarantine()
    bench.host.failing_undo = None
    assert (await bench.run(job(manifest(3), seq=3))).state is JobState.SUCCEEDED


async def test_quarantine_when_the_executor_restarts_stays(bench) -> None:
    bench.host.failing_undo = "example.com"
    await bench.run(job(manifest(1, account(), site(text="unverifiable;"))))
    bench.journal.close()

    bench.open()
    await bench.executor.start()

    assert bench.submit(job(manifest(2), seq=2)).error.code == "quarantined"


# --- delivery ---------------------------------------------------------------------------------------------------------


async def test_submit_when_delivered_ten_times_has_one_effect_and_one_result(bench) -> None:
    a_job = job(manifest())
    for _ in range(5):
        bench.submit(a_job)
    await bench.settle()
    first = bench.result_of(a_job)
    bench.journal.close()
    bench.open()
    await bench.executor.start()
    answers = [bench.submit(a_job) for _ in range(5)]
    await bench.settle()

    assert {answer.state for answer in answers} == {JobState.SUCCEEDED}
    assert bench.host.applied.count("/etc/account/alice.conf") == 1
    assert all(frame.result == first for frame in bench.finished(a_job))


async def test_submit_when_generations_arrive_in_the_wrong_order_refuses_the_older(bench) -> None:
    newer, older = job(manifest(7), seq=2), job(manifest(6, account()), seq=1)

    bench.submit(newer)
    early = bench.submit(older)
    await bench.settle()
    late = bench.submit(job(manifest(5, account()), seq=3))

    assert (early.state, early.error.code) == (JobState.REFUSED, "stale_generation")
    assert (late.state, late.error.code) == (JobState.REFUSED, "stale_generation")
    assert bench.journal.ledger.find_applied("account/alice").generation == 7


async def test_submit_when_refused_is_refused_again_in_the_same_words(bench) -> None:
    a_job = job(manifest(), not_before=NOW, expires_at=NOW + 1)
    bench.clock = NOW + 500

    first, second = bench.submit(a_job), bench.submit(a_job)

    assert first.error.code == "expired"
    assert second == first
    assert bench.finished(a_job) == []


async def test_submit_when_replayed_after_it_was_forgotten_refuses(bench) -> None:
    a_job = job(manifest())
    await bench.run(a_job)
    bench.executor.answer(ResultStored(job_id=a_job.job_id))
    bench.clock = NOW + 4000
    bench.journal.prune(now=bench.clock)

    replayed = bench.submit(a_job)

    assert replayed.state is JobState.REFUSED
    assert replayed.error.code == "expired"


async def test_submit_when_our_clock_was_set_back_still_refuses_the_expired(bench) -> None:
    await bench.run(job(manifest(), issued_at=NOW, seq=1))
    old = job(manifest(2), seq=2, issued_at=NOW - 9000, not_before=NOW - 9000, expires_at=NOW - 5400)
    bench.clock = NOW - 7200

    assert bench.submit(old).error.code == "expired"


async def test_submit_when_the_signature_is_foreign_leaves_no_trace(bench) -> None:
    refused = bench.submit(job(manifest()), key=key_of("mallory"))

    assert refused.error.code == "bad_signature"
    assert refused.job_id == ""
    assert bench.journal.last_seq == 0


async def test_submit_when_it_is_for_another_node_names_the_job_and_leaves_no_trace(bench) -> None:
    a_job = job(manifest(), node_id="node-2")

    refused = bench.submit(a_job)

    assert (refused.job_id, refused.seq, refused.error.code) == (a_job.job_id, 1, "wrong_node")
    assert bench.journal.find_job(a_job.job_id) is None


async def test_submit_when_the_number_is_another_jobs_refuses_without_a_trace(bench) -> None:
    bench.submit(job(manifest(), seq=1))
    second = job(manifest(2), seq=1)

    assert bench.submit(second).error.code == "seq_reused"
    assert bench.journal.find_job(second.job_id) is None
    await bench.settle()


async def test_results_when_not_stored_are_offered_to_each_new_listener(bench) -> None:
    a_job = job(manifest())
    await bench.run(a_job)
    seen: list = []

    bench.executor.subscribe(seen.append)
    bench.executor.answer(ResultStored(job_id=a_job.job_id))
    later: list = []
    bench.executor.subscribe(later.append)

    assert [type(frame) for frame in seen] == [JobFinished]
    assert later == []


async def test_noop_when_asked_succeeds(bench) -> None:
    result = await bench.run(job(action=ACTION_NOOP))

    assert result.state is JobState.SUCCEEDED


async def test_trust_when_newer_is_believed_also_after_a_restart(bench) -> None:
    taken = bench.executor.answer(SubmitTrust(envelope=signed_bundle(bundle(version=2))))[0]
    stale = bench.executor.answer(SubmitTrust(envelope=signed_bundle(bundle(version=2))))[0]
    forged = bench.executor.answer(SubmitTrust(envelope=signed_bundle(bundle(version=3), key_of("mallory"))))[0]
    bench.journal.close()
    bench.open()

    assert (taken.version, taken.error) == (2, None)
    assert (stale.version, stale.error.code) == (2, "stale_bundle")
    assert (forged.version, forged.error.code) == (2, "bad_signature")
    assert bench.trust.bundle.version == 2


async def test_trust_when_the_file_was_tampered_with_is_as_good_as_none(bench) -> None:
    path = bench.state_dir / "trust.bundle"
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")

    assert TrustStore(bench.state_dir, identity().public_root_keys()).bundle is None


# --- dry run ----------------------------------------------------------------------------------------------------------


async def test_plan_mode_when_new_reports_everything_and_touches_nothing(bench) -> None:
    result = await bench.run(job(manifest(), mode=JobMode.PLAN))

    assert result.state is JobState.SUCCEEDED
    assert [change.target for change in result.changes] == [
        "/srv/account/alice",
        "/etc/account/alice.conf",
        "/srv/site/example.com",
        "/etc/site/example.com.conf",
    ]
    assert result.changes[1].diff.startswith("+enabled")
    assert bench.host.snapshot() == {}
    assert (bench.host.captured, bench.host.applied) == ([], [])
    assert bench.journal.ledger.find_applied("account/alice") is None
    assert bench.journal.ledger.list_transactions() == []


async def test_plan_mode_when_the_same_generation_comes_for_real_applies(bench) -> None:
    await bench.run(job(manifest(1, account()), mode=JobMode.PLAN))

    assert (await bench.run(job(manifest(1), seq=2))).state is JobState.SUCCEEDED


async def test_plan_mode_when_removing_names_what_cannot_be_undone(bench) -> None:
    await bench.run(job(manifest()))
    before = bench.host.snapshot()

    result = await bench.run(job(manifest(2, presence=Presence.ABSENT), seq=2, mode=JobMode.PLAN))

    assert [change.target for change in result.changes if change.is_irreversible] == [
        "/srv/site/example.com",
        "/srv/account/alice",
    ]
    assert bench.host.snapshot() == before


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_cancel_when_running_undoes_between_two_steps(tmp_path) -> None:
    host = PausingHost(tmp_path / "host", "/srv/site")
    bench = Bench(tmp_path, host=host)
    a_job = job(manifest())
    bench.submit(a_job)
    await host.has_reached.wait()

    bench.executor.answer(CancelLocal(job_id=a_job.job_id))
    host.may_go.set()
    await bench.settle()

    result = bench.result_of(a_job)
    assert (result.state, result.is_rolled_back) == (JobState.CANCELLED, True)
    assert not any("alice" in path or "example" in path for path in host.snapshot())


async def test_cancel_when_waiting_ends_at_once_and_frees_the_lane(tmp_path) -> None:
    host = PausingHost(tmp_path / "host", "/srv/site")
    bench = Bench(tmp_path, host=host)
    first, second, third = (job(manifest(n), seq=n) for n in (1, 2, 3))
    for a_job in (first, second, third):
        bench.submit(a_job)
    await host.has_reached.wait()

    bench.executor.answer(CancelLocal(job_id=second.job_id))
    assert bench.result_of(second).state is JobState.CANCELLED
    host.may_go.set()
    await bench.settle()

    assert bench.result_of(third).state is JobState.SUCCEEDED
    assert bench.journal.ledger.find_applied("account/alice").generation == 3


async def test_cancel_when_finished_answers_with_the_real_result(bench) -> None:
    a_job = job(manifest())
    await bench.run(a_job)

    answers = bench.executor.answer(CancelLocal(job_id=a_job.job_id))

    assert answers == (JobFinished(result=bench.result_of(a_job)),)
    assert bench.executor.answer(CancelLocal(job_id="unknown")) == ()


async def test_converge_when_time_is_up_undoes_and_frees_the_lane(tmp_path) -> None:
    host = PausingHost(tmp_path / "host", "/srv/site")
    bench = Bench(tmp_path, host=host)
    hung = job(manifest(), max_runtime_seconds=1)

    result = await bench.run(hung)
    host.may_go.set()
    after = await bench.run(job(manifest(2), seq=2))

    assert (result.state, result.is_rolled_back) == (JobState.FAILED, True)
    assert result.error.code == "timeout"
    assert after.state is JobState.SUCCEEDED


async def test_converge_when_a_neighbour_hangs_goes_on(tmp_path) -> None:
    host = PausingHost(tmp_path / "host", "alice")
    bench = Bench(tmp_path, host=host)
    bench.submit(job(manifest()))
    await host.has_reached.wait()
    bobs = job(manifest(1, account("bob", 20_002), subject="account/bob"), seq=2)

    bench.submit(bobs)
    await bench.wait_until(lambda: bench.finished(bobs))

    assert bench.finished(bobs)[0].result.state is JobState.SUCCEEDED
    host.may_go.set()
    await bench.settle()


async def test_progress_when_a_job_has_many_steps_is_thinned_out(bench) -> None:
    many = [site(f"s{number}.example.com") for number in range(40)]

    await bench.run(job(manifest(1, account(), *many)))

    progress = [frame for frame in bench.frames if isinstance(frame, JobProgress)]
    assert 1 <= len(progress) <= 20
    assert (progress[0].number, progress[0].done, progress[0].total) == (1, 0, 41)
