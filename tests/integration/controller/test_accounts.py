"""Accounts: their life, what the node is told, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from controller.core.accounts.fleet import RECONVERGE_NODE, Reconvergence
from controller.core.accounts.models import Account
from controller.fleet.models import Node, NodeState
from controller.jobs.models import Job
from controller.jobs.tasks import TaskRun
from shared.protocol.job import ErrorBody, Proof
from shared.specs.account import MIN_TENANT_UID, AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy, Suspension
from tests.integration.controller.hosting import Hosting

MIB = 1024 * 1024


async def test_create_account_answers_202_with_the_job_for_its_node(hosting: Hosting) -> None:
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}

    answer = await hosting.http.post("/api/v1/accounts", json=body)

    account, (job,) = answer.json()["resource"], answer.json()["jobs"]
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (account["state"], account["desired_generation"], account["uid"]) == ("active", 1, MIN_TENANT_UID)
    assert account["observed_status"] == "unknown"
    assert not account["is_converged"]
    assert (job["resource_key"], job["state"], job["account_id"]) == ("account/ada", "requested", account["id"])
    assert hosting.engine.notified == 1
    manifest = await hosting.last_manifest(account["id"])
    assert (manifest.subject, manifest.generation, manifest.presence) == ("account/ada", 1, Presence.ENABLED)


async def test_account_when_its_node_has_applied_is_converged_with_proofs(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=64 * MIB)
    proof = Proof(
        resource="account/ada",
        limit="memory_bytes",
        wanted=64 * MIB,
        enforced=64 * MIB,
        source="/sys/fs/cgroup/user.slice/user-20000.slice/memory.max",
        read_at=1_800_000_000.0,
    )

    await hosting.finish(account_id, proofs=(proof,))

    account = await hosting.get(f"/accounts/{account_id}")
    assert (account["observed_generation"], account["observed_status"], account["is_converged"]) == (1, "ok", True)
    (shown,) = (await hosting.get(f"/accounts/{account_id}/proofs"))["items"]
    assert (shown["limit"], shown["enforced"], shown["is_proven"]) == ("memory_bytes", 64 * MIB, True)
    assert shown["read_at"].startswith("2027-01-15T08:00:00")


async def test_proofs_when_read_again_show_the_latest_only(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    old = Proof(resource="account/ada", limit="disk_bytes", wanted=5, enforced=None, source="btrfs", read_at=1.0)
    gone = Proof(resource="php_pool/ada-8.2", limit="children_max", wanted=5, enforced=5, source="pool", read_at=1.0)
    await hosting.finish(account_id, proofs=(old, gone))
    before = (await hosting.get(f"/accounts/{account_id}/proofs"))["items"]

    await hosting.post(f"/accounts/{account_id}/converge", expect=202)
    await hosting.finish(account_id, proofs=(Proof(**{**_fields(old), "enforced": 5, "read_at": 2.0}),))

    after = (await hosting.get(f"/accounts/{account_id}/proofs"))["items"]
    assert [item["is_proven"] for item in before] == [False, True]
    assert [(item["resource"], item["is_proven"], item["generation"]) for item in after] == [("account/ada", True, 2)]


def _fields(proof: Proof) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in proof.__struct_fields__}


async def test_account_when_its_node_fails_keeps_the_last_good_generation(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.finish(account_id)
    await hosting.post(f"/accounts/{account_id}/converge", expect=202)

    await hosting.finish(account_id, error=ErrorBody(code="command_failed", message="useradd failed"))

    account = await hosting.get(f"/accounts/{account_id}")
    assert (account["desired_generation"], account["observed_generation"]) == (2, 1)
    assert (account["observed_status"], account["observed_code"]) == ("failed", "command_failed")
    assert account["observed_message"] == "useradd failed"


async def test_suspend_and_unsuspend_change_presence_and_nothing_else(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "example.com")
    before = await hosting.last_manifest(account_id)

    suspended = await hosting.post(f"/accounts/{account_id}/suspend", {"reason": "unpaid"}, expect=202)
    while_suspended = await hosting.last_manifest(account_id)
    unsuspended = await hosting.post(f"/accounts/{account_id}/unsuspend", expect=202)
    after = await hosting.last_manifest(account_id)

    assert (suspended["resource"]["state"], suspended["resource"]["suspension_reason"]) == ("suspended", "unpaid")
    assert while_suspended.presence is Presence.DISABLED
    assert while_suspended.suspension == Suspension(reason="unpaid")
    assert unsuspended["resource"]["suspended_at"] is None
    assert after.presence is Presence.ENABLED
    assert while_suspended.specs == after.specs == before.specs
    assert [before.generation, while_suspended.generation, after.generation] == [2, 3, 4]


async def test_suspend_twice_and_unsuspend_when_active_are_conflicts(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    await hosting.post(f"/accounts/{account_id}/unsuspend", expect=409)
    await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=202)
    await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=409)

    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 2


async def test_delete_account_frees_name_and_domains_only_when_the_node_has_removed_it(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "example.com")
    await hosting.finish(account_id)
    assert (await hosting.get("/accounts", state="deleted"))["items"] == []
    other_id = await hosting.add_account("bob")

    deleting = await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)
    manifest = await hosting.last_manifest(account_id)
    await hosting.post("/sites", {"account_id": other_id, "domain": "example.com"}, expect=409)
    await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=409)
    await hosting.delete(f"/accounts/{account_id}", expect=409, grace_days=0)
    await hosting.finish(account_id)

    assert deleting["resource"]["state"] == "deleting"
    assert manifest.presence is Presence.ABSENT
    assert {spec.key for spec in manifest.specs} == {"account/ada", "site/example.com"}
    await hosting.get(f"/accounts/{account_id}", expect=404)
    assert (await hosting.get("/sites"))["items"] == []
    await hosting.add_site(other_id, "example.com")


async def test_delete_account_when_the_node_could_not_remove_all_goes_on_deleting(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "example.com")
    await hosting.finish(account_id)
    await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)

    await hosting.finish(account_id, parked={"site/example.com": "device or resource busy"})

    account = await hosting.get(f"/accounts/{account_id}")
    assert (account["state"], account["observed_status"]) == ("deleting", "parked")
    assert account["observed_message"] == "device or resource busy"
    assert [item["name"] for item in (await hosting.get("/domains"))["items"]] == ["example.com"]
    await hosting.post(f"/accounts/{account_id}/converge", expect=202)
    await hosting.finish(account_id)
    await hosting.get(f"/accounts/{account_id}", expect=404)


async def test_create_account_after_a_deletion_continues_the_generations_of_the_name(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)
    await hosting.finish(account_id)

    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}
    again = (await hosting.post("/accounts", body, expect=202))["resource"]

    assert (again["desired_generation"], again["uid"]) == (3, MIN_TENANT_UID + 1)
    assert again["observed_generation"] == 0


async def test_result_of_a_deleted_account_never_touches_its_successor(hosting: Hosting) -> None:
    old_id = await hosting.add_account("ada")
    await hosting.delete(f"/accounts/{old_id}", expect=202, grace_days=0)
    await hosting.finish(old_id)
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}
    new_id = (await hosting.post("/accounts", body, expect=202))["resource"]["id"]

    await hosting.finish(old_id)

    account = await hosting.get(f"/accounts/{new_id}")
    assert (account["observed_status"], account["observed_generation"]) == ("unknown", 0)


async def test_change_of_an_account_on_a_revoked_node_is_refused_at_once(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    async with hosting.database.write() as session:
        await session.execute(update(Node).values(state=NodeState.REVOKED))

    for path, body in (("suspend", {"reason": "x"}), ("converge", None)):
        problem = await hosting.post(f"/accounts/{account_id}/{path}", body, expect=409)
        assert problem["code"] == "node_revoked"
        assert problem["hint"]


async def test_delete_account_on_a_revoked_node_is_done_at_once(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example")
    await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)
    async with hosting.database.write() as session:
        await session.execute(update(Node).values(state=NodeState.REVOKED))

    answer = await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)

    assert (answer["resource"]["state"], answer["resource"]["node_id"], answer["jobs"]) == ("deleted", None, [])
    assert (await hosting.get("/domains"))["items"] == (await hosting.get("/sites"))["items"] == []
    async with hosting.database.write() as session:
        await session.execute(delete(Node))  # nothing refers to it any more


async def test_update_account_gives_another_package_once(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=64 * MIB)
    package_id = await hosting.add_package("Pro", memory_bytes=256 * MIB)

    first = await hosting.patch(f"/accounts/{account_id}", {"package_id": package_id}, expect=202)
    second = await hosting.patch(f"/accounts/{account_id}", {"package_id": package_id}, expect=202)

    (spec,) = (await hosting.last_manifest(account_id)).specs
    assert isinstance(spec, AccountSpec)
    assert spec.limits.memory_bytes == 256 * MIB
    assert len(first["jobs"]) == 1
    assert second["jobs"] == []


@pytest.mark.parametrize("rules", [{"limits": {"sites": 1}}, {"php_versions": []}])
async def test_update_account_to_a_package_that_is_too_small_is_refused(
    hosting: Hosting, rules: dict[str, Any]
) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example", php_version="8.2")
    await hosting.add_site(account_id, "b.example")
    package_id = await hosting.add_package("Tiny", **rules)

    problem = await hosting.patch(f"/accounts/{account_id}", {"package_id": package_id}, expect=409)

    assert problem["code"] == "quota_exceeded"
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 3


async def test_create_account_with_a_taken_name_is_a_conflict(hosting: Hosting) -> None:
    await hosting.add_account("ada")
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}

    problem = await hosting.post("/accounts", body, expect=409)

    assert "'ada'" in problem["detail"]
    assert await hosting.count(Account) == 1


async def test_create_account_twice_at_once_gives_one_account_and_one_conflict(hosting: Hosting) -> None:
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}

    answers = await asyncio.gather(*(hosting.http.post("/api/v1/accounts", json=body) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert await hosting.count(Account) == 1
    assert await hosting.count(Job) == 1
    assert (await hosting.get("/audit/verify"))["is_intact"]


async def test_create_account_without_a_node_takes_the_one_with_room(hosting: Hosting) -> None:
    roomy = await hosting.add_node("node2")
    await hosting.add_account("ada", node_id=roomy)

    second = await hosting.add_account("bob")

    assert (await hosting.get(f"/accounts/{second}"))["node_id"] != roomy


async def test_create_account_on_a_cordoned_node_is_a_conflict(hosting: Hosting) -> None:
    node_id = await hosting.add_node("node2", is_cordoned=True)
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}

    await hosting.post("/accounts", {**body, "node_id": node_id}, expect=409)

    assert await hosting.count(Account) == 0


async def test_manifest_carries_the_drift_policy_of_the_node(hosting: Hosting) -> None:
    node_id = await hosting.add_node("node2", drift_policy=DriftPolicy.REPAIR)
    account_id = await hosting.add_account("ada", node_id=node_id)

    shown = await hosting.get(f"/accounts/{account_id}/manifest")

    assert shown["drift_policy"] == "repair"
    assert shown["specs"][0]["kind"] == "account"
    assert (await hosting.last_manifest(account_id)).drift_policy is DriftPolicy.REPAIR


async def test_check_drift_asks_the_node_about_this_account_only(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    answer = await hosting.post(f"/accounts/{account_id}/drift-check", expect=202)

    assert [(job["action"], job["mode"]) for job in answer["jobs"]] == [("manifest.drift@1", "plan")]
    assert answer["resource"]["desired_generation"] == 1
    assert (await hosting.get(f"/accounts/{account_id}/drift"))["items"] == []


async def test_list_accounts_filters_by_each_noun(hosting: Hosting) -> None:
    account_id = await hosting.add_account("zoe")
    await hosting.add_account("bob")
    account = await hosting.get(f"/accounts/{account_id}")
    await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=202)

    async def ids(**query: Any) -> list[str]:
        return [item["id"] for item in (await hosting.get("/accounts", **query))["items"]]

    assert await ids(client_id=account["client_id"]) == [account_id]
    assert await ids(package_id=account["package_id"]) == [account_id]
    assert len(await ids(node_id=account["node_id"])) == 2
    assert await ids(state="suspended") == [account_id]
    assert await ids(search="ZO") == [account_id]
    assert await ids(state="deleted") == []
    assert (
        await hosting.wrong_fields("GET", "/accounts", [({"state": "x"}, "state"), ({"node_id": "x"}, "node_id")]) == []
    )


async def test_reconverge_asks_for_accounts_that_are_behind_and_that_nobody_works_on(hosting: Hosting) -> None:
    done_id = await hosting.add_account("ada")
    await hosting.finish(done_id)
    failed_id = await hosting.add_account("bob")
    await hosting.finish(failed_id, error=ErrorBody(code="x", message="x"))
    waiting_id = await hosting.add_account("eve")
    node_id = (await hosting.get(f"/accounts/{done_id}"))["node_id"]

    async def generations() -> list[int]:
        return [
            (await hosting.get(f"/accounts/{account_id}"))["desired_generation"]
            for account_id in (done_id, failed_id, waiting_id)
        ]

    kinds = {kind.name: kind for kind in Reconvergence(hosting.operations).kinds()}

    async def reconverge(*, is_everything: bool) -> None:
        args = {"node_id": node_id, "is_everything": is_everything}
        await kinds[RECONVERGE_NODE].run(TaskRun(task_id="t", args=args, attempts=1))

    await reconverge(is_everything=False)
    assert await generations() == [1, 2, 1]
    await reconverge(is_everything=True)
    assert await generations() == [2, 3, 2]


async def test_create_account_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    good = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}
    unknown = "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"
    names = [
        "",
        "a",
        "root",
        "www-data",
        "wcp-x",
        "../etc",
        "a\nb",
        "Ada",
        "ädä",
        "x" * 300,
        "ada_1",
        "-ada",
        "a--b",
        7,
        None,
    ]
    cases: list[tuple[Any, str]] = [
        *(({**good, "name": name}, "name") for name in names),
        ({**good, "client_id": unknown}, "client_id"),
        ({**good, "client_id": "x"}, "client_id"),
        ({**good, "package_id": unknown}, "package_id"),
        ({**good, "package_id": 5}, "package_id"),
        ({**good, "node_id": unknown}, "node_id"),
        ({**good, "node_id": "../node"}, "node_id"),
        ({**good, "uid": 0}, "uid"),
        ({"name": "ada"}, "client_id"),
        ([], ""),
    ]

    assert await hosting.wrong_fields("POST", "/accounts", cases) == []
    assert await hosting.count(Account) == 0
    assert await hosting.count(Job) == 0
    async with hosting.database.read() as session:
        assert (await session.scalars(select(Node.next_uid))).all() == [MIN_TENANT_UID]
