"""The usage ledger: what was used, who is told, and what is done about an account that stays over a limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.accounts.manifest import THROTTLED_CPU_PERCENT, THROTTLED_IO_WEIGHT
from controller.core.events.publisher import Topic
from controller.core.policies.registry import PlatformPolicies
from controller.core.usage.measure import UsageLedger
from controller.core.usage.models import OveruseCase, UsageDay
from shared.specs.account import AccountSpec, ResourceLimits
from shared.specs.base import Presence
from tests.integration.controller.hosting import Hosting

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Clock:
    """The time as the controller's changes take it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock(hosting: Hosting) -> Clock:
    clock = Clock()
    hosting.operations._clock = clock
    return clock


async def measure(hosting: Hosting) -> None:
    await UsageLedger(hosting.operations).run()


async def use_of(hosting: Hosting, account_id: str, key: str = "sites") -> dict[str, Any]:
    items = (await hosting.get(f"/accounts/{account_id}/usage"))["items"]
    return next(item for item in items if item["limit"] == key)


async def add_crowded(hosting: Hosting, *, sites: int, **fields: Any) -> tuple[str, str]:
    """An account with some sites, and its package."""
    account_id = await hosting.add_account("ada", **fields)
    for number in range(sites):
        await hosting.add_site(account_id, f"s{number}.example")
    return account_id, str((await hosting.get(f"/accounts/{account_id}"))["package_id"])


async def allow(hosting: Hosting, package_id: str, sites: int) -> None:
    await hosting.patch(f"/packages/{package_id}", {"limits": {"sites": sites}}, expect=202)


async def last_limits(hosting: Hosting, account_id: str) -> ResourceLimits:
    specs = (await hosting.last_manifest(account_id)).specs
    return next(spec.limits for spec in specs if isinstance(spec, AccountSpec))


async def test_usage_says_now_and_peak_and_what_is_not_counted_yet(hosting: Hosting, clock: Clock) -> None:
    account_id, _ = await add_crowded(hosting, sites=2, limits={"sites": {"soft": 3, "hard": 5}, "mailboxes": 7})
    await measure(hosting)
    site_id = (await hosting.get("/sites"))["items"][0]["id"]
    await hosting.delete(f"/sites/{site_id}", expect=202)

    sites, mailboxes = await use_of(hosting, account_id), await use_of(hosting, account_id, "mailboxes")

    assert (sites["used"], sites["peak"], sites["soft"], sites["hard"], sites["state"]) == (1, 2, 3, 5, "ok")
    assert datetime.fromisoformat(sites["peak_at"]) == START
    assert (mailboxes["used"], mailboxes["hard"], mailboxes["state"]) == (None, 7, "unknown")


async def test_history_keeps_each_day_its_last_and_its_peak(hosting: Hosting, clock: Clock) -> None:
    account_id, package_id = await add_crowded(hosting, sites=2)
    await measure(hosting)
    clock.pass_by(days=1)
    await measure(hosting)
    await hosting.add_site(account_id, "more.example")
    await measure(hosting)

    first = await hosting.get(f"/accounts/{account_id}/usage-history", key="sites", limit=1)
    second = await hosting.get(
        f"/accounts/{account_id}/usage-history", key="sites", limit=1, cursor=first["next_cursor"]
    )
    whole = await hosting.get(f"/packages/{package_id}/usage-history", key="sites")

    assert [(item["day"], item["last"], item["peak"]) for item in (*first["items"], *second["items"])] == [
        ("2026-11-02", 3, 3), ("2026-11-01", 2, 2),
    ]  # fmt: skip
    assert second["next_cursor"] is None
    assert [item["last"] for item in whole["items"]] == [3, 2]
    problem = await hosting.get(f"/accounts/{account_id}/usage-history", expect=400, key="chairs")
    assert problem["errors"][0]["field"] == "key"
    await hosting.get(f"/accounts/{account_id}/usage-history", expect=400, cursor="yesterday")


async def test_history_when_a_year_is_over_is_forgotten(hosting: Hosting, clock: Clock) -> None:
    await add_crowded(hosting, sites=0)
    await measure(hosting)
    before = await hosting.count(UsageDay)
    clock.pass_by(days=PlatformPolicies().usage_retention_days + 1)

    await measure(hosting)

    assert (before, await hosting.count(UsageDay)) == (4, 4)


async def test_usage_of_a_package_adds_up_its_accounts(hosting: Hosting, clock: Clock) -> None:
    account_id, package_id = await add_crowded(hosting, sites=2, limits={"sites": {"soft": 1, "hard": 5}})
    body = {"name": "bob", "client_id": await hosting.add_client(), "package_id": package_id}
    await hosting.post("/accounts", body, expect=202)
    await hosting.add_account("eve")
    await measure(hosting)

    package = {item["limit"]: item for item in (await hosting.get(f"/packages/{package_id}/usage"))["items"]}
    total = {item["limit"]: item for item in (await hosting.get("/usage"))["items"]}

    sites = package["sites"]
    assert (sites["accounts"], sites["used"], sites["promised"], sites["peak_of_one"]) == (2, 2, 10, 2)
    assert (sites["near"], sites["over"], package["domains"]["unlimited"]) == (1, 0, 2)
    assert (total["sites"]["accounts"], total["sites"]["unlimited"], total["sites"]["used"]) == (3, 1, 2)
    assert (await use_of(hosting, account_id))["state"] == "near"


