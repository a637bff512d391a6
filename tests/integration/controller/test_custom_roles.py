"""Custom roles, scopes and teams over the API: every way to more than one has is refused."""

from __future__ import annotations

from controller.core.accounts.models import Account
from controller.core.context import Role
from controller.core.tenancy.models import AccountMember
from controller.core.tenancy.roles import ensure_default_roles
from tests.integration.controller.people import World, person
from tests.integration.controller.test_every_route import Api


async def test_role_when_it_allows_more_than_its_level_is_refused(world: World) -> None:
    for permission in ("nodes:read", "users:write", "weather:read"):
        body = {"name": "More", "level": "member", "permissions": ["sites:read", permission]}
        answer = await world.ask("root", "POST", "/roles", body, expect=400)
        assert answer["errors"][0]["field"] == "permissions.1"


async def test_role_when_it_allows_more_than_its_maker_is_refused(world: World) -> None:
    narrow = await world.add_role(
        "People", Role.CLIENT, "users:write", "users:read", "roles:write", "roles:read", "sites:read"
    )
    await world.add("carl", Role.CLIENT, client_id=world.ids["ours client"], role_id=narrow)

    body = {"name": "More", "level": "member", "permissions": ["sites:write"]}
    await world.ask("carl", "POST", "/roles", body, expect=403)
    await world.ask("carl", "POST", "/roles", body | {"permissions": ["*"]}, expect=403)
    await world.ask("carl", "POST", "/users", person("member"), expect=403)  # would have all of the role
    await world.ask("carl", "POST", f"/users/{world.ids['clara']}/password", expect=403)  # would be clara then
    await world.ask("carl", "PATCH", f"/users/{world.ids['carl']}", {"role_id": None}, expect=403)
    await world.ask("carl", "PATCH", f"/roles/{narrow}", {"permissions": ["*"]}, expect=403)
    made = await world.ask("carl", "POST", "/roles", body | {"permissions": ["sites:read"]}, expect=201)
    await world.ask("carl", "POST", "/users", person("member", role_id=made["id"]), expect=201)


async def test_role_when_one_has_it_cannot_be_changed_by_oneself(world: World) -> None:
    owner = f"client/{world.ids['ours client']}"
    own = await world.add_role("Own", Role.CLIENT, "roles:write", "roles:read", "users:read", owner=owner)
    await world.add("carl", Role.CLIENT, client_id=world.ids["ours client"], role_id=own)

    await world.ask("carl", "PATCH", f"/roles/{own}", {"permissions": ["roles:write"]}, expect=403)
    await world.ask("carl", "DELETE", f"/roles/{own}", expect=403)


async def test_role_when_of_another_tenant_is_not_there(world: World) -> None:
    foreign = await world.add_role("F", Role.MEMBER, "sites:read", owner=f"client/{world.ids['foreign client']}")

    await world.ask("clara", "GET", f"/roles/{foreign}", expect=404)
    answer = await world.ask("clara", "PATCH", f"/users/{world.ids['mel']}", {"role_id": foreign}, expect=400)
    assert "there is no role" in answer["detail"]
    await world.ask("root", "PATCH", f"/users/{world.ids['mel']}", {"role_id": foreign}, expect=400)


async def test_role_of_the_platform_when_a_tenant_changes_it_is_refused(world: World) -> None:
    role_id = await world.add_role("Viewer", Role.MEMBER, "sites:read")

    await world.ask("clara", "PATCH", f"/roles/{role_id}", {"permissions": ["sites:write"]}, expect=403)
    await world.ask("rita", "DELETE", f"/roles/{role_id}", expect=403)


async def test_role_when_edited_counts_at_once_and_when_in_use_stays(world: World) -> None:
    body = {"name": "Team", "level": "member", "permissions": ["sites:write"]}
    role = await world.ask("clara", "POST", "/roles", body, expect=201)
    assert role["permissions"] == ["sites:read", "sites:write"]
    assert role["owner"] == f"client/{world.ids['ours client']}"
    await world.ask("clara", "PATCH", f"/users/{world.ids['mel']}", {"role_id": role["id"]}, expect=200)
    await world.ask("mel", "GET", "/sites", expect=200)
    await world.ask("mel", "GET", "/domains", expect=403)

    await world.ask("clara", "PATCH", f"/roles/{role['id']}", {"permissions": ["domains:read"]}, expect=200)

    await world.ask("mel", "GET", "/sites", expect=403)
    await world.ask("mel", "GET", "/domains", expect=200)
    await world.ask("clara", "DELETE", f"/roles/{role['id']}", expect=409)
    await world.ask("clara", "PATCH", f"/users/{world.ids['mel']}", {"role_id": None}, expect=200)
    await world.ask("clara", "DELETE", f"/roles/{role['id']}", expect=204)


async def test_default_roles_when_deleted_are_not_made_again(world: World) -> None:
    operations = world.controller.operations
    assert await ensure_default_roles(operations) == 3
    listed = await world.ask("clara", "GET", "/roles", expect=200)
    assert sorted(role["name"] for role in listed["items"]) == ["Billing", "Developer", "Viewer"]

    for role in listed["items"]:
        await world.ask("root", "DELETE", f"/roles/{role['id']}", expect=204)

    assert await ensure_default_roles(operations) == 0


