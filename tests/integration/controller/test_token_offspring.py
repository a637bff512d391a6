"""What a token made ends with it: whoever revokes a leaked one need not find what somebody made of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from websockets.exceptions import ConnectionClosed

from controller.api.handlers.events import CLOSE_UNAUTHENTICATED
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken
from controller.core.auth.tokens import TokenCreate, create_token
from controller.core.context import Actor
from controller.db.base import new_id, utc_now
from shared.errors import UnauthenticatedError
from tests.integration.conftest import running_controller
from tests.integration.controller.people import World
from tests.integration.controller.test_events import listen, receive
from tests.integration.controller.test_long_reads import drain


async def make(world: World, maker: str, name: str) -> str:
    """A token that signs as `name` from now on; its id."""
    made = await world.ask(maker, "POST", "/tokens", {"name": name}, expect=201)
    world.headers[name] = {"authorization": f"Bearer {made['secret']}"}
    world.ids[name] = made["token"]["id"]
    return world.ids[name]


async def make_family(world: World) -> None:
    """parent made child and other child, child made grandchild; nobody's token made friend."""
    for maker, name in (("clara", "parent"), ("parent", "child"), ("child", "grandchild"), ("parent", "other child")):
        await make(world, maker, name)
    await make(world, "clara", "friend")


async def list_alive(world: World, *names: str) -> list[str]:
    alive = []
    for name in names:
        answer = await world.http.get("/api/v1/auth/me", headers=world.headers[name])
        assert answer.status_code in (200, 401)
        alive += [name] if answer.status_code == 200 else []
    return alive


ALL = ("parent", "child", "grandchild", "other child", "friend")


@pytest.mark.parametrize(
    ("revoked", "alive"),
    [
        ("parent", ["friend"]),
        ("child", ["parent", "other child", "friend"]),
        ("grandchild", ["parent", "child", "other child", "friend"]),
        ("friend", ["parent", "child", "grandchild", "other child"]),
    ],
)
async def test_token_when_revoked_takes_along_what_came_from_it_and_nothing_else(
    world: World, revoked: str, alive: list[str]
) -> None:
    await make_family(world)

    await world.ask("clara", "DELETE", f"/tokens/{world.ids[revoked]}", expect=204)

    assert await list_alive(world, *ALL) == alive
    listed = await world.ask("clara", "GET", "/tokens", expect=200)
    assert {item["name"] for item in listed["items"]} == set(alive)


async def test_token_when_revoked_has_an_entry_for_each_that_went_with_it(world: World) -> None:
    await make_family(world)
    await world.ask("clara", "DELETE", f"/tokens/{world.ids['parent']}", expect=204)

    async with world.controller.database.read() as session:
        rows = await session.scalars(
            select(AuditEntry).where(AuditEntry.action == "token.revoke").order_by(AuditEntry.number)
        )
        entries = {entry.target_name: entry for entry in rows}

    assert list(entries) == ["parent", "child", "grandchild", "other child"]
    parent = f"token/{world.ids['parent']}"
    assert [entry.after for entry in entries.values()] == [None, *([{"revoked_with": parent}] * 3)]
    assert len({entry.request_id for entry in entries.values()}) == 1
    before = entries["grandchild"].before
    assert before is not None
    assert before["made_by"] == f"token/{world.ids['child']}"


async def test_token_when_its_revocation_is_tried_dry_says_what_would_go_and_all_stay(world: World) -> None:
    await make_family(world)

    plan = await world.ask("clara", "DELETE", f"/tokens/{world.ids['parent']}?dry_run=true", expect=200)

    assert [change["target"] for change in plan["changes"]] == [
        f"token/{world.ids[name]}" for name in ("parent", "child", "grandchild", "other child")
    ]
    assert await list_alive(world, *ALL) == list(ALL)


async def test_token_when_listed_says_which_token_made_it(world: World) -> None:
    await make_family(world)

    listed = await world.ask("clara", "GET", "/tokens", expect=200)

    found = {item["name"]: (item["parent_id"], item["parent_name"]) for item in listed["items"]}
    assert found == {
        "parent": (None, ""),
        "child": (world.ids["parent"], "parent"),
        "grandchild": (world.ids["child"], "child"),
        "other child": (world.ids["parent"], "parent"),
        "friend": (None, ""),
    }


async def test_token_when_it_revokes_its_own_maker_ends_with_it(world: World) -> None:
    await make_family(world)

    await world.ask("grandchild", "DELETE", f"/tokens/{world.ids['parent']}", expect=204)

    assert await list_alive(world, *ALL) == ["friend"]


async def test_token_of_somebody_else_when_revoked_is_unknown_and_its_offspring_stay(world: World) -> None:
    await make_family(world)
    await make(world, "mel", "stranger")

    await world.ask("stranger", "DELETE", f"/tokens/{world.ids['parent']}", expect=404)
    await world.ask("rita", "DELETE", f"/tokens/{world.ids['child']}", expect=404)

    assert await list_alive(world, *ALL) == list(ALL)