async def test_account_over_a_limit_is_told_of_once_and_again_when_it_is_within(hosting: Hosting, clock: Clock) -> None:
    _, package_id = await add_crowded(hosting, sites=3, limits={"sites": {"soft": 2, "hard": 5}})
    seen = []
    with hosting.publisher.subscribe() as subscription:
        subscription.topics = frozenset({Topic.ACCOUNTS.value})
        for sites in (5, 2, 2, 9):
            await hosting.patch(
                f"/packages/{package_id}", {"limits": {"sites": {"soft": 2 if sites == 5 else None, "hard": sites}}},
                expect=202,
            )  # fmt: skip
            await measure(hosting)
            items = [i for i in (await hosting.get("/attention"))["items"] if i["kind"] == "usage"]
            seen.append([(item["severity"], item["title"]) for item in items])
        events = []
        while len(events) < 3:
            notice = await subscription.next(5.0)
            assert notice is not None
            events.append(notice.event)

    assert events == ["account.near_limit", "account.over_limit", "account.within_limit"]
    assert seen == [
        [("warning", "account ada nears its limit of sites")],
        [("critical", "account ada is over its limit of sites")],
        [("critical", "account ada is over its limit of sites")],
        [],
    ]
    actions = [item["action"] for item in (await hosting.get("/audit"))["items"]]
    assert actions.count("account.over_limit") == 1


async def test_account_that_stays_over_is_suspended_after_the_grace_and_restored_within(
    hosting: Hosting, clock: Clock
) -> None:
    account_id, package_id = await add_crowded(hosting, sites=2, overuse={"action": "suspend", "grace_hours": 24})
    await allow(hosting, package_id, 1)
    states = []
    for hours in (0, 23, 1, 1):
        clock.pass_by(hours=hours)
        await measure(hosting)
        states.append((await hosting.get(f"/accounts/{account_id}"))["state"])

    assert states == ["active", "active", "suspended", "suspended"]
    account = await hosting.get(f"/accounts/{account_id}")
    assert account["suspension_reason"] == "over the limit: 2 sites of 1"
    assert (await hosting.last_manifest(account_id)).presence is Presence.DISABLED
    usage = await hosting.get(f"/accounts/{account_id}/usage")
    assert (usage["overuse_action"], datetime.fromisoformat(usage["overuse_since"])) == ("suspended", START)

    await allow(hosting, package_id, 2)
    await measure(hosting)

    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "active"
    assert (await hosting.last_manifest(account_id)).presence is Presence.ENABLED
    assert await hosting.count(OveruseCase) == 0


async def test_suspension_by_hand_is_not_lifted_by_policy_nor_made_twice(hosting: Hosting, clock: Clock) -> None:
    account_id, package_id = await add_crowded(hosting, sites=2, overuse={"action": "suspend", "grace_hours": 0})
    await allow(hosting, package_id, 1)
    await measure(hosting)
    await hosting.post(f"/accounts/{account_id}/unsuspend", expect=202)
    clock.pass_by(hours=1)

    await measure(hosting)
    lifted = (await hosting.get(f"/accounts/{account_id}"))["state"]
    clock.pass_by(hours=1)
    await hosting.post(f"/accounts/{account_id}/suspend", {"reason": "unpaid"}, expect=202)
    await allow(hosting, package_id, 9)
    await measure(hosting)

    assert lifted == "active"
    account = await hosting.get(f"/accounts/{account_id}")
    assert (account["state"], account["suspension_reason"]) == ("suspended", "unpaid")


async def test_account_that_stays_over_is_throttled_on_its_node_and_released(hosting: Hosting, clock: Clock) -> None:
    account_id, package_id = await add_crowded(
        hosting, sites=2, cpu_percent=200, memory_bytes=1 << 28, overuse={"action": "throttle", "grace_hours": 0}
    )
    await allow(hosting, package_id, 1)

    await measure(hosting)
    slow = await last_limits(hosting, account_id)
    await allow(hosting, package_id, 2)
    await measure(hosting)
    fast = await last_limits(hosting, account_id)

    assert slow == ResourceLimits(
        cpu_percent=THROTTLED_CPU_PERCENT, io_weight=THROTTLED_IO_WEIGHT, memory_bytes=1 << 28
    )
    assert fast == ResourceLimits(cpu_percent=200, memory_bytes=1 << 28)


async def test_policy_when_it_only_alerts_leaves_the_account_alone(hosting: Hosting, clock: Clock) -> None:
    account_id, package_id = await add_crowded(hosting, sites=2, overuse={"action": "alert", "grace_hours": 0})
    await allow(hosting, package_id, 1)
    clock.pass_by(days=90)

    await measure(hosting)

    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "active"
    assert (await use_of(hosting, account_id))["state"] == "over"
