"""Sessions, step-up, sign-in history, networks, passwords: what protects somebody who signs in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select, update

from controller.api.guards import STEP_UP_ACTS
from controller.api.openapi import build_document
from controller.bootstrap import Controller
from controller.core.auth.attempts import Device
from controller.core.auth.models import ApiToken, Session, SignInAttempt, User
from controller.core.auth.passwords import Passwords
from controller.core.auth.service import Authenticator
from controller.core.auth.users import create_user
from controller.core.context import Role
from controller.core.events.publisher import Topic
from shared.errors import UnauthenticatedError
from tests.integration.conftest import ADMIN, FAST_HASHER, PASSWORD

API = "/api/v1"
HOME, AWAY = "203.0.113.9", "198.51.100.7"


@asynccontextmanager
async def visitor(controller: Controller, address: str, agent: str = "browser") -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who comes from this address."""
    transport = httpx.ASGITransport(app=controller.app.asgi, client=(address, 5000))
    headers = {"user-agent": agent}
    base = "https://controller.test:8360"
    async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as http:
        yield http


async def sign_in(http: httpx.AsyncClient, password: str = PASSWORD) -> httpx.Response:
    answer = await http.post(f"{API}/auth/login", json={"username": ADMIN, "password": password})
    http.cookies.clear()
    if answer.status_code == 200:
        http.headers["authorization"] = f"Bearer {answer.json()['token']}"
    return answer


async def update_rows(controller: Controller, model: Any, **values: Any) -> None:
    async with controller.database.write() as session:
        await session.execute(update(model).values(**values))


# --- sessions -----------------------------------------------------------------------------------------------------


