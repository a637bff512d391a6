"""Clients: create, change, delete."""

from __future__ import annotations

from typing import Any

from controller.core.clients.models import Client
from tests.integration.controller.hosting import Hosting


async def test_client_from_creation_to_deletion(hosting: Hosting) -> None:
    client_id = await hosting.add_client()

    changed = await hosting.patch(f"/clients/{client_id}", {"email": "ada@example.org"}, expect=200)
    await hosting.delete(f"/clients/{client_id}", expect=204)

    assert (changed["name"], changed["email"]) == ("Ada Lovelace", "ada@example.org")
    await hosting.get(f"/clients/{client_id}", expect=404)
    assert (await hosting.get("/clients"))["items"] == []


async def test_delete_client_who_owns_an_account_is_a_conflict(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    client_id = (await hosting.get(f"/accounts/{account_id}"))["client_id"]

    problem = await hosting.delete(f"/clients/{client_id}", expect=409)

    assert "owns 1 account" in problem["detail"]
    assert (await hosting.get(f"/clients/{client_id}"))["accounts"] == 1


async def test_list_clients_searches_name_and_email(hosting: Hosting) -> None:
    await hosting.add_client()
    other = await hosting.post("/clients", {"name": "Grace", "email": "g@navy.example"}, expect=201)

    assert [item["id"] for item in (await hosting.get("/clients", search="navy"))["items"]] == [other["id"]]
    assert [item["id"] for item in (await hosting.get("/clients", search="grace"))["items"]] == [other["id"]]


async def test_create_client_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    good = {"name": "Ada", "email": "ada@example.com"}
    cases: list[tuple[Any, str]] = [
        ({**good, "email": "ada"}, "email"),
        ({**good, "email": "ada@localhost"}, "email"),
        ({**good, "email": "ada@example.com\nbcc: x@example.com"}, "email"),
        ({**good, "email": "a" * 250 + "@example.com"}, "email"),
        ({**good, "name": "x" * 300}, "name"),
        ({**good, "name": "a\tb"}, "name"),
        ({**good, "name": None}, "name"),
        ({**good, "phone": "1"}, "phone"),
        ({"email": "ada@example.com"}, "name"),
    ]

    assert await hosting.wrong_fields("POST", "/clients", cases) == []
    assert await hosting.count(Client) == 0
