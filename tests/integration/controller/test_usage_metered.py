"""What nodes count up by month (traffic, processor time): taken once, limited, lifted by the month's turn, billed."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.usage.measure import UsageLedger
from controller.core.usage.meters import SOURCES_MAX
from controller.core.usage.models import AccountMeter
from controller.fleet.nodes.metrics import NodeSample
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.reselling import API, open_shop

GB = 10**9


class Metered:
    """A node whose counters the test writes, and the ledger over it."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.now = datetime(2026, 11, 10, 12, tzinfo=UTC)
        self.gauges: dict[str, float] = {}
        self.account_id = ""
        self.uid = 0
        self.ledger = UsageLedger(hosting.operations, self.find_sample)
        hosting.operations._clock = lambda: self.now

    async def find_sample(self, _session: AsyncSession, _node_id: str) -> NodeSample | None:
        return NodeSample(at=self.now, gauges=self.gauges) if self.gauges else None

    async def say(self, value: float, *, month: int = 202611, source: str = "a1", word: str = "traffic_bytes") -> None:
        """The node says that of ada, and only that."""
        self.gauges = {await self.gauge(source, month=month, word=word): value}
        await self.ledger.run()

    async def gauge(self, source: str, *, month: int = 202611, word: str = "traffic_bytes") -> str:
        """The name under which ada's node says it."""
        if not self.uid:
            (account,) = (await self.hosting.get("/accounts"))["items"]
            self.uid = account["uid"]
        return f"accounts.ada.{word}.{month}.{self.uid}x{source}"

    async def use_of(self, account_id: str, key: str = "bandwidth_bytes") -> dict[str, Any]:
        items = (await self.hosting.get(f"/accounts/{account_id}/usage"))["items"]
        return next(item for item in items if item["limit"] == key)


@pytest.fixture
def metered(hosting: Hosting) -> Metered:
    return Metered(hosting)


async def test_traffic_when_a_node_counts_it_is_shown_kept_by_day_and_added_up(
    hosting: Hosting, metered: Metered
) -> None:
    account_id = await hosting.add_account("ada", limits={"bandwidth_bytes": {"soft": 4 * GB, "hard": 5 * GB}})
    unknown = await metered.use_of(account_id)

    await metered.say(GB)
    metered.now += timedelta(days=1)
    await metered.say(3 * GB)
    await metered.say(90.7, word="processor_seconds", source="c1")

    used, processor = await metered.use_of(account_id), await metered.use_of(account_id, "cpu_seconds")
    history = await hosting.get(f"/accounts/{account_id}/usage-history", key="bandwidth_bytes")
    totals = await hosting.get("/usage")
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]
    of_package = await hosting.get(f"/packages/{package_id}/usage")
    assert (unknown["used"], unknown["state"]) == (None, "unknown")
    assert (used["used"], used["peak"], used["state"], used["hard"]) == (3 * GB, 3 * GB, "ok", 5 * GB)
    assert (processor["used"], processor["unit"]) == (90, "seconds")
    assert [(item["day"], item["last"]) for item in history["items"]] == [
        ("2026-11-11", 3 * GB),
        ("2026-11-10", GB),
    ]
    for sums in (totals, of_package):
        (item,) = [item for item in sums["items"] if item["limit"] == "bandwidth_bytes"]
        assert (item["used"], item["promised"], item["peak_of_one"]) == (3 * GB, 5 * GB, 3 * GB)


async def test_traffic_when_a_report_is_late_or_repeated_changes_nothing(hosting: Hosting, metered: Metered) -> None:
    account_id = await hosting.add_account("ada")
    for value in (5, 5, 3, 8, 8, 5):
        await metered.say(value)

    assert (await metered.use_of(account_id))["used"] == 8


async def test_traffic_when_a_node_begins_to_count_anew_is_added(hosting: Hosting, metered: Metered) -> None:
    account_id = await hosting.add_account("ada")
    await metered.say(100)
    await metered.say(7, source="b2")
    await metered.say(100)

    assert (await metered.use_of(account_id))["used"] == 107


async def test_traffic_when_a_node_names_ever_new_counters_keeps_so_many(hosting: Hosting, metered: Metered) -> None:
    account_id = await hosting.add_account("ada")
    metered.gauges = {await metered.gauge(f"s{number}"): 1.0 for number in range(SOURCES_MAX + 30)}
    await metered.ledger.run()

    assert (await metered.use_of(account_id))["used"] == SOURCES_MAX