async def test_permissions_when_listed_say_what_one_can_give(world: World) -> None:
    found = {item["name"]: item for item in (await world.ask("clara", "GET", "/permissions", expect=200))["items"]}

    assert found["sites:write"]["is_mine"] is True
    assert found["nodes:read"]["is_mine"] is False
    assert found["users:write"]["levels"] == ["root", "admin", "reseller", "client"]


async def test_token_when_it_asks_for_what_its_maker_lacks_is_refused_and_a_wildcard_is_narrowed(world: World) -> None:
    viewer = await world.add_role("V", Role.MEMBER, "*:read", "tokens:write")
    await world.add("vera", Role.MEMBER, client_id=world.ids["ours client"], role_id=viewer)

    for scope in ("sites:write", "nodes:read", "users:write"):
        await world.ask("vera", "POST", "/tokens", {"name": "t", "scopes": [scope]}, expect=403)
    made = await world.ask("vera", "POST", "/tokens", {"name": "t", "scopes": ["*"]}, expect=201)
    world.headers["robot"] = {"authorization": f"Bearer {made['secret']}"}
    await world.ask("robot", "GET", "/sites", expect=200)
    await world.ask("robot", "POST", "/sites", {"account_id": world.ids["mel"], "domain": "a.example"}, expect=403)
    await world.ask("robot", "GET", "/users", expect=403)


async def test_token_when_narrow_makes_nobody_who_may_more(world: World) -> None:
    made = await world.ask("clara", "POST", "/tokens", {"name": "t", "scopes": ["users:write"]}, expect=201)
    world.headers["robot"] = {"authorization": f"Bearer {made['secret']}"}

    await world.ask("robot", "POST", "/users", person("client"), expect=403)
    await world.ask("robot", "POST", f"/users/{world.ids['mel']}/password", expect=403)
    await world.ask("robot", "PATCH", f"/users/{world.ids['clara']}", {"role_id": None}, expect=403)


async def add_account(world: World, client: str) -> str:
    """An account of this client."""
    made = await Api(world.controller, world.http, world.numbers).fill(world.headers["root"])
    async with world.controller.database.write() as session:
        (await session.get_one(Account, made["account_id"])).client_id = world.ids[client]
    return made["account_id"]


async def test_member_when_put_on_an_account_reaches_it_and_no_other(world: World) -> None:
    first, second = await add_account(world, "ours client"), await add_account(world, "ours client")
    path = f"/accounts/{first}/members/{world.ids['mel']}"
    await world.ask("mel", "GET", f"/accounts/{first}", expect=404)

    for _twice in range(2):
        assert (await world.ask("clara", "PUT", path, expect=200))["username"] == "mel"

    assert await world.count(AccountMember) == 1
    await world.ask("mel", "GET", f"/accounts/{first}", expect=200)
    await world.ask("mel", "GET", f"/accounts/{second}", expect=404)
    listed = await world.ask("clara", "GET", f"/accounts/{first}/members", expect=200)
    assert [item["user_id"] for item in listed["items"]] == [world.ids["mel"]]
    await world.ask("clara", "DELETE", path, expect=204)
    await world.ask("clara", "DELETE", path, expect=404)
    await world.ask("mel", "GET", f"/accounts/{first}", expect=404)


async def test_member_when_the_account_went_to_another_client_reaches_it_no_more(world: World) -> None:
    account_id = await add_account(world, "ours client")
    await world.ask("clara", "PUT", f"/accounts/{account_id}/members/{world.ids['mel']}", expect=200)
    await world.ask("mel", "GET", f"/accounts/{account_id}", expect=200)

    async with world.controller.database.write() as session:
        (await session.get_one(Account, account_id)).client_id = world.ids["foreign client"]

    await world.ask("mel", "GET", f"/accounts/{account_id}", expect=404)


async def test_member_when_it_adds_itself_or_somebody_foreign_is_added_is_refused(world: World) -> None:
    ours, foreign = await add_account(world, "ours client"), await add_account(world, "foreign client")

    for who, account, whom, status in (
        ("mel", ours, "mel", 403),
        ("mel", foreign, "mel", 403),
        ("clara", foreign, "mel", 404),
        ("clara", ours, "mel.f", 404),
        ("clara.f", ours, "mel.f", 404),
        ("rita", foreign, "mel", 404),
        ("root", ours, "mel.f", 409),
        ("root", ours, "clara", 409),
    ):
        await world.ask(who, "PUT", f"/accounts/{account}/members/{world.ids[whom]}", expect=status)
        if status != 409:
            await world.ask(who, "DELETE", f"/accounts/{account}/members/{world.ids[whom]}", expect=status)
    await world.ask("clara", "GET", f"/accounts/{foreign}/members", expect=404)
    await world.ask("mel", "GET", f"/accounts/{ours}/members", expect=403)
    assert await world.count(AccountMember) == 0
