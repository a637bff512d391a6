"""What somebody tries who has one foot in the door: a stolen session, a narrow token, a tenant who is curious."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.api.guards import STEP_UP_ACTS
from controller.bootstrap import Controller
from controller.core.audit.models import AuditEntry
from controller.core.auth.identities import Identities
from controller.core.auth.models import ApiToken, Session, User
from controller.core.context import Role
from controller.core.events.publisher import Notice
from controller.core.policies.book import PlatformPolicyBook
from controller.core.tenancy.models import AccountMember
from controller.core.tenancy.sight import Sight
from controller.db.base import utc_now
from tests.integration.conftest import PASSWORD
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.people import World
from tests.integration.controller.reselling import API, Shop, open_shop, sign_in
from tests.integration.controller.test_every_route import BODIES, Route

OTHER_PASSWORD = "another long password"


async def make_token(world: World, who: dict[str, str], **terms: Any) -> httpx.Response:
    return await world.http.post(f"{API}/tokens", json={"name": "more", **terms}, headers=who)


async def narrow_token(world: World, **terms: Any) -> dict[str, str]:
    made = await make_token(world, world.headers["root"], **terms)
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['secret']}"}


async def test_token_that_ends_makes_none_that_lasts_longer(world: World) -> None:
    end = utc_now().replace(microsecond=0) + timedelta(hours=1)
    narrow = await narrow_token(world, expires_at=end.isoformat())

    longer = await make_token(world, narrow, expires_at=(end + timedelta(seconds=1)).isoformat())
    silent = await make_token(world, narrow)
    shorter = await make_token(world, narrow, expires_at=(end - timedelta(minutes=1)).isoformat())

    assert (longer.status_code, longer.json()["code"]) == (403, "forbidden")
    assert (silent.status_code, shorter.status_code) == (201, 201)
    assert silent.json()["token"]["expires_at"].startswith(f"{end:%Y-%m-%dT%H:%M:%S}")


async def test_token_of_some_networks_makes_none_that_comes_from_elsewhere(world: World) -> None:
    narrow = await narrow_token(world, allowed_networks=["127.0.0.0/24", "2001:db8::/32"])

    for outside in ("127.0.0.0/23", "0.0.0.0/0", "::/0", "2001:db8::/31", "10.0.0.1/32"):
        answer = await make_token(world, narrow, allowed_networks=["127.0.0.1/32", outside])
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), outside
    silent = await make_token(world, narrow)
    inside = await make_token(world, narrow, allowed_networks=["127.0.0.1/32", "2001:db8:1::/48"])

    assert silent.json()["token"]["allowed_networks"] == ["127.0.0.0/24", "2001:db8::/32"]
    assert inside.json()["token"]["allowed_networks"] == ["127.0.0.1/32", "2001:db8:1::/48"]


async def test_session_whose_proof_is_old_does_no_dangerous_act_at_all(world: World) -> None:
    """A session that was left open must neither give anybody a way in, nor take one away."""
    await forget_proofs(world)
    routes, wrong = dangerous_routes(world), []
    for route in routes:
        answer = await try_route(world, route)
        if answer.status_code != 403 or answer.json()["code"] != "step_up_required":
            wrong.append(f"{route.name}: {answer.status_code} {answer.text[:100]}")

    assert wrong == []
    assert {route.name for route in routes} == STEP_UP_ACTS


async def test_session_whose_proof_is_old_may_ask_what_a_dangerous_act_would_do(world: World) -> None:
    await forget_proofs(world)
    plannable = [
        route
        for route in dangerous_routes(world)
        if any(parameter["name"] == "dry_run" for parameter in route.operation.get("parameters", ()))
    ]
    answers = {route.name: await try_route(world, route, dry_run="true") for route in plannable}
    refused = [name for name, answer in answers.items() if "step_up_required" in answer.text]
    done = await world.http.delete(f"{API}/accounts/{world.ids['clara']}?dry_run=false", headers=world.headers["root"])

    assert {"delete-account", "create-user", "update-security"} <= answers.keys()
    assert refused == []
    assert done.json()["code"] == "step_up_required"


@pytest.mark.parametrize(
    ("action", "code"), [("delete", "step_up_required"), ("suspend", "step_up_required"), ("converge", None)]
)
async def test_session_whose_proof_is_old_takes_no_crowd_of_accounts_away(
    world: World, action: str, code: str | None
) -> None:
    await forget_proofs(world)
    body = {"action": action, "ids": [world.ids["clara"]]}

    answer = await world.http.post(f"{API}/accounts/bulk", json=body, headers=world.headers["root"])
    planned = await world.http.post(f"{API}/accounts/bulk?dry_run=true", json=body, headers=world.headers["root"])

    assert answer.json().get("code") == code
    assert (answer.status_code, planned.status_code) == (403 if code else 202, 200)


async def forget_proofs(world: World) -> None:
    """As if everybody had signed in long ago."""
    async with world.controller.database.write() as session:
        await session.execute(update(Session).values(verified_at=utc_now() - timedelta(minutes=16)))


def dangerous_routes(world: World) -> list[Route]:
    document = world.controller.app.litestar.openapi_schema.to_schema()["paths"]
    routes = [Route(verb, path, item[verb]) for path, item in document.items() for verb in item]
    return [route for route in routes if route.name in STEP_UP_ACTS]


async def try_route(world: World, route: Route, **query: str) -> httpx.Response:
    """As root, about nothing that is there."""
    path = route.path
    for parameter in route.operation.get("parameters", ()):
        path = path.replace(f"{{{parameter['name']}}}", world.ids["clara"])
    body = BODIES.get(route.name)
    return await world.http.request(route.method, path, json=body, params=query, headers=world.headers["root"])


@pytest.mark.parametrize("value", ["true", "false", "yes", ""])
async def test_change_without_a_dry_run_when_asked_for_one_does_nothing(world: World, value: str) -> None:
    """It would be made where the caller wants it not to be."""
    before = await world.count(ApiToken)

    answer = await world.http.post(
        f"{API}/tokens?dry_run={value}", json={"name": "robot"}, headers=world.headers["root"]
    )

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "dry_run")
    assert await world.count(ApiToken) == before


@pytest.mark.parametrize("query", ["dry_run=true&dry_run=false", "dry_run=false&dry_run=true"])
async def test_change_that_is_a_dry_run_and_is_none_is_refused(world: World, query: str) -> None:
    """Who asks for a proof might look at the first, who makes the change at the last."""
    await forget_proofs(world)
    root, clara = world.headers["root"], f"{API}/users/{world.ids['clara']}"

    dangerous = await world.http.delete(f"{clara}?{query}", headers=root)
    harmless = await world.http.post(f"{API}/packages?{query}", json={"name": "Small"}, headers=root)
    reading = await world.http.get(f"{API}/accounts?state=active&state=trashed", headers=root)

    assert [(answer.status_code, answer.json()["errors"][0]["field"]) for answer in (dangerous, harmless, reading)] == [
        (400, "dry_run"),
        (400, "dry_run"),
        (400, "state"),
    ]
    assert (await world.http.get(clara, headers=root)).status_code == 200


async def test_change_during_maintenance_when_called_a_dry_run_is_not_let_through(world: World) -> None:
    await world.ask("root", "POST", "/maintenance", {"reason": "upgrade"}, expect=200)
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}

    answer = await world.http.post(f"{API}/auth/password?dry_run=true", json=body, headers=world.headers["root"])

    assert answer.status_code == 400
    again = await world.http.post(f"{API}/auth/login", json={"username": "admin", "password": PASSWORD})
    assert again.status_code == 200


async def test_administrator_of_less_weakens_nobody_who_may_more(world: World) -> None:
    role_id = await world.add_role("Locks", Role.ADMIN, "security:read", "security:write")
    await world.add("guard", Role.ADMIN, role_id=role_id)
    await world.add("peer", Role.ADMIN, role_id=role_id)

    for name, status in (("adam", 403), ("admin", 403), ("clara", 403), ("peer", 404)):
        await world.ask("guard", "DELETE", f"/security/users/{name}/second-factor", expect=status)
    networks = {"deny": ["198.51.100.7/32"]}
    for name, status in (("adam", 403), ("clara", 403), ("peer", 200), ("guard", 200)):
        await world.ask("guard", "PUT", f"/security/users/{name}/networks", networks, expect=status)
    await world.ask("adam", "PUT", "/security/users/clara/networks", networks, expect=200)


async def test_entries_about_what_people_sign_in_with_say_where_it_came_from(world: World) -> None:
    made = await make_token(world, world.headers["clara"])
    await world.ask("clara", "DELETE", f"/tokens/{made.json()['token']['id']}", expect=204)
    await world.ask("clara", "POST", "/auth/step-up", {"password": "a long password of nobody"}, expect=200)
    async with world.controller.database.read() as session:
        actions = ("token.create", "token.revoke", "session.step_up")
        found = await session.execute(
            select(AuditEntry.action, AuditEntry.address).where(AuditEntry.action.in_(actions)).order_by(AuditEntry.id)
        )

    assert [tuple(row) for row in found] == [(action, "127.0.0.1") for action in actions]


async def test_address_of_an_administrator_is_not_told_to_a_tenant(world: World) -> None:
    """Their own people's is, and so is whose attempt to sign in was refused."""
    clara = world.ids["clara"]
    made = await make_token(world, world.headers["clara"])
    robot = {"authorization": f"Bearer {made.json()['secret']}"}
    await world.http.delete(f"{API}/users/{clara}", headers=robot)
    await world.ask("adam", "POST", f"/users/{clara}/impersonate", {"reason": "ticket 4711"}, expect=201)
    await world.http.post(f"{API}/auth/login", json={"username": "clara", "password": "not hers at all"})
    seen = {}
    for who in ("clara", "root"):
        items = (await world.ask(who, "GET", "/audit?limit=200", expect=200))["items"]
        seen[who] = {(item["action"], item["address"]) for item in items if item["target"] == f"user/{clara}"}
        seen[who] |= {(item["action"], item["address"]) for item in items if item["action"].startswith("token.")}

    for who, count in (("clara", 0), ("root", 1)):
        asked = "/audit?action=user.impersonate&address=127.0.0.1"
        assert len((await world.ask(who, "GET", asked, expect=200))["items"]) == count
    assert ("user.impersonate", None) in seen["clara"]
    assert ("user.impersonate", "127.0.0.1") in seen["root"]
    assert {("token.create", "127.0.0.1"), ("user.refuse_sign_in", "127.0.0.1")} <= seen["clara"]


