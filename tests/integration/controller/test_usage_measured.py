"""What nodes measure of their accounts: limits that are counted by samples, and the policy about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.usage.figures import parse_figures
from controller.core.usage.measure import UsageLedger
from controller.fleet.nodes.metrics import NodeSample
from shared.specs.account import GIB, MIB
from tests.integration.controller.hosting import Hosting


class Sampled:
    """A node whose samples the test writes, and the ledger over it."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
        self.gauges: dict[str, float] = {}
        self.ledger = UsageLedger(hosting.operations, self.find_sample)
        hosting.operations._clock = lambda: self.now

    async def find_sample(self, _session: AsyncSession, _node_id: str) -> NodeSample | None:
        return NodeSample(at=self.now, gauges=self.gauges) if self.gauges else None

    async def measure(self, *, hours: float = 0, name: str = "ada", **values: float) -> None:
        self.now += timedelta(hours=hours)
        self.gauges = {f"accounts.{name}.{word}": value for word, value in values.items()}
        await self.ledger.run()

    async def use_of(self, account_id: str, key: str) -> dict[str, Any]:
        items = (await self.hosting.get(f"/accounts/{account_id}/usage"))["items"]
        return next(item for item in items if item["limit"] == key)


@pytest.fixture
def sampled(hosting: Hosting) -> Sampled:
    return Sampled(hosting)


async def test_usage_when_a_node_measures_says_now_peak_and_history(hosting: Hosting, sampled: Sampled) -> None:
    account_id = await hosting.add_account("ada", disk_bytes=GIB)
    unknown = await sampled.use_of(account_id, "disk_bytes")

    await sampled.measure(disk_bytes=300 * MIB, inodes=40, memory_bytes=9 * MIB, processes=4)
    await sampled.measure(hours=24, disk_bytes=200 * MIB, inodes=30)

    disk, inodes = await sampled.use_of(account_id, "disk_bytes"), await sampled.use_of(account_id, "inodes")
    memory, processes = [await sampled.use_of(account_id, key) for key in ("memory_bytes", "processes_max")]
    history = await hosting.get(f"/accounts/{account_id}/usage-history", key="disk_bytes")
    assert (unknown["used"], unknown["state"]) == (None, "unknown")
    assert (disk["used"], disk["peak"], disk["hard"]) == (200 * MIB, 300 * MIB, GIB)
    assert (inodes["used"], inodes["peak"]) == (30, 40)
    assert (memory["used"], memory["peak"], processes["used"], processes["peak"]) == (0, 9 * MIB, 0, 4)
    assert [item["last"] for item in history["items"]] == [200 * MIB, 300 * MIB]


async def test_account_over_its_soft_disk_limit_is_told_of_suspended_and_restored(
    hosting: Hosting, sampled: Sampled
) -> None:
    account_id = await hosting.add_account(
        "ada", disk_bytes=GIB, limits={"disk_bytes": {"soft": 100 * MIB}},
        overuse={"action": "suspend", "grace_hours": 2},
    )  # fmt: skip
    await hosting.finish(account_id)

    await sampled.measure(disk_bytes=150 * MIB)
    alerts = [item for item in (await hosting.get("/attention"))["items"] if item["kind"] == "usage"]
    in_grace = await hosting.get(f"/accounts/{account_id}")
    await sampled.measure(hours=2, disk_bytes=150 * MIB)
    suspended = await hosting.get(f"/accounts/{account_id}")
    await sampled.measure(hours=1, disk_bytes=50 * MIB)
    restored = await hosting.get(f"/accounts/{account_id}")

    assert [item["title"] for item in alerts] == ["account ada nears its limit of disk_bytes"]
    assert (in_grace["state"], suspended["state"], restored["state"]) == ("active", "suspended", "active")
    assert f"{150 * MIB} disk_bytes of {100 * MIB}" in suspended["suspension_reason"]


async def test_account_over_an_inode_limit_is_throttled_and_released(hosting: Hosting, sampled: Sampled) -> None:
    account_id = await hosting.add_account(
        "ada", limits={"inodes": 100}, overuse={"action": "throttle", "grace_hours": 0}
    )
    await sampled.measure(disk_bytes=MIB, inodes=101)
    over = await hosting.get(f"/accounts/{account_id}/usage")
    await sampled.measure(hours=1, disk_bytes=MIB, inodes=99)
    within = await hosting.get(f"/accounts/{account_id}/usage")

    assert (over["overuse_action"], within["overuse_action"]) == ("throttled", "")


async def test_smaller_package_is_refused_for_what_stays_and_not_for_what_passes(
    hosting: Hosting, sampled: Sampled
) -> None:
    account_id = await hosting.add_account("ada")
    await sampled.measure(disk_bytes=300 * MIB, inodes=10, memory_bytes=200 * MIB)
    small = await hosting.add_package("Small disk", disk_bytes=100 * MIB)
    lean = await hosting.add_package("Lean", memory_bytes=64 * MIB)

    refused = await hosting.patch(f"/accounts/{account_id}", {"package_id": small}, expect=409)
    await hosting.patch(f"/accounts/{account_id}", {"package_id": lean}, expect=202)

    assert (refused["code"], refused["quota"]["limit"]) == ("quota_exceeded", "disk_bytes")


async def test_what_if_names_accounts_that_a_smaller_disk_puts_over(hosting: Hosting, sampled: Sampled) -> None:
    account_id = await hosting.add_account("ada", disk_bytes=GIB)
    await sampled.measure(disk_bytes=300 * MIB, inodes=10)
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]

    judged = await hosting.post(f"/packages/{package_id}/what-if", {"disk_bytes": 100 * MIB}, expect=200)

    (item,) = judged["items"]
    assert item["over"] == [{"limit": "disk_bytes", "used": 300 * MIB, "allowed": 100 * MIB, "is_new": True}]


async def test_sample_of_a_node_says_nothing_about_accounts_of_another(hosting: Hosting, sampled: Sampled) -> None:
    await hosting.add_node("node2")
    account_id = await hosting.add_account("ada")

    await sampled.measure(name="bob", disk_bytes=MIB, inodes=1)

    assert (await sampled.use_of(account_id, "disk_bytes"))["used"] is None


def test_figures_when_a_gauge_makes_no_sense_are_left_out() -> None:
    gauges = {"accounts.ada.disk_bytes": 5.0, "accounts.ada.inodes": -1.0, "accounts..disk_bytes": 5.0,
              "accounts.bob.inodes": 3.0, "cpu_percent": 3.0, "accounts.ada.chairs": 2.0}  # fmt: skip

    assert parse_figures(gauges) == {"ada": {"disk_bytes": 5}}