async def test_token_when_a_long_line_came_from_it_takes_all_of_it(world: World) -> None:
    """Also past one that was revoked before, however that came to be."""
    first = await make(world, "clara", "first")
    parent_id, ids = first, []
    async with world.controller.database.write() as session:
        for number in range(400):
            row = ApiToken(
                id=new_id(),
                user_id=world.ids["clara"],
                name=f"token {number}",
                secret_hash=f"{number:064}",
                scopes=["*"],
                parent_id=parent_id,
                revoked_at=utc_now() if number == 1 else None,
            )
            session.add(row)
            await session.flush()
            parent_id = row.id
            ids.append(row.id)

    await world.ask("clara", "DELETE", f"/tokens/{first}", expect=204)

    assert await world.count(ApiToken, ApiToken.id.in_(ids), ApiToken.revoked_at.is_(None)) == 0


async def test_token_when_revoked_between_its_sign_in_and_its_change_makes_none(world: World) -> None:
    token_id = await make(world, "clara", "parent")
    identity = await world.controller.authenticator.find_identity(
        world.headers["parent"]["authorization"].removeprefix("Bearer "), "127.0.0.1"
    )
    assert identity is not None
    await world.ask("clara", "DELETE", f"/tokens/{token_id}", expect=204)
    params = TokenCreate(user_id=identity.user_id, name="late", scopes=("*",), expires_at=None)

    actor: Actor = identity.actor
    with pytest.raises(UnauthenticatedError):
        await world.controller.operations.change(actor, "late", lambda ctx: create_token(ctx, params))

    assert await world.count(ApiToken, ApiToken.revoked_at.is_(None)) == 0


async def test_token_when_it_makes_many_while_it_is_revoked_leaves_none(world: World) -> None:
    parent = await make(world, "clara", "parent")

    async def send(method: str, path: str, who: str, body: Any = None) -> int:
        return (await world.http.request(method, f"/api/v1{path}", json=body, headers=world.headers[who])).status_code

    making = [send("POST", "/tokens", "parent", {"name": f"token {number}"}) for number in range(20)]
    revoking = send("DELETE", f"/tokens/{parent}", "clara")
    revoked, *made = await asyncio.gather(revoking, *making)

    assert revoked == 204
    assert set(made) <= {201, 401}
    assert await world.count(ApiToken, ApiToken.revoked_at.is_(None)) == 0


async def test_token_when_a_person_has_as_many_as_they_may_is_refused_whoever_makes_it(world: World) -> None:
    await world.ask("root", "PATCH", "/policies", {"tokens_max": 5}, expect=200)
    await make_family(world)

    refused = [
        await world.ask(maker, "POST", "/tokens", {"name": "more"}, expect=409) for maker in ("clara", "grandchild")
    ]
    await make(world, "mel", "of somebody else")
    async with world.controller.database.write() as session:
        await session.execute(update(ApiToken).where(ApiToken.name == "friend").values(expires_at=utc_now()))
    await make(world, "clara", "instead of one that ended")
    await world.ask("clara", "POST", "/tokens", {"name": "more"}, expect=409)
    await world.ask("clara", "DELETE", f"/tokens/{world.ids['parent']}", expect=204)
    for number in range(4):
        await make(world, "clara", f"instead of the revoked {number}")

    assert {problem["code"] for problem in refused} == {"too_many_tokens"}
    await world.ask("clara", "POST", "/tokens", {"name": "more"}, expect=409)


async def test_token_when_many_ask_at_once_for_the_last_one_is_made_once(world: World) -> None:
    await world.ask("root", "PATCH", "/policies", {"tokens_max": 1}, expect=200)

    async def ask(number: int) -> int:
        body = {"name": f"token {number}"}
        return (await world.http.post("/api/v1/tokens", json=body, headers=world.headers["clara"])).status_code

    statuses = await asyncio.gather(*(ask(number) for number in range(10)))

    assert sorted(statuses) == [201] + [409] * 9


async def test_user_when_deleted_takes_tokens_and_what_they_made_along(world: World) -> None:
    await make_family(world)

    await world.ask("root", "DELETE", f"/users/{world.ids['clara']}", expect=204)

    assert await list_alive(world, *ALL) == []
    assert await world.count(ApiToken) == 0


async def test_listener_of_a_tokens_offspring_when_that_token_is_revoked_is_sent_away(
    database_url: str, tmp_path: Path
) -> None:
    async with running_controller(database_url, tmp_path) as live, live.client() as http:
        made = (await http.post("/api/v1/tokens", json={"name": "parent"})).json()
        headers = {"authorization": f"Bearer {made['secret']}"}
        child = (await http.post("/api/v1/tokens", json={"name": "child"}, headers=headers)).json()
        async with listen(live, authorization=f"Bearer {child['secret']}") as socket:
            assert (await receive(socket))["event"] == "ready"
            assert (await http.delete(f"/api/v1/tokens/{made['token']['id']}")).status_code == 204
            with pytest.raises(ConnectionClosed) as closed:
                await drain(socket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CLOSE_UNAUTHENTICATED