async def test_bearer_without_a_token_does_not_make_a_cookie_trusted(
    controller: Controller, client: httpx.AsyncClient
) -> None:
    login = await client.post(
        f"{API}/auth/login", json={"username": "admin", "password": PASSWORD}, headers={"authorization": ""}
    )
    cookie = {"cookie": f"__Host-wcp={login.json()['token']}"}
    client.cookies.clear()

    for header in ("Bearer", "Bearer ", "bearer  "):
        answer = await client.post(f"{API}/auth/logout", headers={"authorization": header, **cookie})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request"), header


async def test_name_of_a_foreign_account_when_tried_tells_nothing_but_that_it_is_taken(hosting: Hosting) -> None:
    """Whether it is in the trash or on its way out is its owner's affair."""
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    package_id = await hosting.add_package("Starter")
    account_id = await shop.add_account("ada", package_id)
    live = await other.add_account("ada", package_id, expect=409)
    await shop.ask("DELETE", f"/accounts/{account_id}", expect=202, grace_days=7)

    trashed = await other.add_account("ada", package_id, expect=409)
    own = await shop.add_account("ada", package_id, expect=409)

    known = ("detail", "hint", "code", "errors")
    assert {name: live[name] for name in known} == {name: trashed[name] for name in known}
    assert "trash" in own["detail"]


