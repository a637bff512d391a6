"""What needs a person: one list, with what may be done, and a way to put something aside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, update

from controller.core.tenancy.models import Reseller
from controller.fleet.models import DriftFindingRow, Node
from controller.fleet.nodes.health_models import NodeSignals
from controller.jobs.holds import HoldKind, NodeHold
from controller.jobs.models import Job
from controller.jobs.states import JobState
from shared.protocol.job import Semantics
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.test_parked import park_site


async def attention(hosting: Hosting, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hosting.get("/attention", **query))["items"]
    return items


async def fail_job(hosting: Hosting, **values: Any) -> str:
    job = await hosting.last_job(await hosting.add_account("ada"))
    changed = {"state": JobState.EXPIRED, "error_code": "expired", "error_message": "too late", **values}
    async with hosting.database.write() as session:
        await session.execute(update(Job).where(Job.id == job.id).values(changed))
    return job.id


async def test_attention_of_a_calm_fleet_is_empty(hosting: Hosting) -> None:
    await hosting.finish(await hosting.add_account("ada"))

    page = await hosting.get("/attention")

    assert (page["items"], page["critical"], page["warning"]) == ([], 0, 0)


async def test_attention_lists_a_failed_job_with_what_may_be_done(hosting: Hosting) -> None:
    job_id = await fail_job(hosting)

    (item,) = await attention(hosting)

    assert (item["id"], item["kind"], item["node_name"]) == (f"job.{job_id}", "job", "node1")
    assert item["detail"] == "too late"
    assert [action["name"] for action in item["actions"]] == ["explain", "retry", "discard"]
    assert item["actions"][1]["command"] == f"wcp360 jobs retry {job_id}"


async def test_attention_forgets_a_failed_job_when_a_newer_one_follows(hosting: Hosting) -> None:
    job_id = await fail_job(hosting)
    account_id = (await hosting.get("/accounts"))["items"][0]["id"]

    await hosting.post(f"/accounts/{account_id}/converge", expect=202)

    assert job_id not in str(await attention(hosting))


async def test_attention_lists_parked_resources_once(hosting: Hosting) -> None:
    await park_site(hosting)

    (item,) = await attention(hosting)

    assert (item["kind"], item["title"], item["detail"]) == ("parked", "site/a.example is parked", "unknown directive")


async def test_attention_lists_sick_nodes_and_drift_and_mutes_those_in_maintenance(hosting: Hosting) -> None:
    now = datetime.now(UTC)
    node_id = await hosting.add_node("node2")
    async with hosting.database.write() as session:
        reason = {"kind": "offline", "severity": "critical", "message": "offline since yesterday", "since": None}
        session.add(NodeSignals(id=node_id, status="unhealthy", reasons=[reason], status_changed_at=now))
        session.add(
            DriftFindingRow(
                node_id=node_id, subject="account/ada", key="site/x", summary="edited", found_at=now, checked_at=now
            )
        )

    items = {item["kind"]: item for item in await attention(hosting)}
    assert items["node"]["title"] == "node node2 is unhealthy: offline"
    assert items["drift"]["detail"] == "edited"
    assert not items["node"]["is_muted"]

    async with hosting.database.write() as session:
        session.add(
            NodeHold(
                node_id=node_id, kind=HoldKind.MAINTENANCE, reason="disk", actor="user/1", actor_name="ada", since=now
            )
        )
    page = await hosting.get("/attention")
    assert {item["is_muted"] for item in page["items"]} == {True}
    assert (page["critical"], page["warning"]) == (0, 0)


async def test_attention_lists_machines_that_wait_for_approval(hosting: Hosting) -> None:
    node_id = await hosting.add_node("node2")
    async with hosting.database.write() as session:
        await session.execute(update(Node).where(Node.id == node_id).values(state="pending"))

    (item,) = await attention(hosting)

    assert [action["name"] for action in item["actions"]] == ["approve", "reject"]


async def test_dismissed_item_stays_away_until_it_says_something_else(hosting: Hosting) -> None:
    job_id = await fail_job(hosting)
    await hosting.post(f"/attention/job.{job_id}/dismiss", {"note": "known"}, expect=200)

    assert await attention(hosting) == []
    (item,) = await attention(hosting, with_dismissed="true")
    assert (item["dismissed_by"], item["dismiss_note"]) == ("root", "known")

    async with hosting.database.write() as session:
        await session.execute(update(Job).where(Job.id == job_id).values(state=JobState.STUCK))
    assert [item["severity"] for item in await attention(hosting)] == ["critical"]


async def test_undismissed_item_is_back(hosting: Hosting) -> None:
    job_id = await fail_job(hosting)
    await hosting.post(f"/attention/job.{job_id}/dismiss", {"note": "known"}, expect=200)

    await hosting.post(f"/attention/job.{job_id}/undismiss", expect=200)

    assert len(await attention(hosting)) == 1
    await hosting.post(f"/attention/job.{job_id}/undismiss", expect=409)
    await hosting.post("/attention/job.none/dismiss", {"note": "x"}, expect=404)


async def test_retry_of_many_answers_for_each(hosting: Hosting) -> None:
    job_id = await fail_job(hosting)
    body = {"ids": [f"job.{job_id}", "drift.1", "job.none"]}

    result = await hosting.post("/attention/retry", body, expect=202)

    codes = [item["error_code"] for item in result["items"]]
    assert (result["done"], codes) == (1, [None, "conflict", "not_found"])
    problem = await hosting.post("/attention/retry", {"ids": ["none"]}, expect=400)
    assert problem["errors"][0]["field"] == "ids"


async def test_indeterminate_job_that_must_not_run_twice_is_not_retried_in_bulk(hosting: Hosting) -> None:
    job_id = await fail_job(hosting, state=JobState.INDETERMINATE, semantics=Semantics.ONCE)

    result = await hosting.post("/attention/retry", {"ids": [f"job.{job_id}"]}, expect=202)

    assert result["items"][0]["error_code"] == "needs_decision"
    (item,) = await attention(hosting)
    assert [action["name"] for action in item["actions"]] == ["explain", "done", "again", "discard"]


async def test_attention_pages_by_its_cursor(hosting: Hosting) -> None:
    now = datetime.now(UTC)
    node_id = (await hosting.get("/attention"))["items"] or await hosting.add_node("node2")
    async with hosting.database.write() as session:
        for number in range(3):
            session.add(
                DriftFindingRow(
                    node_id=str(node_id), subject="account/ada", key=f"site/{number}", summary="edited",
                    found_at=now, checked_at=now,
                )
            )  # fmt: skip

    first = await hosting.get("/attention", limit=2)
    second = await hosting.get("/attention", limit=2, cursor=first["next_cursor"])

    assert [len(first["items"]), len(second["items"]), second["next_cursor"]] == [2, 1, None]
    assert len({item["id"] for item in (*first["items"], *second["items"])}) == 3


async def fill(hosting: Hosting, count: int) -> None:
    """Drift of one moment, sick nodes of others, and as many resellers that handed out more than they have."""
    now = datetime.now(UTC)
    node_id = await hosting.add_node("node2")
    async with hosting.database.write() as session:
        for number in range(count):
            session.add(
                DriftFindingRow(
                    node_id=node_id, subject="account/ada", key=f"site/{number}", summary="edited",
                    found_at=now, checked_at=now,
                )
            )  # fmt: skip
    for number in range(count):
        shop = await hosting.post("/resellers", {"name": f"Shop {number}", "email": "a@example.com"}, expect=201)
        client = {"name": "c", "email": "c@example.com", "reseller_id": shop["id"]}
        await hosting.post("/clients", client, expect=201)
        await hosting.patch(f"/resellers/{shop['id']}", {"caps": {"clients": 0}}, expect=200)
        moment, sick = now if number else now + timedelta(seconds=5), await hosting.add_node(f"sick{number}")
        async with hosting.database.write() as session:
            await session.execute(update(Reseller).where(Reseller.id == shop["id"]).values(updated_at=moment))
            reason = {"kind": "offline", "severity": "critical", "message": "offline", "since": None}
            session.add(NodeSignals(id=sick, status="unhealthy", reasons=[reason], status_changed_at=moment))


async def test_attention_walked_item_by_item_is_the_whole_list(hosting: Hosting) -> None:
    await fill(hosting, 3)
    whole = await hosting.get("/attention", limit=200)

    walked: list[dict[str, Any]] = []
    cursor = None
    while cursor is not None or not walked:
        page = await hosting.get("/attention", limit=1, **({"cursor": cursor} if cursor else {}))
        walked += page["items"]
        cursor = page["next_cursor"]

    assert walked == whole["items"]
    assert [item["kind"] for item in walked] == [*["node"] * 3, "reseller", *["drift"] * 3, *["reseller"] * 2]
    assert {(page["critical"], page["warning"]) for page in (page, whole)} == {(3, 6)}


async def test_attention_goes_on_behind_an_item_that_is_gone(hosting: Hosting) -> None:
    await fill(hosting, 3)
    whole = [item["id"] for item in (await hosting.get("/attention"))["items"]]
    for number, item_id in enumerate(whole):
        cursor = (await hosting.get("/attention", limit=number + 1))["next_cursor"]
        if not item_id.startswith("drift."):
            continue
        async with hosting.database.write() as session:
            await session.execute(delete(DriftFindingRow).where(DriftFindingRow.id == item_id.partition(".")[2]))

        assert [item["id"] for item in await attention(hosting, cursor=cursor)] == whole[number + 1 :]
        break


async def test_attention_refuses_a_cursor_that_it_never_gave(hosting: Hosting) -> None:
    for cursor in ("x", "bm9uZQ", "W3RydWUsIDEsICJ4Il0", "WzEsIjIwMjYtMDEtMDFUMDA6MDA6MDAiLCJ4Il0", "é"):
        problem = await hosting.get("/attention", cursor=cursor, expect=400)
        assert problem["errors"][0]["field"] == "cursor"


async def test_dismissed_item_is_in_no_count_and_a_stale_dismissal_hides_nothing(hosting: Hosting) -> None:
    await fill(hosting, 2)
    items = await attention(hosting)
    for kind in ("node", "drift", "reseller"):
        item = next(item for item in items if item["kind"] == kind)
        await hosting.post(f"/attention/{item['id']}/dismiss", {"note": f"known {kind}"}, expect=200)

    page = await hosting.get("/attention")
    everything = await hosting.get("/attention", with_dismissed="true")

    assert (len(page["items"]), page["critical"], page["warning"]) == (3, 1, 2)
    assert (len(everything["items"]), everything["critical"], everything["warning"]) == (6, 1, 2)
    async with hosting.database.write() as session:
        await session.execute(update(NodeSignals).values(status="degraded"))
    assert [item["severity"] for item in await attention(hosting, kind="node")] == ["warning"] * 2
