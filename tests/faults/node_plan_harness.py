"""Proves any plan: from any state of a node to any manifest, with the real modules, the real core and a host on disk.

What is proven for a `Change`: a failure at every step is unwound to a clean slate; every step and every undo may be done
twice; a death at every fault point (and one in the recovery from it) leaves all or nothing, and what was asked for comes
about in the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import msgspec

from agent.bootstrap import build_registry
from agent.contract.actions import AnyAction
from agent.core.planning import plan_targets
from agent.core.recovery import recover
from agent.core.transaction import Transaction
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import HostState
from shared.errors import ApplyError, CommandError, FleetError
from shared.protocol.job import Job, JobResult, JobState
from shared.specs.account import ResourceLimits
from shared.specs.base import Presence
from shared.specs.manifest import Manifest
from shared.specs.module import ModuleSpec
from tests.faults.dying import EXIT_STATUS, die_at, run_job
from tests.faults.node_process import DurableHost
from tests.integration.executor.bench import Bench, job, manifest

HITS = (1, 4, 13, 34)
"""Which hits of a point are tried; every one of them over the bench's own module (tests/integration/executor)."""
REGISTRY = build_registry()
MODULES = manifest(1, *(ModuleSpec(name=name) for name in ("account", "php", "web")), subject="node")
PULLED = CommandError(("plug",), 1, "pulled")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What the node was brought to before, one manifest after the other, and what it is asked for now."""

    name: str
    before: tuple[Manifest, ...] = (MODULES,)
    asked: Manifest

    def job(self) -> Job:
        return job(self.asked, seq=len(self.before) + 1, max_runtime_seconds=3600)


def open_bench(base: Path) -> Bench:
    """The executor over the host that lies in this folder."""
    (base / "state").mkdir(parents=True, exist_ok=True)
    return Bench(base, host=DurableHost(base / "host.msgpack", REGISTRY), registry=REGISTRY)


def settled(state: HostState) -> HostState:
    """Without what may be either way: whether a PHP master that nobody asked anything sleeps."""
    found = state.copy()
    found.units = {
        name: unit
        for name, unit in found.units.items()
        if not (name.startswith("wcp-php") and name.endswith(".service"))
    }
    return found


def differences(before: HostState, after: HostState) -> set[str]:
    """`table: key` of all that is not the same."""
    found = set()
    for table in HostState.__struct_fields__:
        old, new = getattr(settled(before), table), getattr(settled(after), table)
        found |= {f"{table}: {key}" for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return found


def prepare(change: Change, base: Path) -> HostState:
    """Bring a node in this folder to where the change sets out from; its host."""
    for number, earlier in enumerate(change.before, start=1):
        ended = die_at(None, lambda: open_bench(base), run_job(job(earlier, seq=number, max_runtime_seconds=3600)))
        assert ended == 0
    base.mkdir(parents=True, exist_ok=True)
    return look(base)


def look(base: Path) -> HostState:
    return DurableHost(base / "host.msgpack", REGISTRY).snapshot()


def run(change: Change, prepared: Path, base: Path) -> tuple[JobResult, HostState]:
    """The change without any fault: how it ends and what it leads to."""
    shutil.copytree(prepared, base)
    a_job = change.job()
    assert die_at(None, lambda: open_bench(base), run_job(a_job)) == 0
    bench = open_bench(base)
    result = bench.result_of(a_job)
    bench.journal.close()
    return result, look(base)


# --- deaths -----------------------------------------------------------------------------------------------------------


def prove_deaths(change: Change, base: Path, points: Iterable[str]) -> set[str]:
    """Die at the hits of each point, recover, look, and run to the end; the points that were really reached."""
    prepared = base / "prepared"
    before = prepare(change, prepared)
    wanted, after = run(change, prepared, base / "after")
    reached = set()
    for point in points:
        for hit in HITS:
            folder = base / f"{point}-{hit}"
            shutil.copytree(prepared, folder)
            has_died = die_and_end(change, folder, f"{point}:{hit}", before, after, wanted.state)
            shutil.rmtree(folder)
            if not has_died:
                break
            reached.add(point)
    return reached


def die_and_end(change: Change, base: Path, fault: str, before: HostState, after: HostState, state: JobState) -> bool:
    """One death; False when the change is over before the fault is hit. The end of it is checked all the same."""
    a_job = change.job()
    has_died = die_at(fault, lambda: open_bench(base), run_job(a_job)) == EXIT_STATUS
    if has_died:
        require_all_or_nothing(base, fault, before, after)
        assert die_at(None, lambda: open_bench(base), run_job(a_job)) == 0
    bench = open_bench(base)
    assert bench.result_of(a_job).state is state, fault
    assert bench.journal.ledger.list_transactions() == []
    assert not bench.journal.quarantine, fault
    bench.journal.close()
    assert differences(after, look(base)) == set(), fault
    return has_died


def require_all_or_nothing(base: Path, fault: str, before: HostState, after: HostState) -> None:
    """Recover and do nothing else: the host is as before, or (past the point of no return) as it was asked for."""

    async def only_recover(bench: Bench) -> None:
        await recover(bench.node)

    assert die_at(None, lambda: open_bench(base), only_recover) == 0
    found = look(base)
    undone, done = differences(before, found), differences(after, found)
    assert not undone or not done, f"half done after {fault}: {sorted(undone)[:6]} / {sorted(done)[:6]}"


# --- failures and repetitions -------------------------------------------------------------------------------------------


async def prove_unwinding(change: Change, prepared: Path, base: Path, *, is_after: bool) -> int:
    """Fail at every step of the whole plan, before or after its effect, and unwind; how many steps there are."""
    number = 0
    while True:
        folder = base / f"fail-{number}-{is_after}"
        shutil.copytree(prepared, folder)
        bench = open_bench(folder)
        before = bench.host.snapshot()
        bench.host.fail_at(number, PULLED, is_after=is_after)
        transaction = Transaction(bench.node, subject=change.asked.subject, job_id=None)
        has_failed = await _apply_all(bench, change, transaction)
        await transaction.unwind()
        # Whoever dies in the middle of an undo does it again.
        bench.journal.ledger._database.execute("UPDATE steps SET state = 'begun'")
        await transaction.unwind()
        assert differences(before, bench.host.snapshot()) == set(), f"failed at step {number}"
        bench.journal.ledger.forget(transaction.number)
        bench.journal.close()
        shutil.rmtree(folder)
        if not has_failed:
            return number
        number += 1


async def _apply_all(bench: Bench, change: Change, transaction: Transaction) -> bool:
    """Every reversible step of every resource, in order; whether the one failed that shall."""
    holdings = bench.journal.ledger.holdings(change.asked.subject)
    for target in plan_targets(change.asked, holdings):
        converger = REGISTRY.require_converger(target.spec)
        try:
            plan = converger.plan(target.spec, target.presence, await converger.observe(target.spec, bench.host))
        except FleetError:
            return False  # what cannot be planned is not begun
        for action in cast("tuple[AnyAction, ...]", plan.actions):
            if action.IS_IRREVERSIBLE:
                continue
            try:
                await transaction.apply(target.key, action)
            except ApplyError as error:
                # Another one is the plan's own: the validator refuses it. That is unwound as well, and is the last step.
                return "pulled" in error.message
    return False


async def prove_failures_of_the_job(change: Change, prepared: Path, base: Path, after: HostState) -> int:
    """Fail at every step of the job: what is parked is as before, what is not is as asked; asked again, all is."""
    number = 0
    while True:
        folder = base / f"job-{number}"
        shutil.copytree(prepared, folder)
        bench = open_bench(folder)
        host = cast("MemoryHost", bench.host)
        host.fail_at(number, PULLED)
        before = host.snapshot()
        await bench.executor.start()
        result = await bench.run(change.job())
        has_failed = "pulled" in str([report.error for report in result.resources]) + str(result.error)
        if has_failed:
            assert result.state is JobState.FAILED
            assert bench.journal.ledger.list_transactions() == []
            if result.is_rolled_back:
                assert differences(before, host.snapshot()) == set(), f"failed at step {number}"
            again = job(change.asked, seq=len(change.before) + 2, max_runtime_seconds=3600)
            await bench.run(again)
        assert differences(after, host.snapshot()) == set(), f"failed at step {number}"
        assert not bench.journal.quarantine
        bench.journal.close()
        shutil.rmtree(folder)
        if not has_failed:
            return number
        number += 1


async def prove_repetition(change: Change, prepared: Path, base: Path, after: HostState) -> None:
    """Every step twice in a row is every step once."""
    folder = base / "twice"
    shutil.copytree(prepared, folder)
    bench = open_bench(folder)
    apply = bench.host.apply

    async def apply_twice(action: AnyAction) -> None:
        await apply(action)
        await apply(action)

    bench.host.apply = apply_twice
    await bench.executor.start()
    await bench.run(change.job())
    assert differences(after, bench.host.snapshot()) == set()
    bench.journal.close()
    shutil.rmtree(folder)


def absent(subject: str, generation: int) -> Manifest:
    return Manifest(subject=subject, generation=generation, presence=Presence.ABSENT)


NO_LIMITS = ResourceLimits()
