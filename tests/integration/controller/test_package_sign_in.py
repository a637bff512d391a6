"""What packages ask of the people of their accounts when these sign in."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from controller.core.auth.models import Session
from controller.core.auth.package_policy import read_package_policy
from controller.core.auth.users import create_user, find_user
from controller.core.context import Role
from tests.integration.conftest import FAST_HASHER
from tests.integration.controller.hosting import Hosting

PASSWORD = "a long password"
INSIDE, OUTSIDE = "192.0.2.7", "198.51.100.7"


class People:
    """A client with one account and one login."""

    def __init__(self, hosting: Hosting, client_id: str, package_id: str) -> None:
        self.hosting = hosting
        self.client_id = client_id
        self.package_id = package_id

    async def sign_in(self, address: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.hosting.app.asgi, client=(address, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
            return await http.post("/api/v1/auth/login", json={"username": "grace", "password": PASSWORD})

    async def ask(self, **security: Any) -> None:
        await self.hosting.patch(f"/packages/{self.package_id}", {"security": security}, expect=202)


@pytest.fixture
async def people(hosting: Hosting) -> People:
    account_id = await hosting.add_account("ada")
    account = await hosting.get(f"/accounts/{account_id}")
    async with hosting.database.write() as session:
        await create_user(session, "grace", FAST_HASHER.hash(PASSWORD), role=Role.CLIENT, must_change_password=False)
        user = await find_user(session, "grace")
        assert user is not None
        user.client_id = account["client_id"]
    return People(hosting, account["client_id"], account["package_id"])


async def test_sign_in_when_the_package_names_networks_is_refused_from_elsewhere(people: People) -> None:
    await people.ask(allowed_networks=["192.0.2.0/24"])

    inside, outside = await people.sign_in(INSIDE), await people.sign_in(OUTSIDE)

    assert (inside.status_code, outside.status_code) == (200, 403)
    assert outside.json()["code"] == "network_refused"


async def test_sign_in_when_the_package_allows_one_session_ends_the_one_before(people: People) -> None:
    await people.ask(sessions_max=1)
    before = await people.hosting.count(Session)

    for _ in range(3):
        assert (await people.sign_in(INSIDE)).status_code == 200

    assert await people.hosting.count(Session) == before + 1


async def test_person_whose_package_requires_a_second_factor_can_do_nothing_but_set_one_up(people: People) -> None:
    await people.ask(is_two_factor_required=True)
    token = (await people.sign_in(INSIDE)).json()["token"]
    headers = {"authorization": f"Bearer {token}"}

    refused = await people.hosting.http.get("/api/v1/accounts", headers=headers)
    begun = await people.hosting.http.post("/api/v1/second-factor", json={"password": PASSWORD}, headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_enrolment_required")
    assert begun.status_code == 201, begun.text


async def test_policy_of_a_pinned_account_is_its_versions(people: People) -> None:
    await people.ask(is_two_factor_required=True)
    accounts = (await people.hosting.get("/accounts"))["items"]
    async with people.hosting.database.read() as session:
        asked = await read_package_policy(session, people.client_id)
    await people.hosting.post(f"/accounts/{accounts[0]['id']}/package-version", {"version": 1}, expect=202)
    async with people.hosting.database.read() as session:
        pinned = await read_package_policy(session, people.client_id)
        nobody = await read_package_policy(session, None)

    assert (asked.is_two_factor_required, pinned.is_two_factor_required, nobody.is_two_factor_required) == (
        True, False, False,
    )  # fmt: skip


@pytest.mark.parametrize(("tier", "policy"), [(None, "tier_standard"), ("high", "tier_high"), ("low", "tier_low")])
async def test_requests_of_a_client_count_on_its_own_and_its_packages_tier(
    people: People, tier: str | None, policy: str
) -> None:
    if tier is not None:
        await people.ask(api_rate_tier=tier)
    token = (await people.sign_in(INSIDE)).json()["token"]

    answer = await people.hosting.http.get("/api/v1/accounts", headers={"authorization": f"Bearer {token}"})
    of_the_platform = await people.hosting.http.get("/api/v1/accounts")

    policies = [item.partition(";")[0].strip().strip('"') for item in answer.headers["ratelimit-policy"].split(",")]
    assert policies == ["user", "tenant", policy]
    assert "tenant" not in of_the_platform.headers["ratelimit-policy"]
