"""What packages say about the people of their accounts, at every request: where from, and whether by a token."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from controller.core.auth.users import create_user, find_user
from controller.core.context import Role
from tests.integration.conftest import FAST_HASHER
from tests.integration.controller.hosting import Hosting

PASSWORD = "a long password"
INSIDE, OUTSIDE = "192.0.2.7", "198.51.100.7"
ORIGIN = "https://controller.test:8360"


class People:
    """A client with one account, a login of its own and one of its team."""

    def __init__(self, hosting: Hosting, account: dict[str, Any]) -> None:
        self.hosting = hosting
        self.account_id: str = account["id"]
        self.client_id: str = account["client_id"]
        self.package_id: str = account["package_id"]

    async def send(self, method: str, path: str, secret: str, *, address: str = INSIDE, body: Any = None) -> Any:
        transport = httpx.ASGITransport(app=self.hosting.app.asgi, client=(address, 5000))
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            return await http.request(method, f"/api/v1{path}", json=body, headers=headers)

    async def sign_in(self, username: str = "grace") -> str:
        answer = await self.send("POST", "/auth/login", "", body={"username": username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def make_token(self, username: str = "grace") -> str:
        session = await self.sign_in(username)
        answer = await self.send("POST", "/tokens", session, body={"name": "deploy", "scopes": ["*"]})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    async def change_package(self, **body: Any) -> None:
        await self.hosting.patch(f"/packages/{self.package_id}", body, expect=202)


async def make_person(hosting: Hosting, username: str, role: Role, client_id: str | None) -> None:
    async with hosting.database.write() as session:
        await create_user(session, username, FAST_HASHER.hash(PASSWORD), role=role, must_change_password=False)
        user = await find_user(session, username)
        assert user is not None
        user.client_id = client_id


@pytest.fixture
async def people(hosting: Hosting) -> People:
    account = await hosting.get(f"/accounts/{await hosting.add_account('ada')}")
    await make_person(hosting, "grace", Role.CLIENT, account["client_id"])
    await make_person(hosting, "linus", Role.MEMBER, account["client_id"])
    return People(hosting, account)


@pytest.mark.parametrize("username", ["grace", "linus"])
async def test_token_when_the_package_loses_the_api_stops_at_once_and_works_when_it_has_it_again(
    people: People, username: str
) -> None:
    token, session = await people.make_token(username), await people.sign_in(username)
    before = await people.send("GET", "/accounts", token)
    await people.change_package(flags={"api": False})
    without = await people.send("GET", "/accounts", token)
    in_the_panel = await people.send("GET", "/accounts", session)
    making = await people.send("POST", "/tokens", session, body={"name": "more", "scopes": ["*"]})
    await people.change_package(flags={"api": True})
    again = await people.send("GET", "/accounts", token)

    assert (before.status_code, in_the_panel.status_code, again.status_code) == (200, 200, 200)
    assert (without.status_code, making.status_code) == (403, 403)
    for refused in (without.json(), making.json()):
        assert refused["code"] == "feature_disabled"
        assert "Sign in instead" in refused["hint"]


async def test_token_of_a_client_with_several_packages_works_as_long_as_one_has_the_api(people: People) -> None:
    token = await people.make_token()
    await people.change_package(flags={"api": False})
    other = await people.hosting.post("/packages", {"name": "With API"}, expect=201)
    body = {"client_id": people.client_id, "package_id": other["id"], "name": "second"}
    await people.hosting.post("/accounts", body, expect=202)

    with_one = await people.send("GET", "/accounts", token)
    await people.hosting.patch(f"/packages/{other['id']}", {"flags": {"api": False}}, expect=202)
    with_none = await people.send("GET", "/accounts", token)

    assert (with_one.status_code, with_none.status_code) == (200, 403)


async def test_token_of_a_pinned_account_is_judged_by_its_version(people: People) -> None:
    token = await people.make_token()
    await people.change_package(flags={"api": False})
    assert (await people.send("GET", "/accounts", token)).status_code == 403

    await people.hosting.post(f"/accounts/{people.account_id}/package-version", {"version": 1}, expect=202)

    assert (await people.send("GET", "/accounts", token)).status_code == 200


async def test_token_of_an_administrator_and_a_view_as_the_person_need_no_package(people: People) -> None:
    await make_person(people.hosting, "boss", Role.ROOT, None)
    await people.change_package(flags={"api": False}, security={"allowed_networks": ["192.0.2.0/24"]})
    token = await people.make_token("boss")
    grace = next(one for one in (await _users(people, token)) if one["username"] == "grace")
    session = await people.sign_in("boss")
    answer = await people.send("POST", f"/users/{grace['id']}/impersonate", session, body={"reason": "help"})
    assert answer.status_code in {200, 201}, answer.text

    seen = await people.send("GET", "/accounts", answer.json()["token"], address=OUTSIDE)
    by_token = await people.send("GET", "/accounts", token, address=OUTSIDE)

    assert (seen.status_code, by_token.status_code) == (200, 200)


async def _users(people: People, token: str) -> list[dict[str, Any]]:
    answer = await people.send("GET", "/users", token)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_sessions_and_tokens_that_are_there_obey_the_networks_of_the_package_from_the_next_request_on(
    people: People,
) -> None:
    secrets = [await people.make_token(), await people.sign_in(), await people.sign_in("linus")]
    before = [(await people.send("GET", "/accounts", each, address=OUTSIDE)).status_code for each in secrets]

    await people.change_package(security={"allowed_networks": ["192.0.2.0/24", "2001:db8::/32"]})

    outside = [await people.send("GET", "/accounts", each, address=OUTSIDE) for each in secrets]
    inside = [(await people.send("GET", "/accounts", each)).status_code for each in secrets]
    mapped = [(await people.send("GET", "/accounts", each, address=f"::ffff:{INSIDE}")).status_code for each in secrets]
    await people.change_package(security={"allowed_networks": []})
    after = [(await people.send("GET", "/accounts", each, address=OUTSIDE)).status_code for each in secrets]
    assert before == inside == mapped == after == [200, 200, 200]
    assert [(one.status_code, one.json()["code"]) for one in outside] == [(403, "network_refused")] * 3


async def test_networks_of_a_package_hold_from_the_change_of_package_on(people: People) -> None:
    session = await people.sign_in()
    closed = await people.hosting.post(
        "/packages", {"name": "Closed", "security": {"allowed_networks": ["203.0.113.0/24"]}}, expect=201
    )

    await people.hosting.patch(f"/accounts/{people.account_id}", {"package_id": closed["id"]}, expect=202)

    assert (await people.send("GET", "/accounts", session)).status_code == 403
