"""An edit of a package that reaches its accounts in waves, and stops by itself when it does harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from controller.core.packages.rollouts.loop import PackageRolloutLoop
from controller.fleet.models import Node
from shared.protocol.job import ErrorBody
from shared.specs.account import MIB, AccountSpec
from tests.integration.controller.hosting import Hosting

OLD, NEW = 512 * MIB, 768 * MIB
BROKEN = ErrorBody(code="command_failed", message="systemctl failed")


class Waves:
    """Six accounts of one package, and the loop, turned by the test."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.loop = PackageRolloutLoop(hosting.operations, hosting.publisher)
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
        self.package_id = ""
        self.rollout_id = ""
        self.accounts: dict[str, str] = {}
        hosting.operations._clock = lambda: self.now

    async def prepare(self, count: int = 6) -> None:
        self.package_id = await self.hosting.add_package(memory_bytes=OLD)
        client_id = await self.hosting.add_client()
        for number in range(count):
            body = {"name": f"a{number}", "client_id": client_id, "package_id": self.package_id}
            account = (await self.hosting.post("/accounts", body, expect=202))["resource"]
            self.accounts[account["id"]] = account["name"]
            await self.hosting.finish(account["id"])

    async def edit(self, **body: Any) -> dict[str, Any]:
        terms = {"waves": ["1", "50%"], "soak_seconds": 60} | body.pop("rollout", {})
        answer = await self.hosting.patch(
            f"/packages/{self.package_id}", {"memory_bytes": NEW, **body, "rollout": terms}, expect=202
        )
        self.rollout_id = answer["resource"]["rollout_id"]
        return dict(answer)

    async def turn(self, seconds: float = 0) -> dict[str, Any]:
        self.now += timedelta(seconds=seconds)
        await self.loop.turn()
        return await self.rollout()

    async def rollout(self) -> dict[str, Any]:
        return dict(await self.hosting.get(f"/package-rollouts/{self.rollout_id}"))

    async def rows(self, state: str) -> list[dict[str, Any]]:
        items = (await self.hosting.get(f"/package-rollouts/{self.rollout_id}/accounts"))["items"]
        return [item for item in items if item["state"] == state]

    async def memory(self) -> dict[str, int | None]:
        """What each account's node was told last."""
        found = {}
        for account_id, name in self.accounts.items():
            specs = (await self.hosting.last_manifest(account_id)).specs
            found[name] = next(spec.limits.memory_bytes for spec in specs if isinstance(spec, AccountSpec))
        return found

    async def succeed(self) -> int:
        rows = await self.rows("sent")
        for row in rows:
            await self.hosting.finish(row["account_id"])
        return len(rows)

    async def set_connected(self, is_connected: bool) -> None:
        async with self.hosting.database.write() as session:
            await session.execute(update(Node).values(is_connected=is_connected))


@pytest.fixture
async def waves(hosting: Hosting) -> Waves:
    waves = Waves(hosting)
    await waves.prepare()
    return waves


async def test_edit_in_waves_takes_one_account_then_half_then_the_rest(waves: Waves) -> None:
    answer = await waves.edit()
    sizes = []
    for _ in range(3):
        await waves.turn(seconds=61)
        sizes.append(await waves.succeed())
        await waves.turn()
    view = await waves.turn()

    assert (answer["jobs"], sizes, view["state"]) == ([], [1, 2, 3], "finished")
    assert set((await waves.memory()).values()) == {NEW}
    accounts = [await waves.hosting.get(f"/accounts/{account_id}") for account_id in waves.accounts]
    assert {account["package_version_id"] for account in accounts} == {None}
    assert (await waves.hosting.get(f"/packages/{waves.package_id}"))["rollout_id"] is None
    audited = [entry["action"] for entry in (await waves.hosting.get("/audit"))["items"]]
    assert [action for action in audited if "rollout" in action] == ["package_rollout.finish", "package_rollout.create"]


async def test_accounts_whose_wave_has_not_come_keep_the_version_before(waves: Waves) -> None:
    await waves.edit()
    await waves.turn()
    await waves.succeed()
    view = await waves.turn(seconds=30)

    (reached,) = await waves.rows("succeeded")
    waiting = await waves.rows("waiting")
    told = await waves.memory()
    kept = (await waves.hosting.get(f"/packages/{waves.package_id}/versions/1"))["id"]
    assert told.pop(reached["account_name"]) == NEW
    assert set(told.values()) == {OLD}
    assert {row["version_before_id"] for row in waiting} == {kept}
    account = await waves.hosting.get(f"/accounts/{waiting[0]['account_id']}")
    assert account["package_version_id"] == kept
    assert "the next wave begins in" in view["blocked_by"]
    assert [(wave["accounts"], wave["succeeded"]) for wave in view["waves"]] == [(1, 1), (2, 0), (3, 0)]