async def test_node_that_speaks_of_another_account_or_of_who_had_the_name_before_changes_nothing(
    hosting: Hosting, metered: Metered
) -> None:
    account_id = await hosting.add_account("ada")
    own = await metered.gauge("a1")
    others = (
        own.replace(".ada.", ".bob."),
        own.replace(".ada.", f".{account_id}."),
        own.replace(f".{metered.uid}x", ".9x"),
    )
    metered.gauges = dict.fromkeys(others, 5.0)

    await metered.ledger.run()

    assert (await metered.use_of(account_id))["used"] is None


async def test_account_over_its_traffic_is_suspended_and_restored_as_the_month_turns(
    hosting: Hosting, metered: Metered
) -> None:
    account_id = await hosting.add_account(
        "ada", limits={"bandwidth_bytes": {"soft": 4 * GB, "hard": 5 * GB}},
        overuse={"action": "suspend", "grace_hours": 0},
    )  # fmt: skip
    await hosting.finish(account_id)

    await metered.say(4.5 * GB)
    near, warned = await hosting.get(f"/accounts/{account_id}"), await attention(hosting)
    await metered.say(6 * GB)
    over = await hosting.get(f"/accounts/{account_id}")
    metered.now = datetime(2026, 12, 1, 0, 1, tzinfo=UTC)
    metered.gauges = {}  # and its node is away
    await metered.ledger.run()
    restored, used = await hosting.get(f"/accounts/{account_id}"), await metered.use_of(account_id)

    assert (near["state"], over["state"], restored["state"]) == ("active", "suspended", "active")
    assert warned == ["account ada nears its limit of bandwidth_bytes"]
    assert f"{6 * GB} bandwidth_bytes of {5 * GB}" in over["suspension_reason"]
    assert (used["used"], used["peak"], used["state"]) == (0, 6 * GB, "ok")


async def attention(hosting: Hosting) -> list[str]:
    return [item["title"] for item in (await hosting.get("/attention"))["items"] if item["kind"] == "usage"]


async def test_account_over_its_traffic_is_throttled_and_released_by_a_larger_package(
    hosting: Hosting, metered: Metered
) -> None:
    account_id = await hosting.add_account(
        "ada", limits={"bandwidth_bytes": GB}, overuse={"action": "throttle", "grace_hours": 0}
    )
    larger = await hosting.add_package("Larger", limits={"bandwidth_bytes": 10 * GB})
    await metered.say(2 * GB)
    over = await hosting.get(f"/accounts/{account_id}/usage")

    await hosting.patch(f"/accounts/{account_id}", {"package_id": larger}, expect=202)
    await metered.ledger.run()

    assert over["overuse_action"] == "throttled"
    assert (await hosting.get(f"/accounts/{account_id}/usage"))["overuse_action"] == ""


async def test_traffic_of_the_month_before_may_still_grow_and_this_month_does_not(
    hosting: Hosting, metered: Metered
) -> None:
    account_id = await hosting.add_account("ada")
    await metered.say(100)
    metered.now = datetime(2026, 12, 1, 0, 1, tzinfo=UTC)

    await metered.say(130, month=202611)
    await metered.say(5, month=202612)

    assert (await metered.use_of(account_id))["used"] == 5
    assert await months_of(hosting) == {("2026-11-01", 130), ("2026-12-01", 5)}


async def months_of(hosting: Hosting) -> set[tuple[str, int]]:
    async with hosting.operations.database.read() as session:
        return {(row.month.isoformat(), row.value) for row in await session.scalars(select(AccountMeter))}


async def test_months_when_over_a_year_old_are_forgotten(hosting: Hosting, metered: Metered) -> None:
    await hosting.add_account("ada")
    await metered.say(100)
    metered.now = datetime(2028, 1, 10, tzinfo=UTC)

    await metered.say(5, month=202801)

    assert await months_of(hosting) == {("2028-01-01", 5)}


@asynccontextmanager
async def fresh_months(hosting: Hosting) -> AsyncIterator[None]:
    async with hosting.operations.database.write() as session:
        for row in await session.scalars(select(AccountMeter)):
            await session.delete(row)
    yield


reports = st.lists(
    st.tuples(st.sampled_from(("a1", "b2")), st.sampled_from((202611, 202610)), st.integers(0, 50)), max_size=12
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=reports)
async def test_use_whatever_order_reports_come_in_is_the_sum_of_the_highest_of_each_counter(
    hosting: Hosting, metered: Metered, said: list[tuple[str, int, int]]
) -> None:
    if not metered.account_id:  # once for all examples
        metered.account_id = await hosting.add_account("ada")
    async with fresh_months(hosting):
        highest: dict[str, int] = {}
        for source, month, value in said:
            metered.gauges = {await metered.gauge(source, month=month): float(value)}
            await metered.ledger.collect()
            if month == 202611:
                highest[source] = max(highest.get(source, 0), value)
        used = (await metered.use_of(metered.account_id))["used"]

    if said:
        assert (used or 0) == sum(highest.values())


