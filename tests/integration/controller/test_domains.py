"""Domains: who may have which name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.core.domains.models import Domain
from tests.integration.controller.hosting import Hosting


async def test_domain_from_claim_to_release(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    created = await hosting.post("/domains", {"name": "Example.COM.", "account_id": account_id}, expect=201)
    listed = await hosting.get("/domains", account_id=account_id, search="exam")
    await hosting.delete(f"/domains/{created['id']}", expect=204)

    assert created["name"] == "example.com"
    assert listed["items"] == [created]
    await hosting.get(f"/domains/{created['id']}", expect=404)
    await hosting.post("/domains", {"name": "example.com", "account_id": account_id}, expect=201)


async def test_create_domain_in_other_letters_is_kept_in_ascii_and_shown_as_written(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    created = await hosting.post("/domains", {"name": "BÜCHER.example", "account_id": account_id}, expect=201)

    assert (created["name"], created["display_name"]) == ("xn--bcher-kva.example", "bücher.example")
    await hosting.post("/domains", {"name": "xn--bcher-kva.example", "account_id": account_id}, expect=409)


@pytest.mark.parametrize("name", ["example.com", "shop.example.com", "a.b.example.com", "www.EXAMPLE.com"])
async def test_create_domain_of_another_account_is_refused_without_naming_it(hosting: Hosting, name: str) -> None:
    owner_id = await hosting.add_account("ada")
    await hosting.post("/domains", {"name": "example.com", "account_id": owner_id}, expect=201)
    other_id = await hosting.add_account("bob")

    problem = await hosting.post("/domains", {"name": name, "account_id": other_id}, expect=409)

    assert problem["code"] == "domain_taken"
    assert "is already hosted" in problem["detail"]
    del problem["request_id"]  # hexadecimal, and so may spell the name by itself
    assert "ada" not in str(problem)
    assert owner_id not in str(problem)
    assert await hosting.count(Domain) == 1


async def test_create_domain_below_an_own_domain_is_allowed(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.post("/domains", {"name": "example.com", "account_id": account_id}, expect=201)

    await hosting.post("/domains", {"name": "shop.example.com", "account_id": account_id}, expect=201)

    assert await hosting.count(Domain) == 2


async def test_create_domain_below_an_own_subdomain_of_a_foreign_domain_is_allowed(hosting: Hosting) -> None:
    tenant_id = await hosting.add_account("bob")
    await hosting.post("/domains", {"name": "bob.example.com", "account_id": tenant_id}, expect=201)
    owner_id = await hosting.add_account("ada")
    await hosting.post("/domains", {"name": "example.com", "account_id": owner_id}, expect=201)

    await hosting.post("/domains", {"name": "shop.bob.example.com", "account_id": tenant_id}, expect=201)
    await hosting.post("/domains", {"name": "mail.bob.example.com", "account_id": owner_id}, expect=409)


async def test_create_domain_twice_at_once_gives_one_domain_and_one_conflict(hosting: Hosting) -> None:
    accounts = [await hosting.add_account("ada"), await hosting.add_account("bob")]

    answers = await asyncio.gather(
        *(
            hosting.http.post("/api/v1/domains", json={"name": "example.com", "account_id": account_id})
            for account_id in accounts
        )
    )

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert await hosting.count(Domain) == 1


async def test_delete_domain_that_a_site_uses_is_a_conflict(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "example.com", aliases=["www.example.com"])

    for domain in (await hosting.get("/domains"))["items"]:
        problem = await hosting.delete(f"/domains/{domain['id']}", expect=409)
        assert "in use by a site" in problem["detail"]


async def test_create_domain_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    good = {"name": "example.com", "account_id": account_id}
    names = [
        "",
        "test..com",
        ".com",
        "com",
        "x" * 300,
        "x" * 64 + ".com",
        ".".join(["x" * 60] * 5),
        "a\nb.com",
        "../etc/passwd",
        "a b.com",
        "-a.com",
        "a_b.com",
        "192.0.2.1",
        "*.example.com",
        "xn--a.com",
        "ex\u00ad\u200dample.com",
        "\u2024\u2024.com",
        "ü" * 200 + ".com",
        "$(id).com",
        "a;b.com",
        5,
        None,
    ]
    cases: list[tuple[Any, str]] = [
        *(({**good, "name": name}, "name") for name in names),
        ({**good, "account_id": "nobody"}, "account_id"),
        ({**good, "is_automatic": True}, "is_automatic"),
        ({"account_id": account_id}, "name"),
    ]

    assert await hosting.wrong_fields("POST", "/domains", cases) == []
    assert await hosting.count(Domain) == 0
