"""Canary, waves, automatic halt: with both kinds of change, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.models import NodeModule, NodeState
from controller.fleet.rollouts.models import RolloutKind, RolloutNode, RolloutNodeState, RolloutState
from controller.jobs.holds import HoldKind, NodeHold
from controller.jobs.models import Job
from controller.jobs.states import JobState
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.protocol.update import UpdateState
from shared.specs.base import Presence
from tests.integration.fleet.bench import FleetBench
from tests.integration.fleet.rollout_bench import RolloutBench

SENT, FAILED, WAITING = RolloutNodeState.SENT, RolloutNodeState.FAILED, RolloutNodeState.WAITING


@pytest.fixture
def rollouts(still_bench: FleetBench) -> RolloutBench:
    return RolloutBench(still_bench)


async def test_rollout_when_all_goes_well_takes_one_node_then_more_then_the_rest(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(40)
    release = await rollouts.release()
    rollout = await rollouts.begin()

    sizes = []
    for _ in range(4):
        await rollouts.turn(seconds=61)
        sizes.append(await rollouts.succeed_all(rollout, release.build))
        await rollouts.turn()
    await rollouts.turn()

    assert sizes == [1, 1, 6, 32]
    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED
    assert await rollouts.counts(rollout) == {"succeeded": 40}
    assert [action for action in await rollouts.actions() if action.startswith("rollout")] == [
        "rollout.create", "rollout.finish",
    ]  # fmt: skip


async def test_rollout_when_the_soak_is_not_over_does_not_begin_the_next_wave(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    release = await rollouts.release()
    rollout = await rollouts.begin(waves=["1"])
    await rollouts.turn()
    await rollouts.succeed_all(rollout, release.build)
    await rollouts.turn()

    await rollouts.turn(seconds=30)

    assert await rollouts.counts(rollout) == {"succeeded": 1, "waiting": 2}
    assert "the next wave begins" in (await rollouts.rollout(rollout)).blocked_by
    await rollouts.turn(seconds=31)
    assert await rollouts.counts(rollout) == {"succeeded": 1, "sent": 2}


async def test_rollout_when_the_canary_goes_back_halts_and_touches_nobody_else(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(10)
    await rollouts.release()
    rollout = await rollouts.begin(soak_seconds=0)
    await rollouts.turn()
    (canary,) = await rollouts.nodes(rollout, SENT)
    await rollouts.report(canary, UpdateState.ROLLED_BACK)

    await rollouts.turn()
    await rollouts.turn(seconds=3600)

    halted = await rollouts.rollout(rollout)
    assert halted.state is RolloutState.HALTED
    assert "because of update_failed" in halted.blocked_by
    assert await rollouts.counts(rollout) == {"failed": 1, "waiting": 9}
    assert "rollout.halt" in await rollouts.actions()
    assert ("rollouts", "rollout.changed") in [(topic, event) for topic, event, _ in rollouts.bench.ear.heard]


async def test_rollout_when_a_node_does_not_answer_counts_it_as_failed(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    await rollouts.release()
    rollout = await rollouts.begin(node_timeout_seconds=600)
    await rollouts.turn()

    await rollouts.turn(seconds=601)

    assert (await rollouts.rollout(rollout)).state is RolloutState.HALTED
    (failed,) = await rollouts.nodes(rollout, FAILED)
    assert failed.error_code == "timeout"


async def test_rollout_when_a_node_is_lost_after_the_change_waits_and_then_halts(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    release = await rollouts.release()
    rollout = await rollouts.begin(soak_seconds=0, node_timeout_seconds=600)
    await rollouts.turn()
    (canary,) = await rollouts.nodes(rollout, SENT)
    await rollouts.succeed_all(rollout, release.build)
    await rollouts.set_node(canary.node_id, is_connected=False)

    await rollouts.turn()
    assert "not connected since the change" in (await rollouts.rollout(rollout)).blocked_by
    await rollouts.turn(seconds=601)

    assert (await rollouts.rollout(rollout)).state is RolloutState.HALTED
    assert (await rollouts.nodes(rollout, FAILED))[0].error_code == "node_lost"


async def test_rollout_when_failures_are_allowed_goes_on_until_one_more(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(4)
    await rollouts.release()
    rollout = await rollouts.begin(waves=["2"], max_failures=1, soak_seconds=0)
    await rollouts.turn()
    first, second = await rollouts.nodes(rollout, SENT)
    await rollouts.report(first, UpdateState.REFUSED)
    await rollouts.turn()
    assert (await rollouts.rollout(rollout)).state is RolloutState.RUNNING

    await rollouts.report(second, UpdateState.REFUSED)
    await rollouts.turn()

    assert (await rollouts.rollout(rollout)).state is RolloutState.HALTED


async def test_rollout_when_nodes_are_away_picks_them_up_when_they_are_back(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(2)
    (away,) = await rollouts.add_nodes(1, is_connected=False)
    release = await rollouts.release()
    rollout = await rollouts.begin(waves=["100%"])
    await rollouts.turn()
    await rollouts.succeed_all(rollout, release.build)
    await rollouts.turn()
    (waiting,) = await rollouts.nodes(rollout, WAITING)
    assert (waiting.node_id, waiting.note) == (away, "not connected")

    await rollouts.set_node(away, is_connected=True)
    await rollouts.turn()
    await rollouts.succeed_all(rollout, release.build)
    await rollouts.turn()

    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED


async def test_rollout_when_nodes_are_away_until_the_deadline_ends_without_them(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(1)
    await rollouts.add_nodes(1, is_connected=False)
    release = await rollouts.release()
    rollout = await rollouts.begin(waves=["100%"], deadline_hours=1)
    await rollouts.turn()
    await rollouts.succeed_all(rollout, release.build)

    await rollouts.turn(seconds=3601)

    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED
    (skipped,) = await rollouts.nodes(rollout, RolloutNodeState.SKIPPED)
    assert skipped.note == "not until the deadline: not connected"


@pytest.mark.parametrize("is_cordoned", [True, False], ids=["cordoned", "maintenance"])
async def test_rollout_when_a_node_is_set_aside_leaves_it_alone(rollouts: RolloutBench, is_cordoned: bool) -> None:
    await rollouts.add_nodes(1)
    (aside,) = await rollouts.add_nodes(1, is_cordoned=is_cordoned)
    if not is_cordoned:
        await hold(rollouts.bench.database, aside)
    await rollouts.release()
    rollout = await rollouts.begin(waves=["100%"])

    await rollouts.turn()

    (waiting,) = await rollouts.nodes(rollout, WAITING)
    assert waiting.node_id == aside
    assert waiting.note in ("cordoned", "in maintenance or being drained")


async def hold(database: Database, node_id: str) -> None:

    async with database.write() as session:
        session.add(
            NodeHold(
                node_id=node_id,
                kind=HoldKind.MAINTENANCE,
                reason="disk",
                actor="user/1",
                actor_name="a",
                since=utc_now(),
            )
        )


async def test_rollout_when_a_node_can_never_take_it_skips_it_with_the_reason(rollouts: RolloutBench) -> None:
    release = await rollouts.release()
    await rollouts.add_nodes(1, capability=1, agent_build="")
    await rollouts.add_nodes(1, facts={"architecture": "aarch64"})
    await rollouts.add_nodes(1, agent_build=release.build)
    rollout = await rollouts.begin(waves=["100%"])

    await rollouts.turn()
    await rollouts.turn()

    rows = await rollouts.nodes(rollout)
    notes = sorted(f"{row.state.value}: {row.note}" for row in rows)
    assert notes == [
        "skipped: its agent cannot update itself yet: run the installer there once",
        "skipped: the release is for x86_64, the node is aarch64",
        "succeeded: it has this release already",
    ]
    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED


async def test_rollout_when_a_node_is_revoked_meanwhile_skips_it(rollouts: RolloutBench) -> None:
    (gone, *_) = await rollouts.add_nodes(2)
    await rollouts.release()
    rollout = await rollouts.begin(waves=["1"])
    await rollouts.set_node(gone, state=NodeState.REVOKED, is_connected=False)

    await rollouts.turn()

    (skipped,) = await rollouts.nodes(rollout, RolloutNodeState.SKIPPED)
    assert (skipped.node_id, skipped.note) == (gone, "the node is revoked")


async def test_rollout_when_the_node_was_busy_asks_it_again(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(1)
    await rollouts.release()
    rollout = await rollouts.begin()
    await rollouts.turn()
    (first,) = await rollouts.nodes(rollout, SENT)

    await rollouts.report(first, UpdateState.REFUSED, code="node_busy")
    await rollouts.turn()

    (second,) = await rollouts.nodes(rollout, SENT)
    assert second.attempt_id not in (None, first.attempt_id)


async def test_rollout_when_the_answer_was_lost_is_told_by_the_build_that_runs(rollouts: RolloutBench) -> None:
    (node,) = await rollouts.add_nodes(1)
    release = await rollouts.release()
    rollout = await rollouts.begin()
    await rollouts.turn()

    await rollouts.set_node(node, agent_build=release.build)
    await rollouts.turn()

    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED


async def test_rollout_when_paused_begins_no_node_until_it_is_resumed(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(2)
    release = await rollouts.release()
    rollout = await rollouts.begin(waves=["1"], soak_seconds=0)
    use_cases, change = rollouts.bench.fleet.rollouts, rollouts.bench.change
    await rollouts.turn()

    await change(lambda ctx: use_cases.pause(ctx, rollout))
    await rollouts.turn()
    assert await rollouts.counts(rollout) == {"waiting": 2}  # nobody had heard of it yet

    await change(lambda ctx: use_cases.resume(ctx, rollout, is_retrying=False))
    for _ in range(3):
        await rollouts.turn()
        await rollouts.succeed_all(rollout, release.build)
    await rollouts.turn()
    assert (await rollouts.rollout(rollout)).state is RolloutState.FINISHED


async def test_rollout_when_resumed_after_a_halt_forgives_or_tries_again(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    await rollouts.release()
    rollout = await rollouts.begin(waves=["1"], soak_seconds=0)
    use_cases, change = rollouts.bench.fleet.rollouts, rollouts.bench.change
    await rollouts.turn()
    (canary,) = await rollouts.nodes(rollout, SENT)
    await rollouts.report(canary, UpdateState.ROLLED_BACK)
    await rollouts.turn()

    await change(lambda ctx: use_cases.resume(ctx, rollout, is_retrying=True))
    await rollouts.turn()
    (again,) = await rollouts.nodes(rollout, SENT)
    assert again.node_id == canary.node_id
    await rollouts.report(again, UpdateState.ROLLED_BACK)
    await rollouts.turn()
    assert (await rollouts.rollout(rollout)).state is RolloutState.HALTED

    await change(lambda ctx: use_cases.resume(ctx, rollout, is_retrying=False))
    await rollouts.turn()
    await rollouts.turn()
    assert await rollouts.counts(rollout) == {"failed": 1, "sent": 2}


async def test_rollout_when_aborted_is_over_and_can_be_followed_by_another(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    await rollouts.release()
    rollout = await rollouts.begin()
    use_cases, change = rollouts.bench.fleet.rollouts, rollouts.bench.change
    with pytest.raises(ConflictError, match="is running"):
        await rollouts.begin()

    await change(lambda ctx: use_cases.abort(ctx, rollout))

    assert await rollouts.counts(rollout) == {"skipped": 3}
    with pytest.raises(ConflictError, match="aborted"):
        await change(lambda ctx: use_cases.resume(ctx, rollout, is_retrying=False))
    await rollouts.begin()


@pytest.mark.parametrize("what", ["pause", "abort"])
async def test_rollout_when_stopped_says_how_what_it_had_begun_ended(rollouts: RolloutBench, what: str) -> None:
    await rollouts.add_nodes(3)
    rollout = await rollouts.begin(
        kind=RolloutKind.MODULE_SETTINGS, module="php", presence=Presence.ENABLED, settings={"idle_seconds": "60"},
        waves=["1", "2"], soak_seconds=0,
    )  # fmt: skip
    await rollouts.turn()
    (first,) = await rollouts.nodes(rollout, SENT)
    stopped = await rollouts.bench.change(lambda ctx: getattr(rollouts.bench.fleet.rollouts, what)(ctx, rollout))

    await rollouts.turn()
    await end_job(rollouts, first.job_id, JobState.FAILED)
    await rollouts.turn()

    (failed,) = await rollouts.nodes(rollout, FAILED)
    assert failed.id == first.id
    assert (await rollouts.rollout(rollout)).state is stopped.state
    assert await rollouts.counts(rollout) == {"failed": 1, ("waiting" if what == "pause" else "skipped"): 2}


async def test_rollout_when_aborted_asks_no_node_again_that_was_busy(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(1)
    await rollouts.release()
    rollout = await rollouts.begin()
    await rollouts.turn()
    (busy,) = await rollouts.nodes(rollout, SENT)
    async with rollouts.bench.database.write() as session:
        await session.execute(update(RolloutNode).where(RolloutNode.id == busy.id).values(offered_epoch=1))
    await rollouts.bench.change(lambda ctx: rollouts.bench.fleet.rollouts.abort(ctx, rollout))

    await rollouts.report(busy, UpdateState.REFUSED, code="node_busy")
    await rollouts.turn()

    (failed,) = await rollouts.nodes(rollout)
    assert (failed.state, failed.error_code) == (FAILED, "node_busy")


async def test_rollout_of_settings_when_a_job_fails_halts_before_the_next_node(rollouts: RolloutBench) -> None:
    await rollouts.add_nodes(3)
    rollout = await rollouts.begin(
        kind=RolloutKind.MODULE_SETTINGS, module="php", presence=Presence.ENABLED, settings={"idle_seconds": "60"},
        waves=["1", "2"], soak_seconds=0,
    )  # fmt: skip
    await rollouts.turn()
    (first,) = await rollouts.nodes(rollout, SENT)
    await end_job(rollouts, first.job_id, JobState.SUCCEEDED)
    await rollouts.turn()
    await rollouts.turn()

    (second,) = await rollouts.nodes(rollout, SENT)
    await end_job(rollouts, second.job_id, JobState.FAILED)
    await rollouts.turn()

    assert (await rollouts.rollout(rollout)).state is RolloutState.HALTED
    assert await rollouts.counts(rollout) == {"succeeded": 1, "failed": 1, "waiting": 1}
    async with rollouts.bench.database.read() as session:
        modules = (await session.execute(select(NodeModule).where(NodeModule.name == "php"))).scalars().all()
    assert {module.node_id: module.settings for module in modules} == {
        row.node_id: {"idle_seconds": "60"} for row in (first, second)
    }
    assert (await rollouts.actions()).count("node.set_module") == 2


async def end_job(rollouts: RolloutBench, job_id: str | None, state: JobState) -> None:
    async with rollouts.bench.database.write() as session:
        await session.execute(update(Job).where(Job.id == job_id).values(state=state, error_message="nginx -t says no"))


async def test_rollout_when_only_some_nodes_are_meant_takes_those(rollouts: RolloutBench) -> None:
    (canary,) = await rollouts.add_nodes(1, labels={"ring": "canary"})
    await rollouts.add_nodes(2, roles=["mail"])
    await rollouts.release()

    rollout = await rollouts.begin(labels={"ring": "canary"}, roles=["web"])

    assert [row.node_id for row in await rollouts.nodes(rollout)] == [canary]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"waves": ["0%"]}, "waves"),
        ({"module": "php"}, "module"),
        ({"kind": RolloutKind.MODULE_SETTINGS}, "module"),
        ({"kind": RolloutKind.MODULE_SETTINGS, "module": "php"}, "presence"),
        ({"kind": RolloutKind.MODULE_SETTINGS, "release_id": "x"}, "release_id"),
        (
            {
                "kind": RolloutKind.MODULE_SETTINGS, "module": "php", "presence": Presence.ENABLED,
                "settings": {"idle seconds": "1"},
            },
            "settings",
        ),
    ],
)  # fmt: skip
async def test_rollout_when_it_makes_no_sense_is_refused(
    rollouts: RolloutBench, options: dict[str, object], field: str
) -> None:
    await rollouts.add_nodes(1)
    await rollouts.release()

    with pytest.raises(InvalidInputError) as caught:
        await rollouts.begin(**options)

    assert caught.value.field == field


async def test_rollout_when_nothing_is_meant_is_refused(rollouts: RolloutBench) -> None:
    with pytest.raises(NotFoundError, match="no release"):
        await rollouts.begin()
    await rollouts.release()
    with pytest.raises(ConflictError, match="no active node"):
        await rollouts.begin()
    with pytest.raises(NotFoundError, match="no active node"):
        await rollouts.begin(node_ids=["nobody"])