async def test_failure_halts_and_is_told_of_and_nobody_else_is_touched(waves: Waves) -> None:
    await waves.edit()
    await waves.turn()
    (canary,) = await waves.rows("sent")
    await waves.hosting.finish(canary["account_id"], error=BROKEN)

    await waves.turn()
    view = await waves.turn(seconds=3600)

    assert view["state"] == "halted"
    assert "1 account failed, 0 allowed" in view["blocked_by"]
    assert "systemctl failed" in view["blocked_by"]
    assert len(await waves.rows("waiting")) == 5
    items = (await waves.hosting.get("/attention"))["items"]
    (item,) = [item for item in items if item["kind"] == "package_rollout"]
    assert (item["id"], item["severity"]) == (f"package_rollout.{waves.rollout_id}", "critical")
    assert [action["name"] for action in item["actions"]] == ["retry", "resume", "return"]
    told = await waves.memory()
    del told[canary["account_name"]]
    assert set(told.values()) == {OLD}


async def test_halted_rollout_resumed_with_retry_tries_the_failed_account_again(waves: Waves) -> None:
    await waves.edit(rollout={"soak_seconds": 0})
    await waves.turn()
    (canary,) = await waves.rows("sent")
    await waves.hosting.finish(canary["account_id"], error=BROKEN)
    await waves.turn()

    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/resume", {"is_retrying": True}, expect=200)
    await waves.turn()
    (again,) = await waves.rows("sent")
    for _ in range(6):
        await waves.succeed()
        view = await waves.turn()

    assert again["account_id"] == canary["account_id"]
    assert again["job_id"] != canary["job_id"]
    assert view["state"] == "finished"


async def test_halted_rollout_taken_back_leaves_everybody_with_what_they_had(waves: Waves) -> None:
    await waves.edit()
    await waves.turn()
    (canary,) = await waves.rows("sent")
    await waves.hosting.finish(canary["account_id"], error=BROKEN)
    await waves.turn()

    answer = await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/return", expect=202)

    package = await waves.hosting.get(f"/packages/{waves.package_id}")
    accounts = [await waves.hosting.get(f"/accounts/{account_id}") for account_id in waves.accounts]
    assert (answer["resource"]["state"], answer["resource"]["is_returned"]) == ("aborted", True)
    assert (package["memory_bytes"], package["version"], package["rollout_id"]) == (OLD, 3, None)
    assert {account["package_version_id"] for account in accounts} == {None}
    assert set((await waves.memory()).values()) == {OLD}
    assert canary["account_id"] in {job["account_id"] for job in answer["jobs"]}
    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/return", expect=409)


async def test_running_rollout_taken_back_leaves_nobody_sent(waves: Waves) -> None:
    await waves.edit()
    await waves.turn()
    (canary,) = await waves.rows("sent")

    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/return", expect=202)

    skipped = await waves.rows("skipped")
    assert (await waves.rows("sent"), len(skipped)) == ([], 6)
    assert canary["account_id"] in {row["account_id"] for row in skipped}


@pytest.mark.parametrize("what", ["pause", "abort"])
async def test_rollout_that_was_stopped_says_how_what_it_had_begun_ended(waves: Waves, what: str) -> None:
    await waves.edit()
    await waves.turn()
    (canary,) = await waves.rows("sent")
    stopped = await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/{what}", expect=200)

    waiting = await waves.turn()
    await waves.hosting.finish(canary["account_id"], error=BROKEN)
    view = await waves.turn()

    (failed,) = await waves.rows("failed")
    assert (await waves.rows("sent"), failed["account_id"]) == ([], canary["account_id"])
    assert waiting["state"] == view["state"] == stopped["state"]
    assert len(await waves.rows("waiting" if what == "pause" else "skipped")) == 5


