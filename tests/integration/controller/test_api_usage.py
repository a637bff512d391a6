"""Who asked the API how much: counted without a write per request, added up by several processes, forgotten in time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, event, select

from controller.bootstrap import Controller
from controller.core.api_usage.models import ApiUsage, ApiUsageAddress
from controller.core.api_usage.recorder import UsageRecorder, UsageRetention, Use
from controller.core.auth.identities import Identity
from controller.core.auth.models import ApiToken, User
from controller.core.auth.users import create_user
from controller.core.context import Actor, Role
from controller.db.engine import Database
from tests.integration.conftest import ADMIN, make_controller

API = "/api/v1"
NOON = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ROUTE = "/api/v1/auth/me"


def stopped_at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


async def make_token(client: httpx.AsyncClient, name: str = "deploy", **more: Any) -> dict[str, str]:
    answer = (await client.post(f"{API}/tokens", json={"name": name, **more})).json()
    return {"id": answer["token"]["id"], "authorization": f"Bearer {answer['secret']}"}


async def ask(client: httpx.AsyncClient, token: dict[str, str], path: str) -> httpx.Response:
    return await client.get(f"{API}{path}", headers={"authorization": token["authorization"]})


@pytest.fixture
async def ada(database: Database) -> Identity:
    """Somebody with a token."""
    async with database.write() as session:
        user = await create_user(session, "ada", "x", role=Role.ROOT, must_change_password=False)
    return make_identity(user.id)


def make_identity(user_id: str, token_id: str = "token-1") -> Identity:
    actor = Actor(kind="token", id=token_id, name="t", role=Role.ROOT)
    return Identity(
        actor=actor,
        user_id=user_id,
        username="ada",
        credential_id=token_id,
        must_change_password=False,
        expires_at=None,
    )


async def rows_of(database: Database, kind: str, period: str) -> list[ApiUsage]:
    statement = select(ApiUsage).where(ApiUsage.kind == kind, ApiUsage.period == period).order_by(ApiUsage.starts_at)
    async with database.read() as session:
        return list(await session.scalars(statement))


async def test_token_usage_when_shown_counts_requests_errors_refusals_and_addresses(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    token = await make_token(client)
    for path in ("/auth/me", "/auth/me", "/accounts/nonsense"):
        await ask(client, token, path)
    await client.patch(f"{API}/rate-limits", json={"token": {"requests": 1, "seconds": 1}})
    statuses = [(await ask(client, token, "/auth/me")).status_code for _ in range(20)]
    await client.patch(f"{API}/rate-limits", json={"token": None})
    await controller.parts.usage.write()

    page = (await client.get(f"{API}/tokens/{token['id']}/usage")).json()

    item = page["items"][0]
    sums = [sum(hour[name] for hour in page["items"]) for name in ("requests", "client_errors", "server_errors")]
    assert sums == [23, 1, 0]
    assert sum(hour["limited"] for hour in page["items"]) == statuses.count(429) > 0
    assert 0 < item["p50_ms"] <= item["p95_ms"] <= 10_000
    assert (page["addresses"][0]["address"], page["addresses"][0]["requests"]) == ("127.0.0.1", 23)
    assert datetime.fromisoformat(item["starts_at"]).minute == 0
    days = (await client.get(f"{API}/tokens/{token['id']}/usage", params={"period": "day"})).json()["items"]
    assert sum(day["requests"] for day in days) == 23


async def test_token_usage_of_somebody_else_is_not_there(client: httpx.AsyncClient, controller: Controller) -> None:
    async with controller.database.write() as session:
        other = await create_user(session, "other", "x", role=Role.ROOT, must_change_password=False)
        row = ApiToken(user_id=other.id, name="theirs", secret_hash="0" * 64, scopes=["*"])
        session.add(row)
    token = await make_token(client, scopes=["sites:write"])

    answers = [await client.get(f"{API}/tokens/{token_id}/usage") for token_id in (row.id, "nonsense")]
    without = [await ask(client, token, path) for path in (f"/tokens/{token['id']}/usage", "/api-usage")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert [answer.status_code for answer in without] == [403, 403]


async def test_token_usage_goes_on_page_by_page(client: httpx.AsyncClient, controller: Controller) -> None:
    token = await make_token(client)
    async with controller.database.read() as session:
        user_id = (await session.scalars(select(User.id).where(User.username == ADMIN))).one()
    for hours in range(5):
        recorder = UsageRecorder(controller.database, clock=stopped_at(NOON + timedelta(hours=hours)))
        recorder.note(make_identity(user_id, token["id"]), Use("GET", ROUTE, 200, 0.001, "203.0.113.9"))
        await recorder.write()
    starts, cursor = [], None
    while True:
        query: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await client.get(f"{API}/tokens/{token['id']}/usage", params=query)).json()
        starts += [datetime.fromisoformat(item["starts_at"]).hour for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert starts == [16, 15, 14, 13, 12]


async def test_top_of_tokens_users_and_routes_is_by_requests_and_paged(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    tokens = [await make_token(client, name) for name in ("busy", "calm", "idle")]
    for token, count in zip(tokens, (5, 3, 3), strict=True):
        for _ in range(count):
            await ask(client, token, "/auth/me")
    await controller.parts.usage.write()

    by_token = (await client.get(f"{API}/api-usage")).json()["items"]
    by_user = (await client.get(f"{API}/api-usage", params={"by": "user", "days": 1})).json()["items"]
    by_route = (await client.get(f"{API}/api-usage", params={"by": "route"})).json()["items"]
    first = (await client.get(f"{API}/api-usage", params={"limit": 2})).json()
    second = (await client.get(f"{API}/api-usage", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert (by_token[0]["name"], by_token[0]["username"]) == ("busy", ADMIN)
    assert [row["requests"] for row in by_token] == [5, 3, 3]
    assert (by_user[0]["name"], by_user[0]["requests"]) == (ADMIN, 14)  # three more made the tokens
    assert (by_route[0]["subject"], by_route[0]["requests"]) == (f"GET {ROUTE}", 11)
    assert [row["subject"] for row in (*first["items"], *second["items"])] == [row["subject"] for row in by_token]
    assert second["next_cursor"] is None


async def test_top_when_asked_wrongly_names_the_field(client: httpx.AsyncClient) -> None:
    wrong: dict[str, Any] = {"days": 0, "limit": 0, "cursor": "bm9uZQ", "by": "planet"}

    answers = [await client.get(f"{API}/api-usage", params={field: value}) for field, value in wrong.items()]

    assert [(answer.status_code, answer.json()["errors"][0]["field"]) for answer in answers] == [
        (400, field) for field in wrong
    ]


async def test_requests_when_counted_write_nothing_by_themselves(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await client.get(f"{API}/auth/me")
    statements: list[str] = []
    event.listen(
        controller.database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _u, statement, *_: statements.append(statement),
    )

    for _ in range(20):
        await client.get(f"{API}/auth/me")

    assert [statement for statement in statements if "api_usage" in statement] == []


async def test_processes_add_up_even_when_they_write_at_once(database: Database, ada: Identity) -> None:
    processes = [UsageRecorder(database, clock=lambda: NOON) for _ in range(4)]
    for number, process in enumerate(processes):
        for _ in range(10 + number):
            process.note(ada, Use("GET", ROUTE, 200, 0.004, "203.0.113.9"))

    await asyncio.gather(*(process.write() for process in processes))

    for kind in ("token", "user", "route"):
        for period in ("hour", "day"):
            rows = await rows_of(database, kind, period)
            assert [(row.requests, row.took_5) for row in rows] == [(46, 46)]
    async with database.read() as session:
        found = (await session.execute(select(ApiUsageAddress.kind, ApiUsageAddress.requests))).all()
    assert sorted(found) == [("token", 46), ("user", 46)]


async def test_counts_when_the_user_was_deleted_keep_the_route_alone(database: Database, ada: Identity) -> None:
    recorder = UsageRecorder(database, clock=lambda: NOON)
    recorder.note(ada, Use("GET", ROUTE, 200, 0.001, "203.0.113.9"))
    recorder.note(None, Use("GET", "(no route)", 404, 0.001, "203.0.113.9"))
    async with database.write() as session:
        await session.execute(delete(User).where(User.id == ada.user_id))

    await recorder.write()

    assert {row.subject for row in await rows_of(database, "route", "hour")} == {f"GET {ROUTE}", "GET (no route)"}
    assert await rows_of(database, "user", "hour") == []


async def test_counts_when_the_database_is_away_are_written_later(tmp_path: Path, sqlite_template: Path) -> None:
    folder = tmp_path / "not mounted yet"
    database = Database(f"sqlite+aiosqlite:///{folder / 'controller.db'}")
    recorder = UsageRecorder(database, clock=lambda: NOON)
    recorder.note(None, Use("GET", ROUTE, 200, 0.001, "203.0.113.9"))
    await recorder.write()
    recorder.note(None, Use("GET", ROUTE, 200, 0.001, "203.0.113.9"))
    folder.mkdir()
    shutil.copyfile(sqlite_template, folder / "controller.db")

    await recorder.write()

    assert [row.requests for row in await rows_of(database, "route", "hour")] == [2]
    await database.close()


async def test_usage_when_old_is_forgotten_hours_before_days(database: Database, ada: Identity) -> None:
    for days in (401, 91, 89, 0):
        recorder = UsageRecorder(database, clock=stopped_at(NOON - timedelta(days=days)))
        recorder.note(ada, Use("GET", ROUTE, 200, 0.001, f"203.0.113.{days % 250}"))
        await recorder.write()

    said = await UsageRetention(database, clock=lambda: NOON).run()

    assert len(await rows_of(database, "token", "hour")) == 2
    assert len(await rows_of(database, "token", "day")) == 3
    async with database.read() as session:
        assert len((await session.scalars(select(ApiUsageAddress.id))).all()) == 4
    assert said == "13 figures of the API's use forgotten"


async def test_process_when_it_ends_writes_what_it_counted(sqlite_url: str, tmp_path: Path) -> None:
    controller = make_controller(sqlite_url, tmp_path)
    async with controller.parts.usage.running():
        controller.parts.usage.note(None, Use("GET", ROUTE, 200, 0.001, "203.0.113.9"))

    assert len(await rows_of(controller.database, "route", "hour")) == 1
    await controller.database.close()
