"""Signing in, sessions, API tokens, and what other sites can make a browser do."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from controller.api.edge import SESSION_COOKIE
from controller.bootstrap import Controller
from controller.core.audit.chain import verify_chain
from controller.core.auth.models import ApiToken, Session
from tests.integration.conftest import ADMIN, PASSWORD

ORIGIN = {"origin": "https://controller.test:8360"}


async def sign_in(http: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await http.post("/api/v1/auth/login", json={"username": ADMIN, "password": PASSWORD}, headers=headers)


async def test_login_when_password_is_right_sets_a_safe_cookie(anonymous_client: httpx.AsyncClient) -> None:
    answer = await sign_in(anonymous_client)

    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=wcs_")
    assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()


async def test_login_when_a_cookie_was_planted_uses_a_new_secret(anonymous_client: httpx.AsyncClient) -> None:
    planted = "wcs_attacker-chosen"

    answer = await sign_in(anonymous_client, cookie=f"{SESSION_COOKIE}={planted}")

    assert answer.status_code == 200
    assert answer.json()["token"] != planted


async def test_login_stores_only_the_hash_of_the_secret(
    anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    secret = (await sign_in(anonymous_client)).json()["token"]

    async with controller.database.read() as session:
        rows = list(await session.scalars(select(Session)))
    assert [row.secret_hash for row in rows] == [hashlib.sha256(secret.encode()).hexdigest()]


@pytest.mark.parametrize(
    ("username", "password"), [(ADMIN, "not this one, surely"), ("nobody", PASSWORD), (ADMIN, "x" * 256)]
)
async def test_login_when_anything_is_wrong_answers_the_same(
    anonymous_client: httpx.AsyncClient, username: str, password: str
) -> None:
    answer = await anonymous_client.post("/api/v1/auth/login", json={"username": username, "password": password})

    assert answer.status_code == 401
    assert answer.json()["code"] == "wrong_credentials"
    assert answer.json()["detail"] == "user name or password is wrong"
    assert "set-cookie" not in answer.headers


async def test_login_when_guessed_often_is_slowed_down(anonymous_client: httpx.AsyncClient) -> None:
    wrong = {"username": ADMIN, "password": "guess"}

    answers = [await anonymous_client.post("/api/v1/auth/login", json=wrong) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_me_with_the_cookie_shows_the_administrator(anonymous_client: httpx.AsyncClient) -> None:
    await sign_in(anonymous_client)

    answer = await anonymous_client.get("/api/v1/auth/me")

    assert answer.status_code == 200
    assert answer.json()["username"] == ADMIN
    assert answer.json()["kind"] == "user"


async def test_me_when_anonymous_answers_401_with_a_challenge(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.get("/api/v1/auth/me")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_me_when_the_session_has_ended_answers_401(client: httpx.AsyncClient, controller: Controller) -> None:
    async with controller.database.write() as session:
        for row in await session.scalars(select(Session)):
            row.expires_at = datetime.now(UTC) - timedelta(seconds=1)

    assert (await client.get("/api/v1/auth/me")).status_code == 401


async def test_logout_ends_the_session(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/auth/logout")).status_code == 204

    assert (await client.get("/api/v1/auth/me")).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://controller.test:8360"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ],
)
async def test_change_with_the_cookie_from_another_site_is_refused(
    anonymous_client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    await sign_in(anonymous_client)

    answer = await anonymous_client.post("/api/v1/tokens", json={"name": "stolen"}, headers=headers)

    assert answer.status_code == 403
    assert answer.json()["code"] == "cross_site_request"


async def test_change_with_the_cookie_from_our_own_page_passes(anonymous_client: httpx.AsyncClient) -> None:
    await sign_in(anonymous_client)

    answer = await anonymous_client.post("/api/v1/tokens", json={"name": "mine"}, headers=ORIGIN)

    assert answer.status_code == 201


async def test_login_from_another_site_is_refused(anonymous_client: httpx.AsyncClient) -> None:
    assert (await sign_in(anonymous_client, origin="https://evil.example")).status_code == 403


async def test_change_password_ends_every_session(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    await sign_in(anonymous_client)
    change = {"current_password": PASSWORD, "new_password": "another long password"}

    assert (await client.post("/api/v1/auth/password", json=change)).status_code == 204

    assert (await client.get("/api/v1/auth/me")).status_code == 401
    assert (await anonymous_client.get("/api/v1/auth/me")).status_code == 401
    assert (await sign_in(anonymous_client)).status_code == 401


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"current_password": "wrong", "new_password": "another long password"}, "current_password"),
        ({"current_password": PASSWORD, "new_password": PASSWORD}, "new_password"),
        ({"current_password": PASSWORD, "new_password": "short"}, "new_password"),
    ],
)
async def test_change_password_when_a_field_is_wrong_names_it(
    client: httpx.AsyncClient, change: dict[str, str], field: str
) -> None:
    answer = await client.post("/api/v1/auth/password", json=change)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def create_token(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/api/v1/tokens", json={"name": "robot", **fields})


async def test_token_signs_requests_until_it_is_revoked(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    made = (await create_token(client)).json()
    headers = {"authorization": f"Bearer {made['secret']}"}
    me = await anonymous_client.get("/api/v1/auth/me", headers=headers)

    revoked = await client.delete(f"/api/v1/tokens/{made['token']['id']}")

    assert me.json()["kind"] == "token"
    assert revoked.status_code == 204
    assert (await anonymous_client.get("/api/v1/auth/me", headers=headers)).status_code == 401
    assert (await client.get("/api/v1/tokens")).json()["items"] == []


async def test_token_never_rests_in_clear_and_its_use_is_noted(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    secret = (await create_token(client)).json()["secret"]

    await anonymous_client.get("/api/v1/auth/me", headers={"authorization": f"Bearer {secret}"})

    async with controller.database.read() as session:
        row = (await session.scalars(select(ApiToken))).one()
    assert row.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert row.last_used_at is not None


async def test_token_when_it_has_expired_is_nobody(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    secret = (await create_token(client, expires_at=soon)).json()["secret"]
    async with controller.database.write() as session:
        (await session.scalars(select(ApiToken))).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)

    answer = await anonymous_client.get("/api/v1/auth/me", headers={"authorization": f"Bearer {secret}"})

    assert answer.status_code == 401


async def test_token_that_may_only_read_cannot_write(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret = (await create_token(client, scopes=["*:read"])).json()["secret"]
    headers = {"authorization": f"Bearer {secret}"}

    read = await anonymous_client.get("/api/v1/tokens", headers=headers)
    write = await anonymous_client.post("/api/v1/tokens", json={"name": "more"}, headers=headers)

    assert read.status_code == 200
    assert write.status_code == 403


async def test_token_cannot_give_a_scope_it_has_not(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret = (await create_token(client, scopes=["tokens:write"])).json()["secret"]
    wish = {"name": "more", "scopes": ["*"]}

    answer = await anonymous_client.post("/api/v1/tokens", json=wish, headers={"authorization": f"Bearer {secret}"})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": ["everything"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "*"}, "scopes"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2036-01-01T00:00:00"}, "expires_at"),
        ({"name": "line\nbreak"}, "name"),
        ({"color": "red"}, "color"),
    ],
)
async def test_create_token_when_a_field_is_wrong_names_it(
    client: httpx.AsyncClient, fields: dict[str, object], field: str
) -> None:
    answer = await create_token(client, **fields)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_sign_in_and_token_are_audited_in_one_intact_chain(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await create_token(client)

    actions = [entry["action"] for entry in (await client.get("/api/v1/audit")).json()["items"]]
    async with controller.database.read() as session:
        report = await verify_chain(session)

    assert {"user.sign_in", "token.create"} <= set(actions)
    assert report.first_bad_number is None
