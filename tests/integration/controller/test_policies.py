"""What an administrator decides for the whole platform: shown, changed, refused, and that it really changes something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.accounts.upkeep import AccountUpkeep
from controller.core.auth.attempts import AttemptRetention
from controller.core.auth.models import Session, SignInAttempt
from controller.core.context import Role
from controller.core.policies.book import REFRESH_SECONDS, PlatformPolicyBook, parse_stored, read_now
from controller.core.policies.models import PlatformPolicyRow
from controller.core.policies.registry import KINDS, PlatformPolicies
from tests.integration.conftest import ADMIN, PASSWORD
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.people import World

API = "/api/v1"
AWAY = "198.51.100.7"


async def change(client: httpx.AsyncClient, expect: int = 200, **values: Any) -> Any:
    answer = await client.patch(f"{API}/policies", json=values)
    assert answer.status_code == expect, answer.text
    return answer.json()


async def value_of(client: httpx.AsyncClient, name: str) -> Any:
    return (await client.get(f"{API}/policies/{name}")).json()["value"]


async def age_sessions(controller: Controller, **values: Any) -> None:
    async with controller.database.write() as session:
        await session.execute(update(Session).values(**values))


@asynccontextmanager
async def visitor(controller: Controller, address: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=controller.app.asgi, client=(address, 5000))
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        yield http


# --- the mechanism ------------------------------------------------------------------------------------------------


async def test_policies_when_listed_say_value_range_default_unit_and_who_may_change_them(
    client: httpx.AsyncClient,
) -> None:
    items = (await client.get(f"{API}/policies")).json()["items"]

    by_name = {item["name"]: item for item in items}
    assert list(by_name) == list(PlatformPolicies.__struct_fields__)
    assert all(item["is_default"] and item["value"] == item["default"] and item["description"] for item in items)
    assert by_name["session_idle_minutes"] == {
        "name": "session_idle_minutes", "group": "sessions", "value": None, "default": None, "is_default": True,
        "unit": "minutes", "type": "integer", "minimum": 5, "maximum": 43_200, "choices": [], "is_nullable": True,
        "description": by_name["session_idle_minutes"]["description"], "permission": "security:write",
        "needs_step_up": True, "changed_at": None, "changed_by": "",
    }  # fmt: skip
    assert by_name["api_log"]["choices"] == ["all", "changes", "failures", "none"]
    assert by_name["job_retention_days"]["permission"] == "policies:write"


async def test_policies_when_changed_are_shown_with_who_and_audited_one_by_one(client: httpx.AsyncClient) -> None:
    items = (await change(client, job_retention_days=30, password_length_min=20, sessions_max=10))["items"]

    changed = {item["name"]: item for item in items if not item["is_default"]}
    entries = (await client.get(f"{API}/audit", params={"action": "policy.update"})).json()["items"]
    assert {name: item["value"] for name, item in changed.items()} == {
        "job_retention_days": 30,
        "password_length_min": 20,
    }
    assert {item["changed_by"] for item in changed.values()} == {ADMIN}
    assert all(item["changed_at"] for item in changed.values())
    assert {(entry["target"], entry["before"]["value"], entry["after"]["value"]) for entry in entries} == {
        ("policy/job_retention_days", 90, 30),
        ("policy/password_length_min", 12, 20),
    }


async def test_policy_when_reset_is_the_default_again(client: httpx.AsyncClient, controller: Controller) -> None:
    await change(client, job_retention_days=30)

    back = await client.post(f"{API}/policies/job_retention_days/reset")
    again = await client.post(f"{API}/policies/job_retention_days/reset")

    assert (back.status_code, back.json()["value"], back.json()["is_default"]) == (200, 90, True)
    assert again.json() == back.json()
    assert (await client.get(f"{API}/audit", params={"target": "policy/job_retention_days"})).json()["items"][0][
        "after"
    ] == {"value": 90}
    async with controller.database.read() as session:
        assert (await session.scalars(select(PlatformPolicyRow))).all() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password_length_min": 4}, "password_length_min"),
        ({"session_idle_minutes": 1}, "session_idle_minutes"),
        ({"session_idle_minutes": "soon"}, "session_idle_minutes"),
        ({"step_up_minutes": 100_000}, "step_up_minutes"),
        ({"sessions_max": None}, "sessions_max"),
        ({"sessions_max": True}, "sessions_max"),
        ({"sessions_max": 3.5}, "sessions_max"),
        ({"password_refuses_known": 1}, "password_refuses_known"),
        ({"api_log": "loud"}, "api_log"),
        ({"audit_retention_days": 0}, "audit_retention_days"),
    ],
)
async def test_policies_when_one_is_wrong_name_it_and_none_is_changed(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    before = (await client.get(f"{API}/policies")).json()

    problem = await change(client, 400, job_retention_days=30, **body)

    assert [error["field"] for error in problem["errors"]] == [field]
    assert (await client.get(f"{API}/policies")).json() == before


async def test_policies_when_there_is_none_of_the_name_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{API}/policies/colour")).status_code == 404
    assert (await client.post(f"{API}/policies/colour/reset")).status_code == 404
    await change(client, 400, colour="blue")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"session_idle_minutes": 800}, "session_idle_minutes"),
        ({"session_hours": 1, "step_up_minutes": 90}, "step_up_minutes"),
        ({"deletion_grace_days": 120}, "deletion_grace_days"),
        ({"deletion_grace_days_max": 3}, "deletion_grace_days"),
        ({"login_attempts_pair": 40}, "login_attempts_pair"),
        ({"api_usage_retention_days": 30}, "api_usage_hours_retention_days"),
        ({"readers_user_max": 201}, "readers_user_max"),
        ({"readers_max": 150}, "readers_tenant_max"),
    ],
)
async def test_policies_when_they_contradict_each_other_are_refused(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    problem = await change(client, 400, **body)

    assert (problem["code"], [error["field"] for error in problem["errors"]]) == ("policy_conflict", [field])
    assert "together" in problem["hint"]


async def test_policies_when_changed_together_may_be_what_one_by_one_is_refused(client: httpx.AsyncClient) -> None:
    await change(client, deletion_grace_days=120, deletion_grace_days_max=150)

    problem = await client.post(f"{API}/policies/deletion_grace_days_max/reset")

    assert (problem.status_code, problem.json()["code"]) == (400, "policy_conflict")
    assert await value_of(client, "deletion_grace_days_max") == 150


async def test_policies_when_two_contradicting_changes_meet_take_one(client: httpx.AsyncClient) -> None:
    bodies = ({"deletion_grace_days": 80}, {"deletion_grace_days_max": 60})

    answers = await asyncio.gather(*(client.patch(f"{API}/policies", json=body) for body in bodies))

    assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_policies_when_a_dry_run_changes_them_stay(client: httpx.AsyncClient) -> None:
    answer = await client.patch(f"{API}/policies?dry_run=true", json={"sessions_max": 3})
    reset = await client.post(f"{API}/policies/sessions_max/reset?dry_run=true")

    assert answer.json()["changes"][0]["after"] == {"value": 3}
    assert reset.json()["changes"] == []
    assert await value_of(client, "sessions_max") == 10


async def test_policies_that_protect_ask_for_a_fresh_proof_and_others_do_not(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await age_sessions(controller, verified_at=datetime.now(UTC) - timedelta(minutes=16))

    refused = await change(client, 403, session_hours=24)
    reset = await client.post(f"{API}/policies/session_hours/reset")
    mixed = await change(client, 403, job_retention_days=30, password_refuses_known=False)
    await change(client, job_retention_days=31)

    assert {refused["code"], reset.json()["code"], mixed["code"]} == {"step_up_required"}
    assert await value_of(client, "job_retention_days") == 31


async def test_policies_are_closed_to_tenants_and_by_permission(world: World) -> None:
    role = await world.add_role("Keeper", Role.ADMIN, "policies:read", "policies:write", "security:read")
    await world.ask("root", "PATCH", f"/users/{world.ids['adam']}", {"role_id": role}, expect=200)

    await world.ask("clara", "GET", "/policies", expect=403)
    await world.ask("adam", "PATCH", "/policies", {"job_retention_days": 30}, expect=200)
    await world.ask("adam", "PATCH", "/policies", {"sessions_max": 3}, expect=403)
    await world.ask("adam", "PATCH", "/policies", {"job_retention_days": 31, "sessions_max": 3}, expect=403)

    shown = await world.ask("root", "GET", "/policies/job_retention_days", expect=200)
    assert shown["value"] == 30


async def test_policies_in_another_process_follow_within_seconds(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    now = 1000.0
    other = PlatformPolicyBook(controller.database, clock=lambda: now)
    before = (await other.current()).sessions_max

    await change(client, sessions_max=3)

    assert (before, (await other.current()).sessions_max) == (10, 10)
    now += REFRESH_SECONDS
    assert (await other.current()).sessions_max == 3
    assert (await controller.authenticator.rules.current()).sessions_max == 3


async def test_policies_when_another_release_stored_what_this_one_does_not_take_are_the_default(
    controller: Controller,
) -> None:
    async with controller.database.write() as session:
        session.add(PlatformPolicyRow(name="sessions_max", value="many", changed_by="x"))
        session.add(PlatformPolicyRow(name="of_tomorrow", value=7, changed_by="x"))
        session.add(PlatformPolicyRow(name="job_retention_days", value=30, changed_by="x"))

    assert await read_now(controller.database) == PlatformPolicies(job_retention_days=30)


def test_every_policy_says_what_it_is_and_takes_its_own_ends() -> None:
    for kind in KINDS.values():
        assert kind.description.endswith("."), kind.name
        ends = [kind.minimum, kind.maximum] if kind.type == "integer" else list(kind.choices) or [True, False]
        assert all(value is not None for value in ends), kind.name
        for value in ends:
            assert getattr(parse_stored({kind.name: value}), kind.name) == value


# --- what they do -------------------------------------------------------------------------------------------------


async def test_session_when_nobody_used_it_for_the_idle_time_is_over(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await age_sessions(controller, last_used_at=datetime.now(UTC) - timedelta(minutes=40))
    assert (await client.get(f"{API}/auth/me")).status_code == 200
    await change(client, session_idle_minutes=30)
    await age_sessions(controller, last_used_at=datetime.now(UTC) - timedelta(minutes=29))
    busy = await client.get(f"{API}/auth/me")
    shown = (await client.get(f"{API}/sessions")).json()["items"]

    await age_sessions(controller, last_used_at=datetime.now(UTC) - timedelta(minutes=31))

    assert (busy.status_code, len(shown)) == (200, 1)
    assert (await client.get(f"{API}/auth/me")).status_code == 401


async def test_session_in_use_never_looks_idle_under_the_shortest_idle_time(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await change(client, session_idle_minutes=5)
    await age_sessions(controller, last_used_at=datetime.now(UTC) - timedelta(minutes=1))

    await client.get(f"{API}/auth/me")

    async with controller.database.read() as session:
        row = (await session.scalars(select(Session))).one()
    assert datetime.now(UTC) - row.last_used_at < timedelta(seconds=31)


async def test_session_when_its_lifetime_is_made_shorter_ends_by_it(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await change(client, session_hours=2)
    await age_sessions(controller, created_at=datetime.now(UTC) - timedelta(hours=1))
    me = (await client.get(f"{API}/auth/me")).json()

    await age_sessions(controller, created_at=datetime.now(UTC) - timedelta(hours=2))

    left = datetime.fromisoformat(me["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert (await client.get(f"{API}/auth/me")).status_code == 401


async def test_sign_in_when_sessions_last_longer_begins_one_that_does(client: httpx.AsyncClient) -> None:
    await change(client, session_hours=48)

    answer = await client.post(f"{API}/auth/login", json={"username": ADMIN, "password": PASSWORD})

    left = datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=47) < left <= timedelta(hours=48)


async def test_guesses_when_fewer_are_allowed_are_slowed_sooner(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    async def guess(http: httpx.AsyncClient) -> int:
        body = {"username": ADMIN, "password": "not the password"}
        return (await http.post(f"{API}/auth/login", json=body)).status_code

    await change(client, login_attempts_pair=3, login_seconds_pair=600)
    async with visitor(controller, AWAY) as guesser:
        slowed = [await guess(guesser) for _ in range(4)]
    await change(client, login_attempts_pair=5, login_seconds_pair=600)
    async with visitor(controller, "198.51.100.8") as guesser:
        default = [await guess(guesser) for _ in range(6)]

    assert slowed == [401, 401, 401, 429]
    assert default == [401] * 5 + [429]


async def test_password_on_a_list_when_lists_are_not_asked_is_taken(client: httpx.AsyncClient) -> None:
    body = {"current_password": PASSWORD, "new_password": "password123456"}
    refused = await client.post(f"{API}/auth/password", json=body)
    await change(client, password_refuses_known=False)

    taken = await client.post(f"{API}/auth/password", json=body)

    assert (refused.status_code, refused.json()["code"], taken.status_code) == (400, "password_too_weak", 204)


async def test_account_when_deleted_can_be_restored_as_long_as_the_policy_says(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.http.patch(f"{API}/policies", json={"deletion_grace_days": 2, "deletion_grace_days_max": 5})

    refused = await hosting.delete(f"/accounts/{account_id}", expect=400, grace_days=6)
    deleted = (await hosting.delete(f"/accounts/{account_id}", expect=202))["resource"]

    left = datetime.fromisoformat(deleted["purge_at"]) - datetime.now(UTC)
    assert [error["field"] for error in refused["errors"]] == ["grace_days"]
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)
    assert await AccountUpkeep(hosting.operations).run() is None


async def test_sign_ins_when_they_are_kept_shorter_are_forgotten_sooner(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    async with controller.database.write() as session:
        await session.execute(update(SignInAttempt).values(created_at=datetime.now(UTC) - timedelta(days=40)))
    before = await AttemptRetention(controller.database).run()

    await change(client, sign_in_retention_days=30)

    assert (before, await AttemptRetention(controller.database).run()) == (None, "1 sign-ins forgotten")
