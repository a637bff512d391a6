"""Versions, inheritance, copies of packages, and what an edit would mean before it is saved."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.packages.models import Package, PackageVersion
from shared.specs.account import AccountSpec
from tests.integration.controller.hosting import Hosting

MIB = 1024 * 1024


async def package_of(hosting: Hosting, account_id: str) -> str:
    return str((await hosting.get(f"/accounts/{account_id}"))["package_id"])


async def fields_of(hosting: Hosting, package_id: str) -> dict[str, dict[str, Any]]:
    return {item["field"]: item for item in (await hosting.get(f"/packages/{package_id}/fields"))["items"]}


async def test_package_with_everything_it_can_say_is_shown_as_it_was_said(hosting: Hosting) -> None:
    body = {
        "name": "Pro",
        "tier": "reseller",
        "disk_bytes": 1024 * MIB,
        "limits": {"sites": 5, "mailboxes": {"soft": 8, "hard": 10}, "cron_jobs": None, "disk_bytes": {"soft": MIB}},
        "flags": {"ssh": True, "cron": False},
        "storage": {"driver": "nfs", "has_snapshots": True},
        "security": {
            "is_two_factor_required": True, "api_rate_tier": "low", "sessions_max": 3,
            "allowed_networks": ["192.0.2.0/24", "2001:db8::/32"], "process_restrictions": "strict",
        },
        "overuse": {"action": "suspend", "grace_hours": 24},
    }  # fmt: skip

    created = await hosting.post("/packages", body, expect=201)

    assert created["limits"] == {
        "sites": {"soft": None, "hard": 5},
        "mailboxes": {"soft": 8, "hard": 10},
        "disk_bytes": {"soft": MIB, "hard": None},
    }
    assert created["flags"] | {"ssh": True, "cron": False} == created["flags"]
    assert {name: created[name] for name in ("tier", "storage", "security", "overuse")} == {
        name: body[name] for name in ("tier", "storage", "security", "overuse")
    }
    assert (created["visibility"], created["reseller_id"], created["version"]) == ("global", None, 1)
    assert (await hosting.get("/packages"))["items"] == [created]


async def test_limits_and_features_when_listed_say_what_is_counted_and_obeyed(hosting: Hosting) -> None:
    limits = {item["key"]: item for item in (await hosting.get("/limits"))["items"]}
    features = {item["key"]: item for item in (await hosting.get("/features"))["items"]}

    assert {key for key, item in limits.items() if item["is_counted"]} == {
        "sites", "domains", "subdomains", "ssh_keys", "disk_bytes", "inodes", "memory_bytes", "processes_max",
        "bandwidth_bytes", "cpu_seconds",
    }  # fmt: skip
    assert (limits["memory_bytes"]["enforced_by"], limits["mailboxes"]["enforced_by"]) == ("node", "nobody")
    assert limits["sites"]["enforced_by"] == "core"
    assert {"ssh", "cron", "git", "staging", "ssl", "dns", "backup", "api", "runtimes", "custom_php"} < set(features)
    assert [key for key, item in features.items() if item["is_obeyed"]] == [
        "ssh", "api", "custom_php", "advanced_logs",
    ]  # fmt: skip


async def test_heir_has_its_parents_values_until_it_says_its_own(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent", memory_bytes=64 * MIB, limits={"sites": 5}, flags={"ssh": True})
    heir_id = await hosting.add_package("Heir", parent_id=parent_id, cpu_percent=50, disk_bytes=None)

    heir = await hosting.get(f"/packages/{heir_id}")
    fields = await fields_of(hosting, heir_id)

    assert (heir["memory_bytes"], heir["cpu_percent"], heir["limits"]["sites"]["hard"]) == (64 * MIB, 50, 5)
    assert heir["flags"]["ssh"] is True
    assert heir["own_fields"] == ["cpu_percent", "disk_bytes"]
    assert [fields[name]["source"] for name in ("memory_bytes", "cpu_percent", "flags.ssh", "io_weight")] == [
        "inherited", "own", "inherited", "default",
    ]  # fmt: skip
    assert fields["memory_bytes"]["package_name"] == "Parent"


async def test_parent_when_changed_reaches_heirs_and_their_accounts(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent", memory_bytes=64 * MIB, cpu_percent=100)
    account_id = await hosting.add_account("ada", parent_id=parent_id, cpu_percent=50)
    other_id = await hosting.add_account("bob", parent_id=parent_id, memory_bytes=None)

    answer = await hosting.patch(f"/packages/{parent_id}", {"memory_bytes": 128 * MIB}, expect=202)

    assert [job["account_id"] for job in answer["jobs"]] == [account_id]
    (spec,) = (await hosting.last_manifest(account_id)).specs
    assert isinstance(spec, AccountSpec)
    assert (spec.limits.memory_bytes, spec.limits.cpu_percent) == (128 * MIB, 50)
    heir_id = await package_of(hosting, account_id)
    newest = (await hosting.get(f"/packages/{heir_id}/versions"))["items"][0]
    assert (newest["number"], newest["note"]) == (2, "Parent changed")
    untouched = await hosting.get(f"/packages/{await package_of(hosting, other_id)}")
    assert (untouched["version"], untouched["memory_bytes"]) == (1, None)


async def test_inherit_takes_back_what_a_package_says_itself(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent", memory_bytes=64 * MIB, limits={"sites": 5})
    heir_id = await hosting.add_package("Heir", parent_id=parent_id, memory_bytes=None, limits={"sites": 9})

    answer = await hosting.patch(f"/packages/{heir_id}", {"inherit": ["memory_bytes", "limits.sites"]}, expect=202)

    assert (answer["resource"]["memory_bytes"], answer["resource"]["limits"]["sites"]["hard"]) == (64 * MIB, 5)
    assert answer["resource"]["own_fields"] == []


async def test_parent_that_would_make_a_circle_or_too_long_a_line_is_refused(hosting: Hosting) -> None:
    ids = [await hosting.add_package("P0")]
    for number in range(1, 5):
        ids.append(await hosting.add_package(f"P{number}", parent_id=ids[-1]))

    for package_id, parent_id in ((ids[0], ids[0]), (ids[0], ids[4]), (ids[1], ids[2])):
        problem = await hosting.patch(f"/packages/{package_id}", {"parent_id": parent_id}, expect=400)
        assert problem["errors"][0]["field"] == "parent_id"
    await hosting.post("/packages", {"name": "P5", "parent_id": ids[4]}, expect=400)
    above = await hosting.add_package("Above")
    await hosting.patch(f"/packages/{ids[0]}", {"parent_id": above}, expect=400)
    assert {item["version"] for item in (await hosting.get("/packages"))["items"]} == {1}


async def test_delete_package_from_which_another_inherits_is_a_conflict(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent")
    heir_id = await hosting.add_package("Heir", parent_id=parent_id)

    problem = await hosting.delete(f"/packages/{parent_id}", expect=409)
    assert "'Heir'" in problem["detail"]

    await hosting.patch(f"/packages/{heir_id}", {"parent_id": None}, expect=202)
    await hosting.delete(f"/packages/{parent_id}", expect=204)


async def test_every_edit_is_a_version_and_two_of_them_can_be_compared(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Pro", memory_bytes=64 * MIB)
    await hosting.patch(f"/packages/{package_id}", {"memory_bytes": 128 * MIB, "limits": {"sites": 3}}, expect=202)
    await hosting.patch(f"/packages/{package_id}", {"description": "for people"}, expect=202)
    await hosting.patch(f"/packages/{package_id}", {"description": "for people"}, expect=202)

    first = await hosting.get(f"/packages/{package_id}/versions", limit=2)
    second = await hosting.get(f"/packages/{package_id}/versions", limit=2, cursor=first["next_cursor"])
    diff = await hosting.get(f"/packages/{package_id}/diff", before=1, after=3)

    assert [item["number"] for item in (*first["items"], *second["items"])] == [3, 2, 1]
    assert {item["field"]: (item["before"], item["after"]) for item in diff["items"]} == {
        "description": ("", "for people"),
        "limits.sites": (None, {"soft": None, "hard": 3}),
        "memory_bytes": (64 * MIB, 128 * MIB),
    }
    old = await hosting.get(f"/packages/{package_id}/versions/1")
    assert (old["values"]["memory_bytes"], old["actor_name"]) == (64 * MIB, "root")
    await hosting.get(f"/packages/{package_id}/versions/4", expect=404)
    await hosting.get(f"/packages/{package_id}/diff", expect=404, before=1, after=99)


async def test_edit_when_run_dry_adds_no_version(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Pro")

    await hosting.patch(f"/packages/{package_id}", {"io_weight": 50}, expect=200, dry_run=True)

    assert await hosting.count(PackageVersion) == 1
    assert (await hosting.get(f"/packages/{package_id}"))["version"] == 1


async def test_account_that_is_pinned_keeps_its_version_until_it_follows_again(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=64 * MIB, limits={"sites": 1})
    package_id = await package_of(hosting, account_id)
    pinned = await hosting.post(f"/accounts/{account_id}/package-version", {"version": 1}, expect=202)

    edit = await hosting.patch(
        f"/packages/{package_id}", {"memory_bytes": 128 * MIB, "limits": {"sites": 0}}, expect=202
    )

    assert (pinned["jobs"], edit["jobs"]) == ([], [])
    await hosting.add_site(account_id, "a.example")  # as its own version allows
    (spec,) = (s for s in (await hosting.last_manifest(account_id)).specs if isinstance(s, AccountSpec))
    assert spec.limits.memory_bytes == 64 * MIB
    versions = (await hosting.get(f"/packages/{package_id}/versions"))["items"]
    assert [item["accounts"] for item in versions] == [0, 1]
    problem = await hosting.post(f"/accounts/{account_id}/package-version", {"version": None}, expect=409)
    assert problem["quota"] == {"limit": "sites", "used": 1, "allowed": 0}
    await hosting.patch(f"/packages/{package_id}", {"limits": {"sites": 1}}, expect=202)
    follows = await hosting.post(f"/accounts/{account_id}/package-version", {"version": None}, expect=202)
    assert len(follows["jobs"]) == 1
    assert follows["resource"]["package_version_id"] is None


async def test_account_when_pinned_to_no_version_of_its_package_is_not_found(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    await hosting.post(f"/accounts/{account_id}/package-version", {"version": 7}, expect=404)
    await hosting.post(f"/accounts/{account_id}/package-version", {"version": 0}, expect=400)


async def test_clone_says_the_same_under_another_name(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent", memory_bytes=64 * MIB)
    source_id = await hosting.add_package("Pro", parent_id=parent_id, limits={"sites": 5}, description="of ours")

    copy = await hosting.post(f"/packages/{source_id}/clone", {"name": "Pro 2"}, expect=201)

    source = await hosting.get(f"/packages/{source_id}")
    for name in ("id", "name", "created_at", "updated_at"):
        del copy[name], source[name]
    assert copy == source
    await hosting.post(f"/packages/{source_id}/clone", {"name": "Pro"}, expect=409)
    assert await hosting.count(Package) == 3


async def test_what_if_names_the_accounts_that_would_be_over_and_changes_nothing(hosting: Hosting) -> None:
    parent_id = await hosting.add_package("Parent", limits={"sites": 5})
    ids = [await hosting.add_account(name, parent_id=parent_id) for name in ("ada", "bob", "eve")]
    for number, account_id in enumerate(ids):
        for site in range(number + 1):
            await hosting.add_site(account_id, f"s{number}-{site}.example")
    await hosting.post(f"/accounts/{ids[0]}/package-version", {"version": 1}, expect=202)
    body = {"limits": {"sites": 1}, "disk_bytes": 64 * MIB}

    first = await hosting.post(f"/packages/{parent_id}/what-if", body, expect=200, limit=1)
    second = await hosting.post(
        f"/packages/{parent_id}/what-if", body, expect=200, limit=1, cursor=first["next_cursor"]
    )

    assert (first["accounts"], first["pinned"], first["over"], first["newly_over"]) == (2, 1, 2, 2)
    assert [item["name"] for item in (*first["items"], *second["items"])] == ["eve", "bob"]
    assert first["items"][0]["over"] == [{"limit": "sites", "used": 3, "allowed": 1, "is_new": True}]
    assert second["next_cursor"] is None
    assert first["uncounted"] == []
    assert [(node["name"], node["accounts"]) for node in first["nodes"]] == [("node1", 2)]
    assert (await hosting.get(f"/packages/{parent_id}"))["version"] == 1
    assert (await hosting.get(f"/accounts/{ids[1]}"))["desired_generation"] == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cpu_percent": 0}, "cpu_percent"),
        ({"limits": {"chairs": 1}}, "limits.chairs"),
        ({"inherit": ["x"]}, "inherit"),
    ],
)
async def test_what_if_of_a_bad_edit_names_the_field(hosting: Hosting, body: dict[str, Any], field: str) -> None:
    package_id = await hosting.add_package()

    problem = await hosting.post(f"/packages/{package_id}/what-if", body, expect=400)

    assert [error["field"] for error in problem["errors"]] == [field]
