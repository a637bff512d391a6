"""When the agent looks at its modules, and what it says of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.link.health import HealthWatch, read_unit_states
from agent.link.outbox import Outbox
from shared.protocol.health import HealthCheck, HealthReport, ModuleHealth, NodeHealth
from shared.protocol.local import RequestHealth
from tests.integration.link.executor import FakeExecutor


def make_report(*, is_good: bool = True) -> HealthReport:
    check = HealthCheck(name="service", is_good=is_good)
    return HealthReport(modules=(ModuleHealth(name="web", checks=(check,), units=("nginx.service",)),))


@dataclass
class Units:
    """What systemd says."""

    state: str = "active"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def read(self, units: tuple[str, ...]) -> tuple[str, ...]:
        self.asked.append(units)
        return (self.state,) * len(units) if self.state else ()


@dataclass
class Bench:
    """A watch with everything around it; the executor does not answer by itself."""

    executor: FakeExecutor = field(default_factory=FakeExecutor)
    outbox: Outbox = field(default_factory=Outbox)
    units: Units = field(default_factory=Units)

    def __post_init__(self) -> None:
        self.outbox.open()
        self.watch = HealthWatch(self.executor, self.outbox, self.units.read)

    async def taken(self) -> list[object]:
        found = []
        while True:
            try:
                async with asyncio.timeout(0.01):
                    found.append(await self.outbox.take())
            except TimeoutError:
                return found


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_take_of_the_first_report_says_it(bench: Bench) -> None:
    bench.watch.take(make_report())

    assert await bench.taken() == [NodeHealth(report=make_report())]


async def test_take_of_the_same_report_says_nothing_unless_it_was_asked_for(bench: Bench) -> None:
    bench.watch.take(make_report())
    await bench.taken()

    bench.watch.take(make_report())
    assert await bench.taken() == []
    await bench.watch.look(is_asked=True)
    bench.watch.take(make_report())

    assert len(await bench.taken()) == 1
    assert bench.executor.of(RequestHealth) == [RequestHealth()]


async def test_watch_looks_when_a_unit_changes_and_rests_while_none_does(bench: Bench) -> None:
    assert await bench.watch._is_worth_a_look()  # nothing is known yet
    await bench.watch.look()
    bench.watch.take(make_report())

    assert not await bench.watch._is_worth_a_look()
    assert not await bench.watch._is_worth_a_look()
    bench.units.state = "inactive"
    assert await bench.watch._is_worth_a_look()
    bench.watch.take(make_report(is_good=False))
    assert not await bench.watch._is_worth_a_look()
    bench.units.state = "active"

    assert await bench.watch._is_worth_a_look()
    assert set(bench.units.asked) == {("nginx.service",)}


async def test_watch_when_a_unit_fell_between_two_looks_sees_it_at_the_first_reading(bench: Bench) -> None:
    await bench.watch.look()
    bench.watch.take(make_report())
    bench.units.state = "failed"

    assert await bench.watch._is_worth_a_look()


def test_read_unit_states_sees_processes_in_the_services_cgroups(tmp_path: Path) -> None:
    for tree, pids in (("systemd/system.slice/nginx.service", "12\n"), ("systemd/system.slice/a.service", "")):
        (tmp_path / tree).mkdir(parents=True)
        (tmp_path / tree / "cgroup.procs").write_text(pids)
    (tmp_path / "systemd/system.slice/a.service/worker").mkdir()
    (tmp_path / "systemd/system.slice/a.service/worker/cgroup.procs").write_text("7\n")

    states = read_unit_states(("nginx.service", "a.service", "gone.service", "x.target"), tmp_path)

    assert states == ("active", "active", "inactive")
    assert read_unit_states(("x.target",), tmp_path) == ()
    assert read_unit_states(("nginx.service",), tmp_path / "nowhere") == ()


async def test_watch_where_nothing_can_be_watched_looks_only_now_and_then(bench: Bench) -> None:
    await bench.watch.look()
    bench.watch.take(make_report())
    bench.units.state = ""

    assert not await bench.watch._is_worth_a_look()


async def test_say_again_tells_a_new_session_what_is_known(bench: Bench) -> None:
    bench.watch.say_again()
    assert await bench.taken() == []
    bench.watch.take(make_report())
    await bench.taken()

    bench.watch.say_again()

    assert len(await bench.taken()) == 1
