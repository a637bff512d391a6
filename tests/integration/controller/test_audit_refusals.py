"""Every refusal is in the audit log: who may not, who asked for what is another's, who could not sign in."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.audit.refusals import ACTOR_BURST, SIGN_IN_BURST, Refusals
from controller.core.context import Actor, Role
from controller.core.operations import FleetContext
from controller.db.base import utc_now
from shared.errors import ForbiddenError, NotFoundError
from tests.integration.controller.hosting import ADMIN, Hosting

CLIENT = Actor(kind="user", id="1", name="ada", role=Role.CLIENT, address="192.0.2.1")


async def newest(hosting: Hosting, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hosting.get("/audit", **query))["items"]
    return items


async def sign_in(hosting: Hosting, username: str, password: str) -> int:
    body = {"username": username, "password": password}
    answer = await hosting.http.post("/api/v1/auth/login", json=body, headers={"authorization": ""})
    return answer.status_code


async def test_change_when_the_actor_may_not_is_audited_and_changes_nothing_else(hosting: Hosting) -> None:
    async def forbidden(ctx: FleetContext) -> None:
        ctx.actor.require("packages", "write")

    with pytest.raises(ForbiddenError):
        await hosting.operations.change(CLIENT, "r1", forbidden)

    (entry,) = await newest(hosting)
    assert (entry["action"], entry["actor"], entry["address"]) == ("access.refuse", "user/1", "192.0.2.1")
    assert (entry["target"], entry["request_id"]) == ("permission/packages:write", "r1")
    assert (await hosting.get("/audit/verify"))["is_intact"]


async def test_read_when_the_actor_may_not_is_audited(hosting: Hosting) -> None:
    async def forbidden(ctx: FleetContext) -> None:
        ctx.actor.require("nodes", "read")

    with pytest.raises(ForbiddenError):
        await hosting.operations.read(CLIENT, "r1", forbidden)

    assert [entry["target_name"] for entry in await newest(hosting)] == ["nodes:read"]


async def test_read_when_a_tenant_asks_for_what_is_not_theirs_is_audited_and_of_an_administrator_it_is_not(
    hosting: Hosting,
) -> None:
    async def missing(_ctx: FleetContext) -> None:
        raise NotFoundError("there is no account x")

    for actor in (CLIENT, ADMIN):
        with pytest.raises(NotFoundError):
            await hosting.operations.read(actor, "r1", missing)

    (entry,) = await newest(hosting)
    assert entry["after"]["is_foreign"]


async def test_login_when_it_is_refused_is_audited_alike_for_known_and_unknown_names(hosting: Hosting) -> None:
    assert await sign_in(hosting, "root", "another password") == 401
    assert await sign_in(hosting, "nobody\u202e", "another password") == 401

    unknown, known = await newest(hosting, security=True)

    assert {unknown["action"], known["action"]} == {"user.refuse_sign_in"}
    assert (known["target_name"], known["after"]["is_known"]) == ("root", True)
    assert (unknown["target_name"], unknown["after"]["is_known"]) == ("nobody?", False)
    assert "another password" not in str([unknown, known])


async def test_list_audit_of_security_events_leaves_out_what_is_daily_work(hosting: Hosting) -> None:
    await hosting.add_package("A")
    await sign_in(hosting, "root", "another password")
    await sign_in(hosting, "root", "a long password")

    assert [entry["action"] for entry in await newest(hosting, security=True)] == [
        "user.sign_in",
        "user.refuse_sign_in",
    ]
    assert len(await newest(hosting)) == 3
    # Every other filter still narrows all of it.
    assert await newest(hosting, security=True, by="user/nobody") == []
    assert await newest(hosting, security=True, until="2026-01-01T00:00:00Z") == []


@pytest.mark.parametrize("is_sign_in", [True, False])
async def test_refusals_when_somebody_is_refused_without_end_are_counted_and_not_all_written(
    hosting: Hosting, is_sign_in: bool
) -> None:
    now = [0.0]
    refusals = Refusals(hosting.database, clock=utc_now, monotonic=lambda: now[0])
    burst = SIGN_IN_BURST if is_sign_in else ACTOR_BURST

    async def refuse() -> None:
        if is_sign_in:
            await refusals.note_sign_in("root", "192.0.2.1", "r", user_id=None)
        else:
            await refusals.note(CLIENT, "r", ForbiddenError("no"))

    for _ in range(burst + 7):
        await refuse()
    first = (await hosting.get("/audit/verify"))["entries"]
    now[0] = 1000.0
    await refuse()

    assert first == burst
    assert (await newest(hosting, limit=1))[0]["after"]["left_out"] == 7


async def test_refusals_of_other_errors_are_not_written(hosting: Hosting) -> None:
    await Refusals(hosting.database, clock=utc_now).note(ADMIN, "r", NotFoundError("no"))

    assert await newest(hosting) == []