async def consumed(hosting: Hosting, begins_on: str, ends_on: str) -> dict[str, Any]:
    days: dict[str, Any] = {"begins_at": f"{begins_on}T00:00:00+00:00", "ends_at": f"{ends_on}T00:00:00+00:00"}
    (item,) = (await hosting.get("/billing/usage", **days))["items"]
    found: dict[str, Any] = item["consumed"]
    return found


@pytest.fixture
async def used(hosting: Hosting, metered: Metered) -> Metered:
    """Two months of an account: each day it has a gigabyte more traffic in the month, and a gigabyte on its disk."""
    metered.now = datetime(2026, 9, 1, 6, tzinfo=UTC)
    await hosting.add_account("ada")
    while metered.now < datetime(2026, 11, 5, tzinfo=UTC):
        month = int(f"{metered.now:%Y%m}")
        metered.gauges = {
            await metered.gauge("a1", month=month): float(metered.now.day * GB),
            await metered.gauge("c1", month=month, word="processor_seconds"): float(metered.now.day * 60),
            "accounts.ada.disk_bytes": float(GB if metered.now.month < 10 else 3 * GB),
        }
        await metered.ledger.run()
        metered.now += timedelta(days=1)
    return metered


@pytest.mark.usefixtures("used")
async def test_billing_of_a_month_has_its_traffic_processor_time_and_disk(hosting: Hosting) -> None:
    september = await consumed(hosting, "2026-09-01", "2026-10-01")

    assert september == {
        "disk_bytes_average": GB,
        "disk_bytes_peak": GB,
        "disk_days": 30,
        "traffic_bytes": 30 * GB,
        "cpu_seconds": 1800,
        "months": [{"month": "2026-09-01", "traffic_bytes": 30 * GB, "cpu_seconds": 1800}],
    }


@pytest.mark.usefixtures("used")
async def test_billing_of_times_that_meet_counts_nothing_twice(hosting: Hosting) -> None:
    parts = [
        await consumed(hosting, begins_on, ends_on)
        for begins_on, ends_on in (
            ("2026-09-01", "2026-09-15"),
            ("2026-09-15", "2026-10-15"),
            ("2026-10-15", "2026-10-20"),
            ("2026-10-20", "2026-11-03"),
        )
    ]
    whole = await consumed(hosting, "2026-09-01", "2026-11-03")

    assert [part["traffic_bytes"] // GB for part in parts] == [14, 16 + 14, 5, 12 + 2]
    assert sum(part["traffic_bytes"] for part in parts) == whole["traffic_bytes"] == (30 + 31 + 2) * GB
    assert sum(part["cpu_seconds"] for part in parts) == whole["cpu_seconds"] == 63 * 60
    assert [month["traffic_bytes"] // GB for month in whole["months"]] == [30, 31, 4]
    assert (parts[1]["disk_bytes_average"], parts[1]["disk_bytes_peak"]) == (round((16 * 1 + 14 * 3) / 30 * GB), 3 * GB)


async def test_billing_of_an_account_that_nobody_measured_says_so(hosting: Hosting, metered: Metered) -> None:
    await hosting.add_account("ada")
    metered.now += timedelta(days=3)

    found = await consumed(hosting, "2026-11-10", "2026-11-12")

    assert (found["disk_bytes_average"], found["disk_days"], found["traffic_bytes"]) == (None, 0, 0)


async def test_traffic_of_a_reseller_is_in_its_usage_and_its_file(hosting: Hosting, metered: Metered) -> None:
    metered.now = datetime.now(UTC)
    shop = await open_shop(hosting)
    package_id = await hosting.add_package("Starter", limits={"bandwidth_bytes": 5 * GB})
    account_id = await shop.add_account("ada", package_id)
    await metered.say(2 * GB, month=int(f"{metered.now:%Y%m}"))

    usage = await shop.ask("GET", f"/resellers/{shop.id}/usage", expect=200)
    answer = await hosting.http.get(f"{API}/resellers/{shop.id}/usage-export", headers=shop.headers)

    (item,) = [item for item in usage["items"] if item["limit"] == "bandwidth_bytes"]
    assert (item["promised"], item["used"]) == (5 * GB, 2 * GB)
    rows = csv.DictReader(io.StringIO(answer.text))
    assert [(row["account_id"], row["last"]) for row in rows if row["limit"] == "bandwidth_bytes"] == [
        (account_id, str(2 * GB))
    ]
