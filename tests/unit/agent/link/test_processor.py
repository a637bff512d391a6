"""Processor time by month: added up from slices that come and go, across boots, restarts and months."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link.metrics import SliceUse, read_slices
from agent.link.processor import ProcessorMeter


class Machine:
    """Slices and users of a node, and a meter that looks at them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = datetime(2026, 11, 30, 23, tzinfo=UTC)
        self.slices: dict[str, SliceUse] = {}
        self.users = {"ada": 20_001}
        self.meter = self.start()
        self.meter.look()

    def start(self) -> ProcessorMeter:
        self.meter = ProcessorMeter(self.path, lambda: self.slices, users=lambda: self.users, now=lambda: self.now)
        return self.meter

    def use(self, seconds: float, *, slice_id: str = "1", uid: int = 20_001) -> None:
        self.slices = {"ada": SliceUse(uid=uid, slice_id=slice_id, seconds=seconds)}
        self.meter.look()

    def months(self) -> dict[str, float]:
        return {name.split(".")[3]: seconds for name, seconds in self.meter.gauges().items()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "processor.json")


def test_time_of_a_slice_is_added_as_it_grows(machine: Machine) -> None:
    for seconds in (2.0, 5.0, 5.0):
        machine.use(seconds)

    assert machine.months() == {"202611": 5.0}


def test_time_of_a_slice_that_was_made_anew_is_added_whole(machine: Machine) -> None:
    machine.use(5.0)
    machine.slices = {}
    machine.meter.look()
    machine.use(1.0, slice_id="1")
    machine.use(7.0, slice_id="2")

    assert machine.months() == {"202611": 13.0}


def test_time_after_the_month_turned_is_of_the_new_one(machine: Machine) -> None:
    machine.use(5.0)
    machine.now += timedelta(hours=2)
    machine.use(6.0)

    assert machine.months() == {"202611": 5.0, "202612": 1.0}


def test_time_of_a_month_that_is_long_over_is_not_told(machine: Machine) -> None:
    machine.use(5.0)
    machine.now += timedelta(days=40)

    assert machine.months() == {}


def test_time_when_the_process_was_away_is_found_in_the_slice(machine: Machine) -> None:
    machine.use(5.0)
    machine.meter.save()
    machine.use(9.0)  # and this look is lost
    source = next(iter(machine.meter.gauges()))

    machine.start()
    machine.use(10.0)

    assert machine.months() == {"202611": 10.0}
    assert next(iter(machine.meter.gauges())) == source


def test_time_when_nobody_counted_before_begins_at_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a.json")
    machine.path = tmp_path / "b.json"
    machine.slices = {"ada": SliceUse(uid=20_001, slice_id="1", seconds=5000.0)}
    machine.start().look()
    machine.use(5001.0)

    assert machine.months() == {"202611": 1.0}


def test_time_of_an_account_that_went_is_not_the_next_ones(machine: Machine) -> None:
    machine.use(5.0)
    machine.users = {"ada": 20_002}
    machine.use(2.0, slice_id="2", uid=20_002)

    assert machine.months() == {"202611": 2.0}
    assert all(".20002x" in name for name in machine.meter.gauges())


def test_file_when_it_is_damaged_begins_anew(machine: Machine) -> None:
    machine.use(5.0)
    machine.meter.save()
    machine.path.write_bytes(b"{")

    machine.start().look()

    assert machine.months() == {"202611": 0.0}


def test_file_is_readable_for_the_agent_only(machine: Machine) -> None:
    machine.meter.save()

    assert machine.path.stat().st_mode & 0o777 == 0o600


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=30))
def test_time_whatever_slices_come_and_go_is_the_sum_of_what_each_used(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    machine = Machine(tmp_path_factory.mktemp("meter") / "processor.json")
    used, slice_number, in_slice = 0, 0, 0
    for is_new, amount in steps:
        if is_new:
            slice_number, in_slice = slice_number + 1, 0
        in_slice += amount
        used += amount
        machine.use(float(in_slice), slice_id=str(slice_number))

    assert sum(machine.months().values()) == used


@pytest.mark.parametrize(
    ("tree", "signs", "counts"),
    [
        ("", ("cgroup.controllers",), ("cpu.stat", "usage_usec 2500000\n")),
        ("memory", (), ("../../../cpuacct/user.slice/user-20001.slice/cpuacct.usage", "2500000000")),
        ("memory", (), ("../../../unified/user.slice/user-20001.slice/cpu.stat", "usage_usec 2500000\n")),
    ],
    ids=["one tree", "a tree for each", "a tree for each, and accounting off"],
)
def test_slices_in_every_hierarchy_say_what_they_used(
    tmp_path: Path, tree: str, signs: tuple[str, ...], counts: tuple[str, str]
) -> None:
    for sign in signs:
        (tmp_path / sign).write_text("cpu")
    folder = tmp_path / tree / "user.slice/user-20001.slice"
    folder.mkdir(parents=True)
    path = Path(os.path.normpath(folder / counts[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(counts[1])

    found = read_slices(tmp_path, "boot", {20_001: "ada"}.get)

    assert found == {"ada": SliceUse(uid=20_001, slice_id=f"boot:{folder.stat().st_ino}", seconds=2.5)}
