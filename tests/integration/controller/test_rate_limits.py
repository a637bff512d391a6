"""How often somebody may ask: on every answer, before any work, across processes, and never because Redis is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from controller.bootstrap import Controller
from controller.core.audit.models import AuditEntry
from controller.core.clients.models import Client
from controller.core.rate_limits.counters import Bucket, RedisCounters
from controller.core.rate_limits.models import RateLimitRow
from tests.integration.conftest import ADMIN, PASSWORD, make_controller
from tests.integration.redis_server import RedisServer, find_redis, start_redis

API = "/api/v1"
DEFAULT = {"requests": 30_000, "seconds": 60}
SLOW = {"requests": 60, "seconds": 60}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    if find_redis() is None:
        pytest.skip("no Redis server is installed")
    with start_redis() as server:
        yield server


@asynccontextmanager
async def visitor(controller: Controller, address: str, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=controller.app.asgi, client=(address, 5000))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    base = "https://controller.test:8360"
    async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as http:
        yield http


def secret_of(client: httpx.AsyncClient) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


async def set_rates(client: httpx.AsyncClient, **rates: object) -> None:
    answer = await client.patch(f"{API}/rate-limits", json=rates)
    assert answer.status_code == 200, answer.text


async def ask_until_refused(http: httpx.AsyncClient, path: str = "/auth/me", most: int = 90) -> httpx.Response:
    for _ in range(most):
        answer = await http.get(f"{API}{path}")
        if answer.status_code == 429:
            return answer
    raise AssertionError(f"{most} requests and none was refused")


def left_of(answer: httpx.Response) -> int:
    return int(answer.headers["ratelimit"].partition(";r=")[2].partition(";")[0])


async def test_answer_whatever_it_is_says_the_rates_and_what_is_left(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    signed_in = [await client.get(f"{API}{path}") for path in ("/auth/me", "/accounts/nonsense", "/accounts?limit=0")]
    nobody = await anonymous_client.get(f"{API}/auth/me")
    no_route = await anonymous_client.get("/nowhere")

    assert [answer.status_code for answer in signed_in] == [200, 404, 400]
    assert {answer.headers["ratelimit-policy"] for answer in signed_in} == {'"user";q=30000;w=60'}
    assert all(answer.headers["ratelimit"].startswith('"user";r=299') for answer in signed_in)
    assert (nobody.status_code, nobody.headers["ratelimit-policy"]) == (401, '"anonymous";q=6000;w=60')
    assert no_route.headers["ratelimit"].startswith('"anonymous";r=59')
    assert "ratelimit" not in (await anonymous_client.get("/healthz")).headers


async def test_user_beyond_their_rate_is_told_to_wait_and_others_are_served(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    await set_rates(client, user=SLOW)

    refused = await ask_until_refused(client)

    problem = refused.json()
    assert (problem["code"], problem["status"]) == ("rate_limited", 429)
    assert problem["hint"] == f"Wait {refused.headers['retry-after']} seconds."
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"user";q=60;w=60'
    assert refused.headers["ratelimit"].startswith('"user";r=0;')
    assert (await anonymous_client.get("/ca.pem")).status_code == 200
    body = {"name": "too late", "email": "late@example.com"}
    answers = [await client.post(f"{API}/clients", json=body) for _ in range(3)]
    assert 429 in {answer.status_code for answer in answers}
    async with controller.database.read() as session:
        written = (await session.scalar(select(func.count()).select_from(Client))) or 0
    assert written == sum(answer.status_code == 201 for answer in answers)


async def test_addresses_of_nobody_are_counted_apart_and_ipv6_by_network(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await set_rates(client, anonymous=SLOW)
    async with (
        visitor(controller, "2001:db8::1") as first,
        visitor(controller, "2001:db8::ffff:2") as neighbour,
        visitor(controller, "2001:db8:0:1::1") as other,
    ):
        await ask_until_refused(first)

        assert left_of(await neighbour.get(f"{API}/auth/me")) <= 1
        assert left_of(await other.get(f"{API}/auth/me")) == 59


async def test_token_counts_on_its_own_rate_and_on_its_users(client: httpx.AsyncClient, controller: Controller) -> None:
    made = [(await client.post(f"{API}/tokens", json={"name": name})).json()["secret"] for name in ("one", "two")]
    await set_rates(client, token=SLOW)
    async with visitor(controller, "203.0.113.9", made[0]) as one, visitor(controller, "203.0.113.9", made[1]) as two:
        refused = await ask_until_refused(one)

        assert refused.headers["ratelimit-policy"] == '"token";q=60;w=60, "user";q=30000;w=60'
        assert (await two.get(f"{API}/auth/me")).status_code == 200
        await set_rates(client, token=DEFAULT, user=SLOW)
        await ask_until_refused(two)
        assert left_of(await one.get(f"{API}/auth/me")) <= 1  # the same user


async def test_wrong_secret_counts_as_nobody(client: httpx.AsyncClient, controller: Controller) -> None:
    await set_rates(client, anonymous=SLOW)
    async with visitor(controller, "198.51.100.7", "wcp_nobody-has-this-one") as guesser:
        refused = await ask_until_refused(guesser)

    assert refused.headers["ratelimit-policy"] == '"anonymous";q=60;w=60'


async def test_rates_when_changed_are_shown_audited_and_hold_at_once(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    before = (await client.get(f"{API}/rate-limits")).json()

    answer = await client.patch(f"{API}/rate-limits", json={"user": SLOW, "token": None})

    assert answer.json() == {**before, "user": SLOW, "token": None}
    assert (await client.get(f"{API}/rate-limits")).json() == answer.json()
    assert (await client.get(f"{API}/auth/me")).headers["ratelimit-policy"] == '"user";q=60;w=60'
    async with controller.database.read() as session:
        entry = (await session.scalars(select(AuditEntry).where(AuditEntry.action == "rate_limits.update"))).one()
    assert entry.target == "rate_limits/policy"
    await set_rates(client, user=None)
    assert "ratelimit" not in (await client.get(f"{API}/auth/me")).headers


async def test_rates_when_wrong_are_refused_and_change_nothing(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    wrong = {
        "user.requests": {"user": {"requests": 59, "seconds": 60}},
        "anonymous.seconds": {"anonymous": {"requests": 10, "seconds": 0}},
        "tier_low.requests": {"tier_low": {"requests": -1, "seconds": 1}},
        "everybody": {"everybody": SLOW},
        "user.burst": {"user": {**SLOW, "burst": 3}},
    }

    answers = {field: await client.patch(f"{API}/rate-limits", json=body) for field, body in wrong.items()}
    dry = await client.patch(f"{API}/rate-limits", json={"user": SLOW}, params={"dry_run": True})

    assert {field: answer.status_code for field, answer in answers.items()} == dict.fromkeys(wrong, 400)
    assert [answer.json()["errors"][0]["field"] for answer in answers.values()] == list(wrong)
    assert dry.status_code == 200
    async with controller.database.read() as session:
        assert (await session.scalars(select(RateLimitRow))).all() == []


async def test_rates_when_a_token_may_not_are_neither_shown_nor_changed(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    made = await client.post(f"{API}/tokens", json={"name": "sites", "scopes": ["sites:write"]})
    async with visitor(controller, "203.0.113.9", made.json()["secret"]) as http:
        answers = [await http.get(f"{API}/rate-limits"), await http.patch(f"{API}/rate-limits", json={"user": SLOW})]

    assert [answer.status_code for answer in answers] == [403, 403]


# --- several processes --------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_processes(url: str, folder: Path, redis: RedisServer) -> AsyncIterator[tuple[Controller, Controller]]:
    built = [make_controller(url, folder / name, redis_url=redis.url) for name in ("a", "b")]
    try:
        yield built[0], built[1]
    finally:
        for controller in built:
            await controller.parts.counters.close()
            await controller.database.close()


async def test_processes_with_one_redis_count_together(
    client: httpx.AsyncClient, database_url: str, tmp_path: Path, redis: RedisServer
) -> None:
    await set_rates(client, user=SLOW)
    async with two_processes(database_url, tmp_path, redis) as (first, second):
        async with visitor(first, "203.0.113.9", secret_of(client)) as a:
            await ask_until_refused(a)
        async with visitor(second, "203.0.113.9", secret_of(client)) as b:
            answer = await b.get(f"{API}/auth/me")

    assert left_of(answer) <= 1


async def test_guesses_of_a_password_hold_across_processes(
    client: httpx.AsyncClient, database_url: str, tmp_path: Path, redis: RedisServer
) -> None:
    guess = {"username": ADMIN, "password": "not the password"}
    async with two_processes(database_url, tmp_path, redis) as (first, second):
        async with visitor(first, "198.51.100.7") as a:
            statuses = [(await a.post(f"{API}/auth/login", json=guess)).status_code for _ in range(5)]
        async with visitor(second, "198.51.100.7") as b:
            statuses.append((await b.post(f"{API}/auth/login", json=guess)).status_code)
        async with visitor(second, "198.51.100.8") as owner:
            right = await owner.post(f"{API}/auth/login", json={"username": ADMIN, "password": PASSWORD})

    assert statuses == [401] * 5 + [429]
    assert right.status_code == 200


async def test_redis_when_away_refuses_nobody_and_metrics_say_so(
    client: httpx.AsyncClient, database_url: str, tmp_path: Path, redis: RedisServer
) -> None:
    await set_rates(client, user=SLOW)
    async with (
        two_processes(database_url, tmp_path, redis) as (first, _),
        visitor(first, "203.0.113.9", secret_of(client)) as http,
    ):
        await http.get(f"{API}/auth/me")
        assert b"wcp360_rate_limits_alone 0" in await first.parts.probes.render_metrics()
        redis.stop()

        answer = await http.get(f"{API}/auth/me")

        assert (answer.status_code, left_of(answer)) == (200, 59)
        assert b"wcp360_rate_limits_alone 1" in await first.parts.probes.render_metrics()
        await ask_until_refused(http)  # this process goes on counting


async def test_redis_when_it_is_back_is_asked_again(redis: RedisServer) -> None:
    now = [0.0]
    counters = RedisCounters(redis.url, prefix="test", clock=lambda: now[0])
    bucket = Bucket("user:ada", 10, 6.0)
    await counters.take([bucket])
    redis.stop()
    await counters.take([bucket])
    assert counters.is_away
    redis.start()

    now[0] += 10
    verdict = await counters.take([bucket])

    assert not counters.is_away
    assert verdict.wait_seconds == 0
    with redis.client() as admin:
        assert admin.exists("test:rate:user:ada")
        assert 0 < admin.pttl("test:rate:user:ada") <= 12_000
    await counters.close()


async def test_redis_counts_in_all_buckets_or_in_none(redis: RedisServer) -> None:
    counters = RedisCounters(redis.url, prefix="test")
    small, large = Bucket("small", 1, 60.0), Bucket("large", 100, 1.0)
    await counters.take([small, large])

    refused = await counters.take([small, large])
    later = await counters.take([large])

    assert refused.wait_seconds > 50
    assert later.fullness[0] < 2.5  # two units, not three
    await counters.give_back("small", 60.0)
    assert (await counters.take([small])).wait_seconds == 0
    await counters.forget("small")
    assert (await counters.take([small])).wait_seconds == 0
    await counters.close()