async def test_package_that_is_not_sold_to_a_reseller_is_not_named_by_what_inherits_from_it(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    inner = await hosting.post("/packages", {"name": "Cost price", "tier": "admin", "processes_max": 50}, expect=201)
    sold = await hosting.post("/packages", {"name": "Starter", "parent_id": inner["id"]}, expect=201)

    shown = await shop.ask("GET", f"/packages/{sold['id']}/fields", expect=200)
    ours = await hosting.get(f"/packages/{sold['id']}/fields")

    fields = {field["field"]: field for field in shown["items"]}
    assert (fields["processes_max"]["value"], fields["processes_max"]["source"]) == (50, "inherited")
    assert inner["id"] not in str(shown)
    assert "Cost price" not in str(shown)
    assert "Cost price" in str(ours)


async def move(hosting: Hosting, shop: Shop, other: Shop) -> str:
    """An account of the shop's that is the other one's by now."""
    account_id = await shop.add_account("ada", await hosting.add_package("Starter"))
    await shop.ask("PATCH", f"/accounts/{account_id}", {"labels": {"owner-secret": "mine"}}, expect=202)
    await hosting.post(f"/accounts/{account_id}/transfer", {"client_id": other.client_id}, expect=202)
    return account_id


async def test_team_of_the_new_owner_reads_nothing_of_the_time_before(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    account_id = await move(hosting, shop, other)
    headers = await sign_in(hosting, "mel", Role.MEMBER, client_id=other.client_id)
    async with hosting.database.write() as session:
        user = (await session.scalars(select(User).where(User.username == "mel"))).one()
        session.add(AccountMember(account_id=account_id, user_id=user.id))

    shown = await hosting.http.get(f"{API}/audit", params={"account_id": account_id}, headers=headers)

    assert [entry["action"] for entry in shown.json()["items"]] == ["account.transfer"]
    assert shop.client_id not in shown.text
    assert "owner-secret" not in str([e["before"] for e in shown.json()["items"] if e["action"] != "account.transfer"])


async def test_events_of_a_transfer_are_of_one_side_each(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    with hosting.publisher.subscribe() as heard:
        heard.topics = frozenset({"accounts"})
        await move(hosting, shop, other)
        notices = []
        while (notice := await heard.next(0.1)) is not None:
            notices.append(notice)

    assert await events_for(hosting, shop, notices) == ["account.lose"]
    assert await events_for(hosting, other, notices) == ["account.transfer"]


async def events_for(hosting: Hosting, shop: Shop, notices: list[Notice]) -> list[str]:
    """What the reseller hears of a move, now."""
    found = await Identities(hosting.database, rules=PlatformPolicyBook(hosting.database)).find_identity(
        shop.headers["authorization"].removeprefix("Bearer ")
    )
    assert found is not None
    sight = Sight(hosting.operations, found.actor)
    moves = [notice for notice in notices if notice.event in ("account.lose", "account.transfer")]
    return [notice.event for notice in moves if await sight.sees(notice)]
