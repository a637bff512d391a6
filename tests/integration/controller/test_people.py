"""People over the API: who may make and change whom, and who is shut out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from controller.core.auth.models import ApiToken, Session, User
from controller.core.clients.models import Client
from controller.core.context import Actor, OpContext, Role
from controller.core.tenancy.models import CustomRole, Reseller
from controller.core.tenancy.people import set_person_state
from controller.db.base import utc_now
from shared.errors import ConflictError
from tests.integration.conftest import ADMIN
from tests.integration.controller.people import API, SECRET, World, person


async def test_create_user_when_below_oneself_gives_a_one_time_password(world: World) -> None:
    made = await world.ask("clara", "POST", "/users", person("member"), expect=201)

    assert made["user"]["client_id"] == world.ids["ours client"]
    assert made["user"]["must_change_password"] is True
    world.headers["grace"] = await world.sign_in("grace", made["password"])
    me = await world.ask("grace", "GET", "/auth/me", expect=200)
    assert me["role"] == "member"
    assert "users:write" not in me["permissions"]
    shown = await world.ask("clara", "GET", f"/users/{made['user']['id']}", expect=200)
    assert "password" not in shown


@pytest.mark.parametrize(
    ("who", "role", "tenant", "status"),
    [
        ("root", "root", "", 201), ("root", "admin", "", 201), ("adam", "root", "", 403), ("adam", "admin", "", 403),
        ("adam", "reseller", "ours reseller", 201), ("adam", "client", "ours client", 201),
        ("rita", "admin", "", 403), ("rita", "reseller", "", 201), ("rita", "reseller", "foreign reseller", 400),
        ("rita", "client", "ours client", 201), ("rita", "client", "foreign client", 400), ("rita", "client", "", 400),
        ("clara", "reseller", "ours reseller", 403), ("clara", "client", "", 201), ("clara", "member", "", 201),
        ("clara", "member", "foreign client", 400), ("mel", "member", "ours client", 403), ("root", "reseller", "", 400),
    ],
)  # fmt: skip
async def test_create_user_when_asked_by_each_role_stays_below_and_inside(
    world: World, who: str, role: str, tenant: str, status: int
) -> None:
    key = "reseller_id" if "reseller" in tenant else "client_id"
    before = await world.count(User)

    answer = await world.ask(
        who, "POST", "/users", person(role, **({key: world.ids[tenant]} if tenant else {})), expect=status
    )

    assert await world.count(User) == before + (status == 201)
    if status == 400 and tenant:
        assert "there is no" in answer["detail"]
        assert answer["errors"][0]["field"] == key


@pytest.mark.parametrize(
    "extra",
    [{"password_hash": "x"}, {"id": "1"}, {"disabled_at": None}, {"networks": {}}, {"must_change_password": False}],
)
async def test_create_user_when_columns_are_slipped_in_refuses(world: World, extra: dict[str, Any]) -> None:
    await world.ask("root", "POST", "/users", person("admin", **extra), expect=400)


@pytest.mark.parametrize("name", ["client_id", "reseller_id", "username", "password_hash"])
async def test_update_user_when_the_owner_is_slipped_in_refuses(world: World, name: str) -> None:
    body = {"role_id": None, name: world.ids["foreign client"]}

    await world.ask("root", "PATCH", f"/users/{world.ids['mel']}", body, expect=400)


async def test_list_users_when_filtered_shows_those_and_refuses_nonsense(world: World) -> None:
    async def names(query: str) -> set[str]:
        return {item["username"] for item in (await world.ask("rita", "GET", f"/users?{query}", expect=200))["items"]}

    assert await names("role=member") == {"mel"}
    assert await names(f"client_id={world.ids['ours client']}") == {"clara", "mel"}
    assert await names(f"client_id={world.ids['foreign client']}") == set()
    assert await names("search=RIT") == {"rita"}
    for query in ("role=king", "client_id=%00", "reseller_id=x", "search=%00", "cursor=x"):
        await world.ask("rita", "GET", f"/users?{query}", expect=400)


async def test_create_user_when_the_name_is_of_another_tenant_is_a_conflict(world: World) -> None:
    await world.ask("clara", "POST", "/users", {"username": "mel.f", "role": "member"}, expect=409)


async def test_create_user_when_only_planned_adds_nobody(world: World) -> None:
    before = await world.count(User)

    answer = await world.ask("clara", "POST", "/users?dry_run=true", person("member"), expect=200)

    assert [change["action"] for change in answer["changes"]] == ["user.create"]
    assert await world.count(User) == before


@pytest.mark.parametrize(
    ("who", "whom", "status"),
    [
        ("adam", "adam", 403), ("adam", "admin", 403), ("rita", "rita", 403), ("rita", "clara", 200),
        ("rita", "rita.f", 404), ("rita", "clara.f", 404), ("clara", "mel", 200), ("clara", "mel.f", 404),
        ("clara", "rita", 404), ("mel", "clara", 403), ("mel", "mel", 403), ("root", "adam", 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/disable", None), ("POST", "/password", None), ("PATCH", "", {"role_id": None}), ("DELETE", "", None)],
)
async def test_change_of_a_user_when_asked_by_each_role_stays_below_and_inside(
    world: World, who: str, whom: str, status: int, method: str, path: str, body: Any
) -> None:
    async with world.controller.database.read() as session:
        user_id = (await session.scalars(select(User.id).where(User.username == whom))).one()

    expected = 204 if (status, method) == (200, "DELETE") else status
    await world.ask(who, method, f"/users/{user_id}{path}", body, expect=expected)


async def test_own_role_when_changed_by_oneself_is_refused(world: World) -> None:
    await world.ask("clara", "PATCH", f"/users/{world.ids['clara']}", {"role": "member"}, expect=403)
    await world.ask("root", "PATCH", f"/users/{world.ids['adam']}", {"role": "reseller"}, expect=400)


async def test_role_when_changed_counts_at_once(world: World) -> None:
    await world.ask("clara", "PATCH", f"/users/{world.ids['mel']}", {"role": "client"}, expect=200)

    await world.ask("mel", "GET", "/users", expect=200)


async def test_last_root_when_two_shut_each_other_out_stays(world: World) -> None:
    """Whoever asks was root when the request began, and is not any more when it is their turn."""
    other = await world.add("ruth", Role.ROOT, disabled_at=None)
    async with world.controller.database.write() as session:
        admin_id = (await session.scalars(select(User.id).where(User.username == ADMIN))).one()
        await session.execute(update(User).where(User.id == other).values(disabled_at=utc_now()))
        ruth = Actor(kind="user", id=other, name="ruth", role=Role.ROOT, user_id=other)
        ctx = OpContext(actor=ruth, session=session, request_id="-", now=utc_now())

        with pytest.raises(ConflictError) as refused:
            await set_person_state(ctx, admin_id, is_disabled=True)

    assert refused.value.code == "last_root"


async def test_user_when_disabled_is_shut_out_with_sessions_and_tokens_until_enabled(world: World) -> None:
    token = await world.ask("clara", "POST", "/tokens", {"name": "t"}, expect=201)
    world.headers["robot"] = {"authorization": f"Bearer {token['secret']}"}
    path = f"/users/{world.ids['clara']}"

    await world.ask("rita", "POST", f"{path}/disable", expect=200)

    for who in ("clara", "robot"):
        await world.ask(who, "GET", "/auth/me", expect=401)
    refused = await world.http.post(f"{API}/auth/login", json={"username": "clara", "password": SECRET})
    assert (refused.status_code, refused.json()["code"]) == (401, "wrong_credentials")
    await world.ask("rita", "POST", f"{path}/enable", expect=200)
    await world.ask("robot", "GET", "/auth/me", expect=200)
    await world.sign_in("clara")


async def test_user_when_deleted_leaves_no_session_and_no_token(world: World) -> None:
    await world.ask("mel", "POST", "/tokens", {"name": "t"}, expect=201)

    await world.ask("clara", "DELETE", f"/users/{world.ids['mel']}", expect=204)

    await world.ask("mel", "GET", "/auth/me", expect=401)
    for table in (Session, ApiToken):
        assert await world.count(table, table.user_id == world.ids["mel"]) == 0


async def test_password_when_reset_signs_out_and_works_once_given(world: World) -> None:
    made = await world.ask("clara", "POST", f"/users/{world.ids['mel']}/password", expect=200)

    await world.ask("mel", "GET", "/auth/me", expect=401)
    await world.sign_in("mel", made["password"])


@pytest.mark.parametrize(("who", "owner"), [("rita", "ours reseller"), ("clara", "ours client")])
async def test_tenant_when_suspended_or_deleted_is_shut_out(world: World, who: str, owner: str) -> None:
    token = await world.ask(who, "POST", "/tokens", {"name": "t"}, expect=201)
    world.headers["robot"] = {"authorization": f"Bearer {token['secret']}"}
    async with world.controller.database.write() as session:
        if "reseller" in owner:
            (await session.get_one(Reseller, world.ids[owner])).suspended_at = utc_now()
        else:
            (await session.get_one(Client, world.ids[owner])).deleted_at = utc_now()

    for holder in (who, "robot"):
        await world.ask(holder, "GET", "/auth/me", expect=401)
    answer = await world.http.post(f"{API}/auth/login", json={"username": who, "password": SECRET})
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_credentials")


async def test_client_when_deleted_takes_its_people_and_roles_with_it(world: World) -> None:
    client_id = world.ids["ours client"]
    await world.add_role("Ours", Role.MEMBER, "sites:read", owner=f"client/{client_id}")

    await world.ask("rita", "DELETE", f"/clients/{client_id}", expect=204)

    await world.ask("clara", "GET", "/auth/me", expect=401)
    assert await world.count(User, User.client_id == client_id) == 0
    assert await world.count(CustomRole) == 0
    assert await world.count(User, User.username == "mel.f") == 1
