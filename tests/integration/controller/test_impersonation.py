"""An administrator views as somebody: what they may do then, and who sees it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from controller.core.auth.models import Session, User
from controller.core.context import Role
from controller.db.base import utc_now
from tests.integration.controller.people import World


async def view(world: World, who: str, whom: str, *, expect: int = 201) -> dict[str, Any]:
    """Begin; the session is signed in as `view`."""
    body = {"reason": "ticket 4711"}
    answer: dict[str, Any] = await world.ask(who, "POST", f"/users/{world.ids[whom]}/impersonate", body, expect=expect)
    if expect == 201:
        world.headers["view"] = {"authorization": f"Bearer {answer['token']}"}
    return answer


async def test_view_when_begun_is_the_person_for_an_hour_and_says_so(world: World) -> None:
    begun = await view(world, "adam", "clara")

    left = datetime.fromisoformat(begun["expires_at"]) - utc_now()
    assert timedelta(minutes=58) < left <= timedelta(hours=1)
    me = await world.ask("view", "GET", "/auth/me", expect=200)
    assert (me["username"], me["role"], me["impersonated_by"]) == ("clara", "client", "adam")
    people = await world.ask("view", "GET", "/users", expect=200)
    assert {item["username"] for item in people["items"]} == {"clara", "mel"}
    assert (await world.ask("adam", "GET", "/auth/me", expect=200))["impersonated_by"] == ""


async def test_view_when_begun_is_seen_by_the_tenant(world: World) -> None:
    await view(world, "adam", "clara")

    sessions = (await world.ask("clara", "GET", "/sessions", expect=200))["items"]
    assert sorted(item["impersonated_by"] for item in sessions) == ["", "adam"]
    for who in ("clara", "rita"):
        entries = (await world.ask(who, "GET", "/audit?action=user.impersonate", expect=200))["items"]
        assert [(entry["actor_name"], entry["after"]["reason"]) for entry in entries] == [("adam", "ticket 4711")]
        assert entries[0]["client_id"] == world.ids["ours client"]
    assert (await world.ask("clara.f", "GET", "/audit?action=user.impersonate", expect=200))["items"] == []


async def test_view_as_a_resellers_person_when_begun_is_seen_by_the_reseller(world: World) -> None:
    await view(world, "root", "rita")

    entries = (await world.ask("rita", "GET", "/audit?action=user.impersonate", expect=200))["items"]
    assert [entry["actor_name"] for entry in entries] == ["admin"]


async def test_acts_when_viewing_are_written_down_as_the_administrators(world: World) -> None:
    await view(world, "adam", "clara")

    body = {"name": "Team", "level": "member", "permissions": ["sites:read"]}
    await world.ask("view", "POST", "/roles", body, expect=201)

    entries = (await world.ask("clara", "GET", "/audit?action=role.create", expect=200))["items"]
    assert [(entry["actor"], entry["actor_name"]) for entry in entries] == [
        (f"user/{world.ids['adam']}", "adam as clara")
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/auth/password", {"current_password": "x", "new_password": "another long password"}),
        ("POST", "/auth/step-up", {"password": "x"}),
        ("POST", "/tokens", {"name": "t"}),
        ("POST", "/second-factor", {"password": "x"}),
        ("POST", "/second-factor/recovery-codes", None),
        ("POST", "/sessions/revoke-others", None),
        ("DELETE", "/sessions/00000000-0000-7000-8000-000000000001", None),
        ("POST", "/users", {"username": "grace", "role": "member"}),
        ("POST", "/users/{mel}/password", None),
        ("POST", "/users/{mel}/impersonate", {"reason": "ticket"}),
    ],
)
async def test_credentials_when_viewing_are_not_touched(world: World, method: str, path: str, body: Any) -> None:
    await view(world, "adam", "clara")

    answer = await world.ask("view", method, path.format(**world.ids), body, expect=403)

    assert answer["code"] == "impersonation_forbidden"


@pytest.mark.parametrize(
    ("who", "whom", "status"),
    [
        ("rita", "clara", 403), ("clara", "mel", 403), ("mel", "clara", 403), ("adam", "adam", 403),
        ("root", "adam", 403), ("root", "rita", 201),
    ],
)  # fmt: skip
async def test_view_when_begun_by_each_role_is_for_administrators_and_tenants_only(
    world: World, who: str, whom: str, status: int
) -> None:
    await view(world, who, whom, expect=status)


async def test_view_when_a_program_or_somebody_who_may_less_begins_it_is_refused(world: World) -> None:
    token = await world.ask("adam", "POST", "/tokens", {"name": "t"}, expect=201)
    world.headers["robot"] = {"authorization": f"Bearer {token['secret']}"}
    support = await world.add_role("Support", Role.ADMIN, "users:read", "users:write")
    await world.add("sue", Role.ADMIN, role_id=support)

    await view(world, "robot", "clara", expect=403)
    await view(world, "sue", "clara", expect=403)


async def test_view_when_the_proof_is_old_asks_for_another(world: World) -> None:
    async with world.controller.database.write() as session:
        old = utc_now() - timedelta(days=1)
        await session.execute(update(Session).where(Session.user_id == world.ids["adam"]).values(verified_at=old))

    assert (await view(world, "adam", "clara", expect=403))["code"] == "step_up_required"


@pytest.mark.parametrize("reason", ["", "x", "a\nb", None])
async def test_view_when_it_has_no_reason_is_refused(world: World, reason: str | None) -> None:
    path = f"/users/{world.ids['clara']}/impersonate"

    await world.ask("adam", "POST", path, {"reason": reason} if reason is not None else {}, expect=400)


async def test_view_when_signed_out_ends_and_leaves_the_persons_own_sessions(world: World) -> None:
    await view(world, "adam", "clara")

    await world.ask("view", "POST", "/auth/logout", expect=204)

    await world.ask("view", "GET", "/auth/me", expect=401)
    await world.ask("clara", "GET", "/auth/me", expect=200)
    await world.ask("adam", "GET", "/auth/me", expect=200)


async def test_view_when_the_person_ends_it_is_over(world: World) -> None:
    await view(world, "adam", "clara")

    await world.ask("clara", "POST", "/sessions/revoke-others", expect=200)

    await world.ask("view", "GET", "/auth/me", expect=401)


@pytest.mark.parametrize("how", ["disabled in the table", "demoted in the table", "disabled", "narrowed", "reset"])
async def test_view_when_the_administrator_may_no_more_ends_at_once(world: World, how: str) -> None:
    await view(world, "adam", "clara")
    path = f"/users/{world.ids['adam']}"

    if how.endswith("in the table"):
        values = {"disabled_at": utc_now()} if how.startswith("disabled") else {"role": "client"}
        async with world.controller.database.write() as session:
            await session.execute(update(User).where(User.id == world.ids["adam"]).values(**values))
    elif how == "narrowed":
        role_id = await world.add_role("Reader", Role.ADMIN, "*:read")
        await world.ask("root", "PATCH", path, {"role_id": role_id}, expect=200)
    else:
        await world.ask("root", "POST", f"{path}/{'disable' if how == 'disabled' else 'password'}", expect=200)

    await world.ask("view", "GET", "/auth/me", expect=401)
    await world.ask("clara", "GET", "/auth/me", expect=200)


async def test_view_when_begun_ends_none_of_the_persons_sessions(world: World) -> None:
    await world.ask("root", "PATCH", "/policies", {"sessions_max": 1}, expect=200)

    await view(world, "adam", "clara")
    await world.sign_in("clara")

    await world.ask("view", "GET", "/auth/me", expect=200)
    async with world.controller.database.read() as session:
        own = select(Session.id).where(Session.user_id == world.ids["clara"], Session.impersonator_id.is_(None))
        assert len((await session.scalars(own)).all()) == 1


async def test_view_when_the_person_may_come_from_elsewhere_only_asks_where_the_administrator_may(world: World) -> None:
    elsewhere: dict[str, Any] = {"networks": {"allow": ["198.51.100.0/24"], "deny": []}}
    async with world.controller.database.write() as session:
        await session.execute(update(User).where(User.id == world.ids["clara"]).values(**elsewhere))
    await world.ask("clara", "GET", "/auth/me", expect=403)

    await view(world, "adam", "clara")

    await world.ask("view", "GET", "/auth/me", expect=200)
    async with world.controller.database.write() as session:
        await session.execute(update(User).where(User.id == world.ids["adam"]).values(**elsewhere))
    await world.ask("view", "GET", "/auth/me", expect=403)


async def test_view_when_the_person_must_have_a_second_factor_asks_for_none(world: World) -> None:
    """The administrator proved who they are, and has no device of the person."""
    await world.ask("root", "PATCH", "/security", {"second_factor_roles": ["client"]}, expect=200)
    await world.ask("clara", "GET", "/users", expect=403)

    await view(world, "adam", "clara")

    await world.ask("view", "GET", "/users", expect=200)
