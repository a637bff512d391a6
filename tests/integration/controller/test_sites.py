"""Sites: their life, their names, and what happens when a node refuses one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.core.context import Actor, Role
from controller.core.domains.models import Domain
from controller.core.operations import FleetContext
from controller.modules.web.models import Site
from controller.modules.web.service import create_site
from controller.modules.web.views import SiteCreate, SiteView
from shared.errors import ForbiddenError
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec
from tests.integration.controller.hosting import Hosting

REFUSED = 'unknown directive "no_such_thing"'


async def test_create_site_with_php_sends_site_pool_and_account_in_one_manifest(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", upload_max_bytes=8 * 1024 * 1024)
    body = {"account_id": account_id, "domain": "Example.com", "aliases": ["www.example.com"], "php_version": "8.2"}

    answer = await hosting.post("/sites", body, expect=202)

    assert answer["resource"]["state"] == "pending"
    assert len(answer["jobs"]) == 1
    manifest = await hosting.last_manifest(account_id)
    assert [spec.key for spec in manifest.specs] == ["account/ada", "php_pool/ada-8.2", "site/example.com"]
    site = manifest.specs[2]
    assert isinstance(site, SiteSpec)
    assert site.aliases == ("www.example.com",)
    assert site.php_socket_path == "/run/wcp-php/8.2/20000.sock"
    assert site.upload_max_bytes == 8 * 1024 * 1024
    await hosting.finish(account_id)
    assert (await hosting.get(f"/sites/{answer['resource']['id']}"))["state"] == "active"


async def test_two_sites_with_one_php_version_share_one_pool(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example", php_version="8.2")
    await hosting.add_site(account_id, "b.example", php_version="8.2")
    await hosting.add_site(account_id, "c.example")

    manifest = await hosting.last_manifest(account_id)

    assert [spec.version for spec in manifest.specs if isinstance(spec, PhpPoolSpec)] == ["8.2"]


async def test_update_site_without_php_takes_the_pool_away(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", php_version="8.2")

    changed = await hosting.patch(f"/sites/{site_id}", {"php_version": None}, expect=202)
    same = await hosting.patch(f"/sites/{site_id}", {"php_version": None}, expect=202)

    assert changed["resource"]["php_version"] is None
    assert [spec.key for spec in (await hosting.last_manifest(account_id)).specs] == ["account/ada", "site/a.example"]
    assert same["jobs"] == []


async def test_site_that_the_node_refuses_is_parked_with_its_words_and_left_out(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    good_id = await hosting.add_site(account_id, "good.example", php_version="8.2")
    await hosting.finish(account_id)
    bad_id = await hosting.add_site(account_id, "bad.example", extra_directives="no_such_thing on;")

    await hosting.finish(account_id, parked={"site/bad.example": REFUSED})

    bad = await hosting.get(f"/sites/{bad_id}")
    assert (bad["state"], bad["parked_code"], bad["parked_message"]) == ("parked", "config_refused", REFUSED)
    assert (await hosting.get(f"/sites/{good_id}"))["state"] == "active"
    assert (await hosting.get(f"/accounts/{account_id}"))["observed_status"] == "parked"
    assert [item["id"] for item in (await hosting.get("/sites", is_parked=True))["items"]] == [bad_id]
    await hosting.patch(f"/sites/{good_id}", {"document_root": "web"}, expect=202)
    manifest = await hosting.last_manifest(account_id)
    assert manifest.held == ("site/bad.example",)
    assert [spec.key for spec in manifest.specs if isinstance(spec, SiteSpec)] == ["site/good.example"]


async def test_parked_site_keeps_the_php_that_it_serves_with(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", php_version="8.2")
    await hosting.finish(account_id)
    await hosting.patch(f"/sites/{site_id}", {"php_version": None, "extra_directives": "x;"}, expect=202)
    await hosting.finish(account_id, parked={"site/a.example": REFUSED})

    await hosting.post(f"/accounts/{account_id}/converge", expect=202)

    manifest = await hosting.last_manifest(account_id)
    assert manifest.held == ("site/a.example",)
    assert [spec.key for spec in manifest.specs] == ["account/ada", "php_pool/ada-8.2"]


async def test_retry_site_includes_it_again_as_it_is_wanted(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", extra_directives="x;")
    await hosting.finish(account_id, parked={"site/a.example": REFUSED})

    answer = await hosting.post(f"/sites/{site_id}/retry", expect=202)

    assert (answer["resource"]["state"], answer["resource"]["parked_message"]) == ("pending", None)
    manifest = await hosting.last_manifest(account_id)
    assert manifest.held == ()
    assert [spec.extra_directives for spec in manifest.specs if isinstance(spec, SiteSpec)] == ["x;"]
    await hosting.finish(account_id)
    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "active"
    await hosting.post(f"/sites/{site_id}/retry", expect=409)


async def test_update_parked_site_includes_it_again(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", extra_directives="x;")
    await hosting.finish(account_id, parked={"site/a.example": REFUSED})

    await hosting.patch(f"/sites/{site_id}", {"extra_directives": ""}, expect=202)
    await hosting.finish(account_id)

    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "active"


async def test_discard_change_of_a_parked_site_goes_back_to_what_is_served(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", aliases=["www.a.example"], php_version="8.2")
    await hosting.finish(account_id)
    bad = {"aliases": ["new.example"], "php_version": None, "extra_directives": "x;", "document_root": "web"}
    await hosting.patch(f"/sites/{site_id}", bad, expect=202)
    await hosting.finish(account_id, parked={"site/a.example": REFUSED})

    answer = (await hosting.post(f"/sites/{site_id}/discard", expect=202))["resource"]

    assert (answer["aliases"], answer["php_version"]) == (["www.a.example"], "8.2")
    assert (answer["extra_directives"], answer["document_root"]) == ("", "public")
    await hosting.finish(account_id)
    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "active"
    assert {item["name"] for item in (await hosting.get("/domains"))["items"]} == {"a.example", "www.a.example"}


async def test_discard_change_of_a_site_that_was_never_served_deletes_it(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", extra_directives="x;")
    await hosting.finish(account_id, parked={"site/a.example": REFUSED})

    answer = await hosting.post(f"/sites/{site_id}/discard", expect=202)
    await hosting.finish(account_id)

    assert answer["resource"]["state"] == "deleting"
    await hosting.get(f"/sites/{site_id}", expect=404)
    assert (await hosting.get("/domains"))["items"] == []


async def test_result_of_an_older_generation_does_not_park_a_site_that_was_changed_since(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example", extra_directives="x;")
    await hosting.patch(f"/sites/{site_id}", {"extra_directives": ""}, expect=202)

    await hosting.finish(account_id, parked={"site/a.example": REFUSED}, generation=2)

    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "pending"


async def test_delete_site_frees_its_names_when_the_node_has_done_it(hosting: Hosting) -> None:
    account_id, other_id = await hosting.add_account("ada"), await hosting.add_account("bob")
    site_id = await hosting.add_site(account_id, "a.example", aliases=["www.a.example"])
    await hosting.finish(account_id)

    answer = await hosting.delete(f"/sites/{site_id}", expect=202)
    await hosting.post("/sites", {"account_id": other_id, "domain": "www.a.example"}, expect=409)
    again = await hosting.post("/sites", {"account_id": account_id, "domain": "a.example"}, expect=409)
    await hosting.finish(account_id)

    assert answer["resource"]["state"] == "deleting"
    assert "being deleted" in again["detail"]
    await hosting.get(f"/sites/{site_id}", expect=404)
    await hosting.add_site(other_id, "a.example")


async def test_delete_site_keeps_a_domain_that_was_claimed_by_hand(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.post("/domains", {"name": "a.example", "account_id": account_id}, expect=201)
    site_id = await hosting.add_site(account_id, "a.example", aliases=["b.example"])

    await hosting.delete(f"/sites/{site_id}", expect=202)
    await hosting.finish(account_id)

    assert [item["name"] for item in (await hosting.get("/domains"))["items"]] == ["a.example"]


async def test_alias_that_was_taken_out_is_free_when_the_node_has_done_it(hosting: Hosting) -> None:
    account_id, other_id = await hosting.add_account("ada"), await hosting.add_account("bob")
    site_id = await hosting.add_site(account_id, "a.example", aliases=["b.example"])
    await hosting.finish(account_id)

    await hosting.patch(f"/sites/{site_id}", {"aliases": []}, expect=202)
    await hosting.post("/sites", {"account_id": other_id, "domain": "b.example"}, expect=409)
    await hosting.finish(account_id)

    await hosting.add_site(other_id, "b.example")


async def test_create_site_with_a_name_of_another_site_of_the_account_is_a_conflict(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example", aliases=["b.example"])

    for body in ({"domain": "a.example"}, {"domain": "b.example"}, {"domain": "c.example", "aliases": ["a.example"]}):
        await hosting.post("/sites", {"account_id": account_id, **body}, expect=409)

    assert await hosting.count(Site) == 1
    assert await hosting.count(Domain) == 2


async def test_create_site_on_a_foreign_domain_is_refused_and_claims_nothing(hosting: Hosting) -> None:
    await hosting.add_site(await hosting.add_account("ada"), "example.com")
    account_id = await hosting.add_account("bob")

    body = {"account_id": account_id, "domain": "free.example", "aliases": ["shop.example.com"]}
    problem = await hosting.post("/sites", body, expect=409)

    assert problem["code"] == "domain_taken"
    assert await hosting.count(Domain) == 1
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 1


async def test_create_site_twice_at_once_gives_one_site(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    body = {"account_id": account_id, "domain": "a.example"}

    answers = await asyncio.gather(*(hosting.http.post("/api/v1/sites", json=body) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [202, 409, 409]
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 2


async def test_create_sites_at_once_never_passes_the_limit_of_the_package(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", limits={"sites": 2})

    answers = await asyncio.gather(
        *(
            hosting.http.post("/api/v1/sites", json={"account_id": account_id, "domain": f"s{number}.example"})
            for number in range(4)
        )
    )

    assert sorted(answer.status_code for answer in answers) == [202, 202, 409, 409]
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert refused["code"] == "quota_exceeded"


async def test_create_site_with_a_php_version_that_the_package_forbids_is_refused(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", php_versions=["8.4"])

    problem = await hosting.post(
        "/sites", {"account_id": account_id, "domain": "a.example", "php_version": "8.2"}, expect=409
    )

    assert problem["code"] == "quota_exceeded"
    assert "8.4" in problem["detail"]


async def test_create_site_by_who_may_only_read_is_forbidden(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    client = Actor(kind="token", id="1", name="ada", role=Role.ROOT, scopes=frozenset({"*:read"}))

    async def use_case(ctx: FleetContext) -> SiteView:
        return await create_site(ctx, SiteCreate(account_id=account_id, domain="a.example", extra_directives="x;"))

    with pytest.raises(ForbiddenError):
        await hosting.operations.change(client, "r", use_case)
    assert await hosting.count(Site) == 0


async def test_create_site_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    good = {"account_id": account_id, "domain": "a.example"}
    cases: list[tuple[Any, str]] = [
        ({**good, "domain": "test..com"}, "domain"),
        ({**good, "domain": "x" * 300}, "domain"),
        ({**good, "domain": "a.example\n}"}, "domain"),
        ({**good, "aliases": ["ok.example", "test..com"]}, "aliases.1"),
        ({**good, "aliases": ["a.example"]}, "aliases.0"),
        ({**good, "aliases": ["B.example", "b.example"]}, "aliases.1"),
        ({**good, "aliases": [f"a{number}.example" for number in range(101)]}, "aliases"),
        ({**good, "aliases": "a.example"}, "aliases"),
        ({**good, "document_root": "../../etc"}, "document_root"),
        ({**good, "document_root": "/etc"}, "document_root"),
        ({**good, "document_root": "public;"}, "document_root"),
        ({**good, "document_root": ".git"}, "document_root"),
        ({**good, "document_root": ""}, "document_root"),
        ({**good, "php_version": "8.20"}, "php_version"),
        ({**good, "php_version": "8.4"}, "php_version"),
        ({**good, "php_version": 8.2}, "php_version"),
        ({**good, "extra_directives": "} server {"}, "extra_directives"),
        ({**good, "extra_directives": "x" * 20_000}, "extra_directives"),
        ({**good, "extra_directives": "a\u0007;"}, "extra_directives"),
        ({**good, "account_id": "x"}, "account_id"),
        ({**good, "ssl": True}, "ssl"),
        ({"domain": "a.example"}, "account_id"),
    ]

    assert await hosting.wrong_fields("POST", "/sites", cases) == []
    assert await hosting.count(Site) == 0
    assert await hosting.count(Domain) == 0
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 1