async def test_sessions_when_listed_say_which_device_from_where_and_which_is_this_one(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    async with visitor(controller, AWAY, "phone") as phone:
        await sign_in(phone)
        items = (await phone.get(f"{API}/sessions")).json()["items"]

    assert [(item["user_agent"], item["address"], item["is_current"]) for item in items] == [
        ("phone", AWAY, True),
        (items[1]["user_agent"], "127.0.0.1", False),
    ]
    assert "python-httpx" in items[1]["user_agent"]


async def test_session_when_revoked_is_over_at_once(client: httpx.AsyncClient, controller: Controller) -> None:
    async with visitor(controller, AWAY) as other:
        await sign_in(other)
        items = (await client.get(f"{API}/sessions")).json()["items"]
        session_id = next(item["id"] for item in items if not item["is_current"])

        assert (await client.delete(f"{API}/sessions/{session_id}")).status_code == 204

        assert (await other.get(f"{API}/auth/me")).status_code == 401
    assert (await client.delete(f"{API}/sessions/{session_id}")).status_code == 404
    assert (await client.get(f"{API}/auth/me")).status_code == 200


async def test_other_sessions_when_revoked_leave_only_this_one(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    async with visitor(controller, AWAY) as other:
        await sign_in(other)

        answer = await client.post(f"{API}/sessions/revoke-others")

        assert (answer.status_code, answer.json()) == (200, {"ended": 1})
        assert (await other.get(f"{API}/auth/me")).status_code == 401
    assert len((await client.get(f"{API}/sessions")).json()["items"]) == 1


async def test_session_beyond_the_maximum_ends_the_oldest(client: httpx.AsyncClient, controller: Controller) -> None:
    await client.patch(f"{API}/policies", json={"sessions_max": 2})
    async with visitor(controller, AWAY) as second, visitor(controller, AWAY) as third:
        await sign_in(second)
        await sign_in(third)

        statuses = [(await http.get(f"{API}/auth/me")).status_code for http in (client, second, third)]

    assert statuses == [401, 200, 200]


async def test_sessions_when_many_sign_in_at_once_stay_within_the_maximum(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await client.patch(f"{API}/policies", json={"sessions_max": 3})

    async with visitor(controller, AWAY) as other:
        body = {"username": ADMIN, "password": PASSWORD}
        answers = await asyncio.gather(*(other.post(f"{API}/auth/login", json=body) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    async with controller.database.read() as session:
        assert len((await session.scalars(select(Session.id))).all()) == 3


async def test_session_when_used_after_a_while_notes_when_and_where(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await update_rows(controller, Session, last_used_at=datetime.now(UTC) - timedelta(hours=1))
    async with visitor(controller, AWAY) as moved:
        moved.headers["authorization"] = client.headers["authorization"]
        await moved.get(f"{API}/auth/me")

    item = (await client.get(f"{API}/sessions")).json()["items"][0]
    assert (item["address"], item["last_address"]) == ("127.0.0.1", AWAY)
    assert datetime.now(UTC) - datetime.fromisoformat(item["last_used_at"]) < timedelta(minutes=5)


# --- step-up ------------------------------------------------------------------------------------------------------


async def test_dangerous_act_when_the_proof_is_old_asks_for_another_and_renews_the_secret(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await update_rows(controller, Session, verified_at=datetime.now(UTC) - timedelta(minutes=16))
    old = client.headers["authorization"]
    refused = await client.post(f"{API}/tokens", json={"name": "robot"})
    wrong = await client.post(f"{API}/auth/step-up", json={"password": "not mine at all"})

    stepped = await client.post(f"{API}/auth/step-up", json={"password": PASSWORD})

    client.cookies.clear()
    assert (refused.status_code, refused.json()["code"]) == (403, "step_up_required")
    assert (wrong.status_code, stepped.status_code) == (400, 200)
    assert (await client.get(f"{API}/auth/me", headers={"authorization": old})).status_code == 401
    client.headers["authorization"] = f"Bearer {stepped.json()['token']}"
    assert (await client.post(f"{API}/tokens", json={"name": "robot"})).status_code == 201


async def test_ordinary_act_when_the_proof_is_old_is_done(client: httpx.AsyncClient, controller: Controller) -> None:
    await update_rows(controller, Session, verified_at=datetime.now(UTC) - timedelta(days=1))

    answer = await client.post(f"{API}/packages", json={"name": "Small"})

    assert answer.status_code == 201


async def test_dangerous_act_of_a_token_asks_for_no_proof(client: httpx.AsyncClient) -> None:
    secret = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
    client.headers["authorization"] = f"Bearer {secret}"

    assert (await client.post(f"{API}/tokens", json={"name": "more"})).status_code == 201


async def test_dangerous_acts_when_listed_are_all_routes(controller: Controller) -> None:
    paths = build_document(controller.app.litestar)["paths"]
    known = {operation.get("operationId") for item in paths.values() for operation in item.values()}

    assert known >= STEP_UP_ACTS


# --- the history of sign-ins --------------------------------------------------------------------------------------


async def test_history_says_who_tried_and_why_it_failed(client: httpx.AsyncClient, controller: Controller) -> None:
    async with visitor(controller, AWAY, "evil\x7fbrowser") as stranger:
        await sign_in(stranger, "a guess of somebody")
        await stranger.post(f"{API}/auth/login", json={"username": "nobody", "password": "a guess"})

    own = (await client.get(f"{API}/sign-ins")).json()["items"]
    everybody = (await client.get(f"{API}/security/sign-ins")).json()["items"]

    assert [(row["reason"], row["address"]) for row in own] == [("wrong_password", AWAY), ("signed_in", "127.0.0.1")]
    assert own[0]["user_agent"] == "evil?browser"
    assert (everybody[0]["username"], everybody[0]["reason"]) == ("nobody", "unknown_user")
    named = await client.get(f"{API}/security/sign-ins", params={"username": "nobody"})
    assert [row["reason"] for row in named.json()["items"]] == ["unknown_user"]


async def test_sign_in_when_network_and_device_are_new_is_told_to_listeners(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    with controller.publisher.subscribe() as listener:
        listener.topics = frozenset({Topic.SECURITY.value})
        async with visitor(controller, AWAY, "never seen") as stranger:
            await sign_in(stranger)
            notice = await listener.next(5)
            await sign_in(stranger)

    found = (await client.get(f"{API}/security/sign-ins", params={"unusual": True})).json()["items"]
    assert notice is not None
    assert (notice.event, notice.data["signals"]) == (
        "user.unusual_sign_in",
        ["new_network", "new_device", "impossible_pace"],
    )
    assert [row["signals"] for row in found] == [["new_network", "new_device", "impossible_pace"]]


# --- guessing -----------------------------------------------------------------------------------------------------


ENOUGH = 60
"""Wrong passwords, in less time than a bucket needs to be filled again so often."""


async def guess(controller: Controller, addresses: list[str], username: str = ADMIN) -> list[int]:
    """Statuses of one wrong password from each address."""
    statuses = []
    for address in addresses:
        async with visitor(controller, address) as http:
            body = {"username": username, "password": "a guess of somebody"}
            statuses.append((await http.post(f"{API}/auth/login", json=body)).status_code)
    return statuses


async def test_guesses_of_one_user_from_many_addresses_are_slowed_and_the_owner_is_not(controller: Controller) -> None:
    async with visitor(controller, HOME) as owner:
        assert (await sign_in(owner)).status_code == 200

        statuses = await guess(controller, [f"198.51.{number}.7" for number in range(ENOUGH)])

        assert (statuses[0], 429 in statuses) == (401, True)
        assert (await sign_in(owner)).status_code == 200


async def test_guesses_of_nobody_are_slowed_as_those_of_somebody(controller: Controller) -> None:
    statuses = await guess(controller, [f"198.51.{number}.7" for number in range(ENOUGH)], "nobody")

    assert (statuses[0], 429 in statuses) == (401, True)


async def test_guesses_of_many_users_from_one_address_are_slowed(controller: Controller) -> None:
    async with visitor(controller, AWAY) as http:
        bodies = [{"username": f"user{number}", "password": "spring is here"} for number in range(ENOUGH)]
        statuses = [(await http.post(f"{API}/auth/login", json=body)).status_code for body in bodies]

    assert (statuses[0], 429 in statuses) == (401, True)


class WatchedPasswords(Passwords):
    """Remembers whether each verification was against somebody's hash or the decoy."""

    def __init__(self) -> None:
        super().__init__(FAST_HASHER)
        self.is_decoy: list[bool] = []

    async def verify(self, stored: str | None, password: str) -> bool:
        self.is_decoy.append(stored is None)
        return await super().verify(stored, password)


async def test_unknown_user_costs_a_hash_and_a_row_as_a_known_one_does(controller: Controller) -> None:
    passwords = WatchedPasswords()
    authenticator = Authenticator(controller.database, passwords)

    for name in ("nobody", ADMIN):
        with pytest.raises(UnauthenticatedError):
            await authenticator.sign_in(name, "a guess of somebody", Device(AWAY, "browser"))

    async with controller.database.read() as session:
        reasons = list(await session.scalars(select(SignInAttempt.reason).order_by(SignInAttempt.id)))
    assert passwords.is_decoy == [True, False]
    assert reasons == ["unknown_user", "wrong_password"]


# --- the hot path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session", "token"])
async def test_request_that_is_signed_asks_the_database_nothing_but_who_it_is(
    client: httpx.AsyncClient, controller: Controller, kind: str
) -> None:
    """That one question runs on the driver itself; a statement of SQLAlchemy would be a second one."""
    if kind == "token":
        secret = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
        client.headers["authorization"] = f"Bearer {secret}"
    await client.get(f"{API}/auth/me")
    statements: list[str] = []

    @event.listens_for(controller.database.engine.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    answer = await client.get(f"{API}/auth/me")

    assert (answer.status_code, statements) == (200, [])


# --- networks -----------------------------------------------------------------------------------------------------


async def test_allow_list_lets_only_its_networks_sign_in_and_leaves_nodes_alone(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await client.patch(f"{API}/security", json={"allowed_networks": ["203.0.113.0/24"]})

    async with visitor(controller, AWAY) as stranger, visitor(controller, HOME) as owner:
        refused = await sign_in(stranger)
        stranger.headers["authorization"] = client.headers["authorization"]
        carried = await stranger.get(f"{API}/auth/me")
        del stranger.headers["authorization"]
        authority = await stranger.get("/ca.pem")

        assert [(answer.status_code, answer.json()["code"]) for answer in (refused, carried)] == [
            (403, "network_refused")
        ] * 2
        assert authority.status_code == 200
        assert (await sign_in(owner)).status_code == 200


async def test_deny_list_answers_nothing_and_beats_the_allow_list(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    lists = {"allowed_networks": ["198.51.100.0/24"], "denied_networks": [f"{AWAY}/32"]}
    assert (await client.patch(f"{API}/security", json=lists)).status_code == 200

    async with visitor(controller, AWAY) as stranger, visitor(controller, f"::ffff:{AWAY}") as disguised:
        answers = [await http.get(path) for http in (stranger, disguised) for path in ("/ca.pem", f"{API}/auth/me")]
        probe = await stranger.get("/healthz")

    assert {answer.status_code for answer in answers} == {403}
    assert probe.status_code == 200


async def test_lists_that_would_lock_out_whoever_sets_them_are_refused(controller: Controller) -> None:
    async with visitor(controller, HOME) as owner:
        await sign_in(owner)

        answers = [
            await owner.patch(f"{API}/security", json={"allowed_networks": ["198.51.100.0/24"]}),
            await owner.patch(f"{API}/security", json={"denied_networks": ["203.0.0.0/8"]}),
            await owner.patch(f"{API}/security", json={"denied_networks": ["203.0.113.0/24"]}),
        ]

        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
            (409, "would_lock_out"),
            (409, "would_lock_out"),
            (409, "would_lock_out"),
        ]
        assert (await owner.get(f"{API}/security")).json()["denied_networks"] == []


async def test_networks_of_a_user_hold_for_sessions_and_tokens(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    path = f"{API}/security/users/{ADMIN}/networks"
    token = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
    planned = await client.put(f"{path}?dry_run=true", json={"allow": ["127.0.0.1", "203.0.113.0/24"]})
    assert (planned.status_code, (await client.get(path)).json()["allow"]) == (200, [])

    assert (await client.put(path, json={"allow": ["127.0.0.1", "203.0.113.0/24"]})).status_code == 200

    async with visitor(controller, AWAY) as stranger, visitor(controller, HOME) as owner:
        refused = await sign_in(stranger)
        guessed = await sign_in(stranger, "a guess of somebody")
        carried = await stranger.get(f"{API}/auth/me", headers={"authorization": f"Bearer {token}"})
        assert [answer.json()["code"] for answer in (refused, guessed, carried)] == [
            "network_refused", "wrong_credentials", "network_refused",
        ]  # fmt: skip
        assert (await sign_in(owner)).status_code == 200


async def test_networks_of_oneself_that_would_lock_out_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"{API}/security/users/{ADMIN}/networks", json={"allow": ["203.0.113.0/24"]})

    assert (answer.status_code, answer.json()["code"]) == (409, "would_lock_out")


async def test_root_when_another_administrator_would_weaken_or_lock_it_out_is_left_alone(
    controller: Controller,
) -> None:
    async with controller.database.write() as session:
        hashed = FAST_HASHER.hash(PASSWORD)
        await create_user(session, "grace", hashed, role=Role.ADMIN, must_change_password=False)
    async with visitor(controller, HOME) as grace:
        body = {"username": "grace", "password": PASSWORD}
        token = (await grace.post(f"{API}/auth/login", json=body)).json()["token"]
        grace.cookies.clear()
        grace.headers["authorization"] = f"Bearer {token}"

        answers = [
            await grace.put(f"{API}/security/users/{ADMIN}/networks", json={"allow": ["203.0.113.0/24"]}),
            await grace.delete(f"{API}/security/users/{ADMIN}/second-factor"),
        ]

    assert [answer.status_code for answer in answers] == [403, 403]


async def test_token_when_used_elsewhere_than_allowed_is_refused_and_its_use_is_counted(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    body = {"name": "robot", "allowed_networks": ["203.0.113.0/24"]}
    headers = {"authorization": f"Bearer {(await client.post(f'{API}/tokens', json=body)).json()['secret']}"}
    async with visitor(controller, AWAY) as stranger, visitor(controller, HOME) as robot:
        refused = await stranger.get(f"{API}/auth/me", headers=headers)
        used = [(await robot.get(f"{API}/auth/me", headers=headers)).status_code for _ in range(3)]

    item = (await client.get(f"{API}/tokens")).json()["items"][0]
    assert (refused.status_code, refused.json()["code"], used) == (403, "network_refused", [200] * 3)
    assert (item["use_count"], item["last_address"], item["allowed_networks"]) == (3, HOME, ["203.0.113.0/24"])


async def test_token_when_its_networks_are_malformed_is_not_made(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    answer = await client.post(f"{API}/tokens", json={"name": "robot", "allowed_networks": ["10.0.0.1/8"]})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "allowed_networks")
    async with controller.database.read() as session:
        assert (await session.scalars(select(ApiToken))).all() == []


# --- one-time passwords -------------------------------------------------------------------------------------------


async def test_person_with_a_one_time_password_can_do_nothing_but_change_it(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    token = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
    await update_rows(controller, User, must_change_password=True)

    refused = [
        await client.get(f"{API}/sessions"),
        await client.get(f"{API}/accounts"),
        await client.post(f"{API}/tokens", json={"name": "way out"}),
        await client.post(f"{API}/second-factor", json={"password": PASSWORD}),
        await client.post(f"{API}/auth/step-up", json={"password": PASSWORD}),
    ]
    me = (await client.get(f"{API}/auth/me")).json()
    body = {"current_password": PASSWORD, "new_password": "another long password"}
    changed = await client.post(f"{API}/auth/password", json=body)
    await sign_in(client, "another long password")

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "password_change_required")}
    assert "change-password" in refused[0].json()["hint"]
    assert (me["must_change_password"], changed.status_code) == (True, 204)
    assert (await client.get(f"{API}/sessions")).status_code == 200
    robot = await client.get(f"{API}/auth/me", headers={"authorization": f"Bearer {token}"})
    assert robot.status_code == 200


# --- the policy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"second_factor_roles": ["emperor"]}, "second_factor_roles"),
        ({"allowed_networks": ["everywhere"]}, "allowed_networks"),
        ({"denied_networks": ["10.0.0.0/99"]}, "denied_networks"),
    ],
)
async def test_policy_when_a_field_is_wrong_names_it_and_stays(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    before = (await client.get(f"{API}/security")).json()

    answer = await client.patch(f"{API}/security", json=change)

    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, [field])
    assert (await client.get(f"{API}/security")).json() == before


async def test_policy_when_a_dry_run_changes_it_stays(client: httpx.AsyncClient) -> None:
    answer = await client.patch(f"{API}/security?dry_run=true", json={"second_factor_roles": ["client"]})

    assert answer.json()["changes"][0]["after"]["second_factor_roles"] == ["client"]
    assert (await client.get(f"{API}/security")).json()["second_factor_roles"] == []


# --- passwords ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    ["password123456", "qwertyuiop12", "letmeinletmein", "aaaaaaaaaaaa", "admin-admin-admin", "Passw0rd1234!"],
)
async def test_password_that_is_known_or_easily_guessed_is_refused(client: httpx.AsyncClient, password: str) -> None:
    answer = await client.post(f"{API}/auth/password", json={"current_password": PASSWORD, "new_password": password})

    assert (answer.status_code, answer.json()["code"]) == (400, "password_too_weak")
    assert answer.json()["errors"][0]["field"] == "new_password"


async def test_password_that_was_used_before_is_refused(client: httpx.AsyncClient) -> None:
    other = "another long password"
    await client.post(f"{API}/auth/password", json={"current_password": PASSWORD, "new_password": other})
    await sign_in(client, other)

    back = await client.post(f"{API}/auth/password", json={"current_password": other, "new_password": PASSWORD})

    assert (back.status_code, back.json()["code"]) == (400, "password_reused")


async def test_password_shorter_than_the_policy_is_refused(client: httpx.AsyncClient) -> None:
    await client.patch(f"{API}/policies", json={"password_length_min": 30})

    answer = await client.post(
        f"{API}/auth/password", json={"current_password": PASSWORD, "new_password": "another long password"}
    )

    assert answer.json()["detail"] == "a password has at least 30 characters"
