"""The events' WebSocket, over real TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from controller.api.edge import SESSION_COOKIE
from controller.core.events.publisher import EventPublisher, Topic
from tests.integration.live import LiveController, wait_until


@asynccontextmanager
async def listen(live: LiveController, **headers: str) -> AsyncIterator[ClientConnection]:
    url = live.api_url.replace("https", "wss") + "/api/v1/events"
    async with connect(url, ssl=live.tls, additional_headers=headers, open_timeout=10) as socket:
        yield socket


async def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def subscribe(socket: ClientConnection, *topics: str) -> None:
    assert (await receive(socket))["event"] == "ready"
    await socket.send(json.dumps({"subscribe": topics}))
    assert (await receive(socket))["topics"] == sorted(topics)


def bearer(live: LiveController) -> dict[str, str]:
    return {"authorization": f"Bearer {live.admin_token}"}


async def test_listener_with_a_bearer_token_gets_the_topics_it_asked_for(live_controller: LiveController) -> None:
    async with listen(live_controller, **bearer(live_controller)) as socket:
        await subscribe(socket, "jobs")

        live_controller.controller.publisher.publish(Topic.NODES, "node.connected", {"id": "1"})
        live_controller.controller.publisher.publish(Topic.JOBS, "job.succeeded", {"id": "2"})

        assert await receive(socket) == {"topic": "jobs", "event": "job.succeeded", "data": {"id": "2"}}


async def test_listener_may_say_its_token_first(live_controller: LiveController) -> None:
    async with listen(live_controller) as socket:
        await socket.send(json.dumps({"token": live_controller.admin_token}))

        await subscribe(socket, "accounts", "jobs")


async def test_change_over_the_api_reaches_the_listener(live_controller: LiveController) -> None:
    async with listen(live_controller, **bearer(live_controller)) as socket, live_controller.client() as http:
        await subscribe(socket, "clients")

        made = await http.post("/api/v1/clients", json={"name": "Ada", "email": "ada@example.com"})

        assert made.status_code == 201, made.text
        assert (await receive(socket))["event"] == "client.create"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"token": "wcp_wrong"}', 4401),
        ("{}", 4401),
        ("not json", 4400),
        ('{"subscribe": ["jobs"]}', 4401),
        ('{"token": "' + "x" * 5000 + '"}', 4400),
    ],
)
async def test_listener_that_proves_nobody_is_sent_away(
    live_controller: LiveController, message: str, code: int
) -> None:
    async with listen(live_controller) as socket:
        await socket.send(message)

        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


async def test_listener_of_an_unknown_topic_is_told_so(live_controller: LiveController) -> None:
    async with listen(live_controller, **bearer(live_controller)) as socket:
        await socket.send(json.dumps({"subscribe": ["everything"]}))
        assert (await receive(socket))["event"] == "ready"

        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


async def test_listener_with_a_token_of_other_scopes_may_not_listen(live_controller: LiveController) -> None:
    async with live_controller.client() as http:
        made = await http.post("/api/v1/tokens", json={"name": "sites only", "scopes": ["sites:read"]})
    async with listen(live_controller, authorization=f"Bearer {made.json()['secret']}") as socket:
        assert (await receive(socket))["event"] == "ready"
        await socket.send(json.dumps({"subscribe": ["audit"]}))

        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_cookie_from_another_page_opens_no_stream(live_controller: LiveController, origin: str | None) -> None:
    headers = {"cookie": f"{SESSION_COOKIE}={live_controller.admin_token}"} | ({"origin": origin} if origin else {})

    with pytest.raises(InvalidStatus) as refused:
        async with listen(live_controller, **headers):
            pass

    assert refused.value.response.status_code == 403


async def test_cookie_from_our_own_page_opens_a_stream(live_controller: LiveController) -> None:
    headers = {"cookie": f"{SESSION_COOKIE}={live_controller.admin_token}", "origin": live_controller.api_url}

    async with listen(live_controller, **headers) as socket:
        assert (await receive(socket))["event"] == "ready"


async def test_listener_that_leaves_is_forgotten(live_controller: LiveController) -> None:
    publisher = live_controller.controller.publisher
    async with listen(live_controller, **bearer(live_controller)) as socket:
        assert (await receive(socket))["event"] == "ready"
        assert publisher.listener_count == 1

    await wait_until(lambda: publisher.listener_count == 0)


async def test_listener_whose_connection_breaks_is_forgotten_while_news_go_on(
    live_controller: LiveController, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = live_controller.controller.publisher
    async with listen(live_controller, **bearer(live_controller)) as socket:
        await subscribe(socket, "jobs")
        socket.transport.abort()

        def is_forgotten() -> bool:
            publisher.publish(Topic.JOBS, "job.progress", {"text": "x" * 10_000})
            return publisher.listener_count == 0

        await wait_until(is_forgotten)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_server_that_stops_lets_its_listeners_go(live_controller: LiveController) -> None:
    async with listen(live_controller, **bearer(live_controller)) as socket:
        await subscribe(socket, "jobs")

        live_controller.server.should_exit = True

        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_subscription_when_its_queue_is_full_is_dropped_and_others_are_not() -> None:
    publisher = EventPublisher()
    with publisher.subscribe(queue_length=2) as slow, publisher.subscribe(queue_length=10) as quick:
        slow.topics = quick.topics = frozenset({"jobs"})

        for number in range(3):
            publisher.publish("jobs", "job.queued", {"number": number})

        assert slow.is_dropped
        assert not quick.is_dropped
        assert [(await quick.next(1.0)).data["number"] for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
