"""An account after the model of another."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.accounts.models import Account
from controller.core.audit.models import AuditEntry
from controller.core.domains.models import Domain
from controller.jobs.models import Job
from controller.modules.web.models import Site
from tests.integration.controller.hosting import Hosting


async def model_account(hosting: Hosting, **limits: Any) -> str:
    account_id = await hosting.add_account("ada", **limits)
    await hosting.add_site(
        account_id,
        "a.example",
        aliases=["www.a.example", "other.example"],
        php_version="8.2",
        document_root="web",
        extra_directives="add_header X-Robots-Tag noindex;",
    )
    await hosting.add_site(account_id, "b.example")
    await hosting.post("/domains", {"name": "parked.example", "account_id": account_id}, expect=201)
    await hosting.patch(f"/accounts/{account_id}", {"labels": {"plan": "gold"}}, expect=202)
    await hosting.http.put(f"/api/v1/accounts/{account_id}/note", json={"text": "Pays late."})
    return account_id


async def count_all(hosting: Hosting) -> list[int]:
    return [await hosting.count(model) for model in (Account, Site, Domain, Job, AuditEntry)]


async def test_clone_has_the_terms_labels_note_and_renamed_sites(hosting: Hosting) -> None:
    account_id = await model_account(hosting)
    await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=202)
    source = await hosting.get(f"/accounts/{account_id}")
    names = {"a.example": "a.test", "parked.example": "parked.test"}

    answer = await hosting.post(f"/accounts/{account_id}/clone", {"name": "eve", "domains": names}, expect=202)

    clone = answer["resource"]
    same = ("client_id", "package_id", "package_version_id", "labels")
    assert {name: clone[name] for name in same} == {name: source[name] for name in same}
    assert (clone["name"], clone["state"], len(answer["jobs"])) == ("eve", "active", 1)
    assert clone["uid"] != source["uid"]
    assert (await hosting.get(f"/accounts/{clone['id']}/note")) == {"text": "Pays late."}
    (site,) = (await hosting.get("/sites", account_id=clone["id"]))["items"]
    assert (site["domain"], site["aliases"], site["php_version"]) == ("a.test", ["www.a.test"], "8.2")
    assert (site["document_root"], site["extra_directives"]) == ("web", "add_header X-Robots-Tag noindex;")
    domains = {item["name"] for item in (await hosting.get("/domains", account_id=clone["id"]))["items"]}
    assert domains == {"a.test", "www.a.test", "parked.test"}
    manifest = await hosting.last_manifest(clone["id"])
    assert {spec.key for spec in manifest.specs} == {"account/eve", "php_pool/eve-8.2", "site/a.test"}
    assert (await hosting.get(f"/accounts/{account_id}")) == source


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ({"a.example": "a.test", "b.example": "other.example"}, 409),  # taken, after the first site was made
        ({"a.example": "a.test", "nobody.example": "x.test"}, 400),
        ({"a.example": "a.test", "b.example": "a.test"}, 400),
        ({"a.example": "not a name"}, 400),
    ],
)
async def test_clone_when_one_part_is_impossible_makes_nothing(
    hosting: Hosting, names: dict[str, str], status: int
) -> None:
    account_id = await model_account(hosting)
    before = await count_all(hosting)

    await hosting.post(f"/accounts/{account_id}/clone", {"name": "eve", "domains": names}, expect=status)

    assert await count_all(hosting) == before


async def test_clone_when_its_package_allows_no_more_is_refused(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    for name in ("a.example", "b.example"):
        await hosting.add_site(account_id, name)
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]
    await hosting.patch(f"/packages/{package_id}", {"limits": {"sites": {"hard": 1}}}, expect=202)
    before = await count_all(hosting)
    names = {"a.example": "a.test", "b.example": "b.test"}

    problem = await hosting.post(f"/accounts/{account_id}/clone", {"name": "eve", "domains": names}, expect=409)

    assert problem["code"] == "quota_exceeded"
    assert await count_all(hosting) == before


async def test_clone_without_domains_has_no_sites(hosting: Hosting) -> None:
    account_id = await model_account(hosting)
    client_id = await hosting.add_client()

    body = {"name": "eve", "client_id": client_id}
    clone = (await hosting.post(f"/accounts/{account_id}/clone", body, expect=202))["resource"]

    assert clone["client_id"] == client_id
    assert (await hosting.get("/sites", account_id=clone["id"]))["items"] == []
    await hosting.post(f"/accounts/{account_id}/clone", body, expect=409)
