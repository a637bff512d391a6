"""Rounds over accounts' homes: each in its time, none forgotten, one that fails hurts nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from agent.contract.facts import HomeUse
from agent.core.context import NodeContext
from agent.core.usage import UsageRounds
from shared.errors import CommandError
from shared.specs.account import AccountSpec


@dataclass
class Homes:
    """A ledger and a host with nothing but homes."""

    names: tuple[str, ...]
    broken: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def list_subjects(self) -> list[str]:
        return ["node", *(f"account/{name}" for name in self.names)]

    def holdings(self, subject: str) -> dict[str, Any]:
        name = subject.partition("/")[2]
        return {"account": SimpleNamespace(spec=AccountSpec(name=name, uid=20_001))}

    async def home_use(self, path: str, *, timeout_seconds: float) -> HomeUse | None:
        assert timeout_seconds > 0
        name = path.rpartition("/")[2]
        self.asked.append(name)
        if name in self.broken:
            raise CommandError(("du",), 2, "no such file")
        return HomeUse(disk_bytes=100, inodes=3)


def rounds(homes: Homes, *, round_seconds: float = 60.0) -> UsageRounds:
    node = SimpleNamespace(ledger=homes, host=homes, traffic=None)
    return UsageRounds(cast("NodeContext", node), round_seconds=round_seconds)


async def test_round_when_there_is_time_counts_every_account_once() -> None:
    homes = Homes(("ada", "bob"))

    found = await rounds(homes).count()

    assert [(home.account, home.disk_bytes, home.inodes) for home in found.homes] == [("ada", 100, 3), ("bob", 100, 3)]
    assert found.is_complete


async def test_round_when_time_is_over_ends_and_the_next_goes_on_behind_it() -> None:
    homes = Homes(("ada", "bob", "eve"))
    counting = rounds(homes, round_seconds=0.0)

    first = await counting.count()
    counting.after = first.homes[-1].account
    second = await counting.count()

    assert (first.is_complete, [home.account for home in first.homes]) == (False, ["ada"])
    assert [home.account for home in second.homes] == ["bob"]


async def test_round_when_one_home_cannot_be_counted_leaves_it_out() -> None:
    homes = Homes(("ada", "bob"), broken=frozenset({"ada"}))

    found = await rounds(homes).count()

    assert [home.account for home in found.homes] == ["bob"]
    assert homes.asked == ["ada", "bob"]
