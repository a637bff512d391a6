"""What every converger promises (agent/contract/module.py, style 2.8), checked for each of them over a host in memory."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.actions import AnyAction
from agent.contract.host import UndoRecord
from agent.contract.module import Module, Plan
from agent.simulator.host import MemoryHost
from shared.errors import UnavailableError
from shared.specs.base import Presence
from tests.contract.subjects import (
    MODULES,
    SUBJECTS,
    TREES,
    Subject,
    actions_of,
    converge,
    differences,
    find_converger,
    make_ground,
    make_plan,
    reversible_actions_of,
)

CHANGES = {
    "create": (Presence.ABSENT, Presence.ENABLED),
    "create-disabled": (Presence.ABSENT, Presence.DISABLED),
    "disable": (Presence.ENABLED, Presence.DISABLED),
    "enable": (Presence.DISABLED, Presence.ENABLED),
    "remove": (Presence.ENABLED, Presence.ABSENT),
}
every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
every_change = pytest.mark.parametrize("change", CHANGES)
every_presence = pytest.mark.parametrize("presence", list(Presence), ids=lambda presence: presence.value)


async def start(subject: Subject, change: str) -> tuple[MemoryHost, Presence]:
    """A host from which the change sets out, and where it leads to."""
    before, after = CHANGES[change]
    host = await make_ground(subject)
    if before is not Presence.ABSENT:
        await converge(host, subject.spec, before)
    return host, after


async def take_steps(host: MemoryHost, plan: Plan, captured: list[tuple[AnyAction, UndoRecord]]) -> None:
    """Capture and apply the reversible steps, one at a time; each is in `captured` before it is touched."""
    for action in reversible_actions_of(plan):
        captured.append((action, await host.capture(action)))
        await host.apply(action)


@every_subject
@every_presence
async def test_plan_when_asked_twice_is_the_same_and_changes_nothing(subject: Subject, presence: Presence) -> None:
    host = await make_ground(subject)
    before = host.snapshot()
    converger = find_converger(subject.spec)
    facts = await converger.observe(subject.spec, host)
    facts_before = msgspec.msgpack.encode(facts)

    plans = [converger.plan(subject.spec, presence, facts) for _ in range(2)]

    assert plans[0] == plans[1]
    assert msgspec.msgpack.encode(facts) == facts_before
    assert host.snapshot() == before


@every_subject
@every_change
async def test_plan_after_apply_is_empty_and_says_why(subject: Subject, change: str) -> None:
    host, presence = await start(subject, change)
    await converge(host, subject.spec, presence)

    again = await make_plan(host, subject.spec, presence)

    assert again.actions == ()
    assert again.noop_reason


@every_subject
@every_change
async def test_verify_after_apply_is_good(subject: Subject, change: str) -> None:
    host, presence = await start(subject, change)
    await converge(host, subject.spec, presence)
    before = host.snapshot()

    verification = await find_converger(subject.spec).verify(subject.spec, presence, host)

    assert verification.is_good, verification.note
    assert verification.note
    assert host.snapshot() == before


@every_subject
async def test_enable_after_disable_is_identity(subject: Subject) -> None:
    host, _ = await start(subject, "disable")
    before = host.snapshot()

    await converge(host, subject.spec, Presence.DISABLED)
    await converge(host, subject.spec, Presence.ENABLED)

    assert differences(before, host.snapshot()) == set()


@every_subject
@every_change
async def test_undo_of_all_steps_restores_the_host(subject: Subject, change: str) -> None:
    host, presence = await start(subject, change)
    before = host.snapshot()
    plan = await make_plan(host, subject.spec, presence)
    steps: list[tuple[AnyAction, UndoRecord]] = []
    await take_steps(host, plan, steps)

    for action, record in reversed(steps):
        await host.undo(action, record)
        # Whoever crashed in the middle of an undo does it again.
        await host.undo(action, record)

    assert differences(before, host.snapshot()) == set()


@every_subject
@every_change
@pytest.mark.parametrize("is_after", [False, True], ids=["before-its-effect", "after-its-effect"])
async def test_failure_at_any_step_unwinds_to_a_clean_slate(subject: Subject, change: str, *, is_after: bool) -> None:
    host, presence = await start(subject, change)
    plan = await make_plan(host, subject.spec, presence)

    for number in range(len(reversible_actions_of(plan))):
        host, _ = await start(subject, change)
        before = host.snapshot()
        host.fail_at(len(host.applied) + number, UnavailableError("pulled the plug"), is_after=is_after)
        await fail_and_unwind(host, plan)
        assert differences(before, host.snapshot()) == set(), f"failed at step {number}"


async def fail_and_unwind(host: MemoryHost, plan: Plan) -> None:
    captured: list[tuple[AnyAction, UndoRecord]] = []
    with pytest.raises(UnavailableError, match="pulled the plug"):
        await take_steps(host, plan, captured)
    for action, record in reversed(captured):
        await host.undo(action, record)


@every_subject
@every_change
async def test_every_step_done_twice_is_done_once(subject: Subject, change: str) -> None:
    once, presence = await start(subject, change)
    await converge(once, subject.spec, presence)
    twice, _ = await start(subject, change)

    for action in actions_of(await make_plan(twice, subject.spec, presence)):
        await twice.apply(action)
        await twice.apply(action)

    assert differences(once.snapshot(), twice.snapshot()) == set()


@every_subject
@every_change
async def test_converge_after_a_crash_at_any_step_arrives_all_the_same(subject: Subject, change: str) -> None:
    straight, presence = await start(subject, change)
    plan = await converge(straight, subject.spec, presence)

    for number in range(len(plan.actions)):
        host, _ = await start(subject, change)
        for action in actions_of(plan)[:number]:
            await host.apply(action)
        await converge(host, subject.spec, presence)
        assert (await make_plan(host, subject.spec, presence)).actions == (), f"died before step {number}"
        allowed = {f"units: {unit}" for unit in subject.either_way}
        assert differences(straight.snapshot(), host.snapshot()) <= allowed, f"died before step {number}"


@every_subject
async def test_remove_leaves_a_clean_slate(subject: Subject) -> None:
    host = await make_ground(subject)
    before = host.snapshot()
    await converge(host, subject.spec, Presence.ENABLED)

    await converge(host, subject.spec, Presence.ABSENT)

    allowed = {f"paths: {path}" for path in subject.leftovers} | subject.stays
    assert differences(before, host.snapshot()) <= allowed


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_is_complete(module: Module) -> None:
    covered = {find_converger(subject.spec) for subject in SUBJECTS}

    assert {module.host, *module.convergers} <= covered
    assert module.name.isalnum()
    assert module.version


def test_config_trees_have_names_of_their_own_and_name_their_validator() -> None:
    assert len({tree.name for tree in TREES}) == len(TREES)
    assert len({tree.live_dir for tree in TREES}) == len(TREES)
    for tree in TREES:
        place = "{file}" if tree.main_file is None else "{stage}"
        assert place in tree.validator
        assert tree.validator[0].startswith("/usr/sbin/")