async def test_aborted_rollout_leaves_accounts_pinned_and_the_next_one_takes_them_along(waves: Waves) -> None:
    await waves.edit(rollout={"soak_seconds": 0})
    await waves.turn()
    await waves.succeed()
    await waves.turn()
    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/abort", expect=200)
    aborted = await waves.rollout()

    await waves.edit(memory_bytes=NEW + MIB, rollout={"waves": ["100%"]})
    await waves.turn()
    sent = await waves.rows("sent")

    assert (aborted["state"], aborted["is_returned"]) == ("aborted", False)
    assert len(sent) == 6
    assert set((await waves.memory()).values()) == {NEW + MIB}


async def test_edit_while_a_rollout_is_open_is_refused_for_it_and_its_heirs(waves: Waves) -> None:
    heir = await waves.hosting.add_package("Heir", parent_id=waves.package_id)
    body = {"name": "heir", "client_id": await waves.hosting.add_client(), "package_id": heir}
    await waves.hosting.post("/accounts", body, expect=202)
    await waves.edit()

    own = await waves.hosting.patch(f"/packages/{waves.package_id}", {"memory_bytes": OLD}, expect=409)
    below = await waves.hosting.patch(f"/packages/{heir}", {"cpu_percent": 50}, expect=409)

    assert waves.rollout_id in own["hint"]
    assert waves.rollout_id in below["hint"]
    view = await waves.rollout()
    assert sum(wave["accounts"] for wave in view["waves"]) == 7
    assert (await waves.hosting.get(f"/packages/{heir}"))["rollout_id"] == waves.rollout_id
    listed = await waves.hosting.get("/package-rollouts", package_id=waves.package_id)
    assert [item["id"] for item in listed["items"]] == [waves.rollout_id]


async def test_paused_rollout_reaches_nobody_until_it_is_resumed(waves: Waves) -> None:
    await waves.edit()
    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/pause", expect=200)
    await waves.turn()
    paused = await waves.rows("sent")
    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/pause", expect=409)

    await waves.hosting.post(f"/package-rollouts/{waves.rollout_id}/resume", {}, expect=200)
    await waves.turn()

    assert (len(paused), len(await waves.rows("sent"))) == (0, 1)


async def test_account_of_a_node_that_is_away_waits_and_says_why(waves: Waves) -> None:
    await waves.set_connected(False)
    await waves.edit()
    await waves.turn()
    view = await waves.turn()

    await waves.set_connected(True)
    await waves.turn()

    assert "no account of wave 1 can take it now" in view["blocked_by"]
    assert "(not connected)" in view["blocked_by"]
    assert len(await waves.rows("sent")) == 1


async def test_account_that_got_another_package_meanwhile_is_passed_over(waves: Waves) -> None:
    await waves.edit(rollout={"waves": ["100%"]})
    moved = next(iter(waves.accounts))
    other = await waves.hosting.add_package("Other")
    await waves.hosting.patch(f"/accounts/{moved}", {"package_id": other}, expect=202)
    await waves.turn()

    (skipped,) = await waves.rows("skipped")
    assert (skipped["account_id"], skipped["note"]) == (moved, "it has another package by now")


async def test_edit_that_no_node_must_know_goes_in_waves_without_jobs(waves: Waves) -> None:
    await waves.hosting.patch(
        f"/packages/{waves.package_id}",
        {"limits": {"sites": 3}, "rollout": {"waves": ["100%"], "soak_seconds": 0}},
        expect=202,
    )
    waves.rollout_id = (await waves.hosting.get("/package-rollouts"))["items"][0]["id"]
    await waves.turn()
    view = await waves.turn()

    assert (view["state"], len(await waves.rows("succeeded"))) == ("finished", 6)


async def test_edit_in_waves_with_bad_waves_names_the_field_and_changes_nothing(waves: Waves) -> None:
    body = {"memory_bytes": NEW, "rollout": {"waves": ["50%", "10%"]}}
    problem = await waves.hosting.patch(f"/packages/{waves.package_id}", body, expect=400)
    planned = await waves.hosting.patch(
        f"/packages/{waves.package_id}", {"memory_bytes": NEW, "rollout": {}}, expect=200, dry_run=True
    )

    assert problem["errors"][0]["field"] == "rollout.waves"
    assert [change["action"] for change in planned["changes"]] == ["package_rollout.create", "package.update"]
    assert (planned["nodes"], planned["unplanned"]) == ([], 6)
    assert (await waves.hosting.get(f"/packages/{waves.package_id}"))["version"] == 1
    assert (await waves.hosting.get("/package-rollouts"))["items"] == []
    await waves.hosting.get("/package-rollouts/nothing", expect=404)
