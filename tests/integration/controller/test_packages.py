"""Packages: create, change, delete, and what that means for their accounts."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.packages.models import Package
from controller.core.packages.service import CONVERGED_AT_ONCE
from shared.specs.account import AccountSpec, ResourceLimits
from shared.specs.php_pool import PhpPoolSpec
from tests.integration.controller.hosting import Hosting

MIB = 1024 * 1024


async def test_create_package_with_limits_can_be_shown_listed_and_found(hosting: Hosting) -> None:
    body = {"name": " Starter ", "memory_bytes": 512 * MIB, "cpu_percent": 50, "php_versions": ["8.2"]}

    created = await hosting.post("/packages", body, expect=201)

    assert created["name"] == "Starter"
    assert created["disk_bytes"] is None
    assert created["accounts"] == 0
    assert await hosting.get(f"/packages/{created['id']}") == created
    assert (await hosting.get("/packages"))["items"] == [created]
    assert (await hosting.get("/packages", search="STAR"))["items"] == [created]
    assert (await hosting.get("/packages", search="%"))["items"] == []


async def test_list_packages_in_pages_shows_each_once_newest_first(hosting: Hosting) -> None:
    ids = [await hosting.add_package(f"P{number}") for number in range(5)]

    first = await hosting.get("/packages", limit=2)
    second = await hosting.get("/packages", limit=2, cursor=first["next_cursor"])
    third = await hosting.get("/packages", limit=2, cursor=second["next_cursor"])

    seen = [item["id"] for page in (first, second, third) for item in page["items"]]
    assert seen == ids[::-1]
    assert third["next_cursor"] is None


async def test_update_package_when_used_converges_every_account_once(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=64 * MIB)
    await hosting.add_site(account_id, "example.com", php_version="8.2")
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]
    other_id = await hosting.add_account("bob")

    answer = await hosting.patch(
        f"/packages/{package_id}", {"memory_bytes": 128 * MIB, "php_children_max": 9}, expect=202
    )

    assert [job["account_id"] for job in answer["jobs"]] == [account_id]
    manifest = await hosting.last_manifest(account_id)
    assert manifest.generation == 3
    limits = [spec.limits for spec in manifest.specs if isinstance(spec, AccountSpec)]
    children = [spec.children_max for spec in manifest.specs if isinstance(spec, PhpPoolSpec)]
    assert (limits, children) == ([ResourceLimits(memory_bytes=128 * MIB)], [9])
    assert (await hosting.get(f"/accounts/{other_id}"))["desired_generation"] == 1


@pytest.mark.parametrize("body", [{}, {"name": "of ada"}, {"description": "for people only"}])
async def test_update_package_without_news_for_nodes_asks_no_node(hosting: Hosting, body: dict[str, Any]) -> None:
    account_id = await hosting.add_account("ada")
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]

    answer = await hosting.patch(f"/packages/{package_id}", body, expect=202)

    assert answer["jobs"] == []
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 1


async def test_update_package_when_dry_run_plans_the_first_accounts_and_counts_the_rest(hosting: Hosting) -> None:
    client_id, package_id = await hosting.add_client(), await hosting.add_package("many")
    for number in range(CONVERGED_AT_ONCE + 2):
        body = {"name": f"acc{number}", "client_id": client_id, "package_id": package_id}
        await hosting.post("/accounts", body, expect=202)

    plan = await hosting.patch(f"/packages/{package_id}", {"processes_max": 77}, expect=200, dry_run=True)

    assert (len(plan["nodes"]), plan["unplanned"]) == (CONVERGED_AT_ONCE, 2)


async def test_update_package_with_null_takes_the_limit_away(hosting: Hosting) -> None:
    package_id = await hosting.add_package(memory_bytes=64 * MIB, cpu_percent=100)

    answer = await hosting.patch(f"/packages/{package_id}", {"memory_bytes": None}, expect=202)

    assert answer["resource"]["memory_bytes"] is None
    assert answer["resource"]["cpu_percent"] == 100


async def test_delete_package_when_used_says_by_how_many_and_changes_nothing(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]

    problem = await hosting.delete(f"/packages/{package_id}", expect=409)

    assert problem["code"] == "conflict"
    assert problem["detail"].startswith("1 account uses")
    await hosting.get(f"/packages/{package_id}")


async def test_delete_package_when_unused_frees_its_name(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Starter")

    await hosting.delete(f"/packages/{package_id}", expect=204)

    await hosting.get(f"/packages/{package_id}", expect=404)
    assert await hosting.add_package("Starter") != package_id


async def test_create_package_with_a_taken_name_is_a_conflict(hosting: Hosting) -> None:
    await hosting.add_package("Starter")
    other_id = await hosting.add_package("Pro")

    await hosting.post("/packages", {"name": "Starter"}, expect=409)
    await hosting.patch(f"/packages/{other_id}", {"name": "Starter"}, expect=409)

    assert await hosting.count(Package) == 2


BAD_PACKAGES: list[tuple[Any, str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "   "}, "name"),
    ({"name": "x" * 300}, "name"),
    ({"name": "two\nlines"}, "name"),
    ({"name": "bell\u0007"}, "name"),
    ({"name": 5}, "name"),
    ({"name": "P", "description": "x" * 501}, "description"),
    ({"name": "P", "memory_bytes": -1}, "memory_bytes"),
    ({"name": "P", "memory_bytes": 1.5}, "memory_bytes"),
    ({"name": "P", "memory_bytes": "512M"}, "memory_bytes"),
    ({"name": "P", "disk_bytes": 0}, "disk_bytes"),
    ({"name": "P", "disk_bytes": 2**70}, "disk_bytes"),
    ({"name": "P", "cpu_percent": 0}, "cpu_percent"),
    ({"name": "P", "processes_max": 4}, "processes_max"),
    ({"name": "P", "io_weight": 10_001}, "io_weight"),
    ({"name": "P", "limits": {"sites": {"hard": 10_000_000}}}, "limits.sites"),
    ({"name": "P", "limits": {"chairs": 1}}, "limits.chairs"),
    ({"name": "P", "limits": {"sites": {"soft": 3, "hard": 2}}}, "limits.sites"),
    ({"name": "P", "disk_bytes": 64 * MIB, "limits": {"disk_bytes": {"soft": 65 * MIB}}}, "limits.disk_bytes"),
    ({"name": "P", "limits": {"disk_bytes": 5}}, "limits.disk_bytes"),
    ({"name": "P", "flags": {"teleport": True}}, "flags.teleport"),
    ({"name": "P", "security": {"allowed_networks": ["10.0.0.1/8"]}}, "security.allowed_networks"),
    ({"name": "P", "parent_id": "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"}, "parent_id"),
    ({"name": "P", "php_versions": ["../etc"]}, "php_versions.0"),
    ({"name": "P", "php_versions": ["8.2", "8.2"]}, "php_versions"),
    ({"name": "P", "php_children_max": None}, "php_children_max"),
    ({"name": "P", "memory": 5}, "memory"),
]


async def test_create_package_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    assert await hosting.wrong_fields("POST", "/packages", BAD_PACKAGES) == []
    assert await hosting.count(Package) == 0


async def test_show_package_with_an_unknown_id_is_not_found(hosting: Hosting) -> None:
    for package_id in ("nothing", "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d", "..%2f", "x" * 300):
        problem = await hosting.get(f"/packages/{package_id}", expect=404)
        assert problem["code"] == "not_found"


async def test_list_packages_with_a_bad_query_names_the_parameter(hosting: Hosting) -> None:
    cases: list[tuple[Any, str]] = [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "made up"}, "cursor"),
        ({"cursor": "x" * 22}, "cursor"),
        ({"search": "bell\u0007"}, "search"),
        ({"search": "x" * 300}, "search"),
    ]

    assert await hosting.wrong_fields("GET", "/packages", cases) == []
