"""How many answers that last somebody may have at once: one more is refused, and gets in when one of them is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.exceptions import LitestarException
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from controller.api.handlers.events import CLOSE_TOO_MANY
from controller.bootstrap import Controller
from tests.integration.conftest import running_controller
from tests.integration.controller.test_events import bearer, listen, receive
from tests.integration.live import LiveController, wait_until
from tests.integration.streams.stage import StreamStage, take

EVENT_STREAM = {"accept": "text/event-stream"}


@pytest.fixture
async def live(database_url: str, tmp_path: Path) -> AsyncIterator[LiveController]:
    async with running_controller(database_url, tmp_path) as running:
        yield running


async def allow(http: httpx.AsyncClient, **policies: int) -> None:
    answer = await http.patch("/api/v1/policies", json=policies)
    assert answer.status_code == 200, answer.text


async def require_refused(socket: ClientConnection) -> str:
    """The reason."""
    with pytest.raises(ConnectionClosed) as closed:
        await receive(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CLOSE_TOO_MANY
    return closed.value.rcvd.reason


def http_scope(path: str, asker: httpx.AsyncClient, query: bytes = b"") -> dict[str, Any]:
    """A request as a server hands it over."""
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query,
        "headers": [(b"authorization", asker.headers["authorization"].encode())], "client": ("127.0.0.1", 5000),
        "server": ("controller.test", 8360), "scheme": "https", "http_version": "1.1", "root_path": "",
        "extensions": {},
    }  # fmt: skip


async def never() -> Any:
    """What a client says that only reads."""
    await asyncio.Event().wait()


def require_problem(answer: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "too_many_readers"), answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert "Close one" in problem["hint"]
    return problem


# --- events -------------------------------------------------------------------------------------------------------


async def test_listener_when_one_more_than_allowed_is_sent_away_until_another_leaves(live: LiveController) -> None:
    readers = live.controller.parts.readers
    async with live.client() as http, AsyncExitStack() as others:
        await allow(http, readers_user_max=2)
        first = await others.enter_async_context(listen(live, **bearer(live)))
        second = await others.enter_async_context(listen(live, **bearer(live)))
        assert [(await receive(socket))["event"] for socket in (first, second)] == ["ready"] * 2
        assert "\nwcp360_readers 2.0\n" in (await http.get("/metrics")).text

        async with listen(live, **bearer(live)) as third:
            reason = await require_refused(third)
        await first.close()
        await wait_until(lambda: readers.count == 1)
        async with listen(live, **bearer(live)) as fourth:
            assert (await receive(fourth))["event"] == "ready"

    assert reason == "2 readers of yours are open, and there may be no more at once"
    await wait_until(lambda: readers.count == 0)


async def test_listeners_of_a_session_and_of_tokens_are_counted_as_one_users(live: LiveController) -> None:
    async with live.client() as http:
        await allow(http, readers_user_max=1)
        made = (await http.post("/api/v1/tokens", json={"name": "ear"})).json()
        async with listen(live, authorization=f"Bearer {made['secret']}") as first, listen(live) as second:
            assert (await receive(first))["event"] == "ready"
            await second.send(f'{{"token": "{live.admin_token}"}}')
            await require_refused(second)


async def test_listener_whose_connection_breaks_gives_its_place_back(live: LiveController) -> None:
    readers = live.controller.parts.readers
    async with live.client() as http:
        await allow(http, readers_user_max=1)
        async with listen(live, **bearer(live)) as socket:
            assert (await receive(socket))["event"] == "ready"
            socket.transport.abort()
            await wait_until(lambda: readers.count == 0)


async def test_listener_whose_token_is_revoked_gives_its_place_back(live: LiveController) -> None:
    readers = live.controller.parts.readers
    async with live.client() as http:
        made = (await http.post("/api/v1/tokens", json={"name": "ear"})).json()
        async with listen(live, authorization=f"Bearer {made['secret']}") as socket:
            assert (await receive(socket))["event"] == "ready"
            assert readers.count == 1
            assert (await http.delete(f"/api/v1/tokens/{made['token']['id']}")).status_code == 204
            await wait_until(lambda: readers.count == 0)


@pytest.mark.parametrize("said", ["not a message", '{"subscribe": ["nothing of the kind"]}'])
async def test_listener_that_says_nonsense_gives_its_place_back(live: LiveController, said: str) -> None:
    readers = live.controller.parts.readers
    async with listen(live, **bearer(live)) as socket:
        assert (await receive(socket))["event"] == "ready"
        assert readers.count == 1
        await socket.send(said)
        await wait_until(lambda: readers.count == 0)


async def test_listener_whose_handler_is_cancelled_leaves_nothing_behind(
    controller: Controller, client: httpx.AsyncClient
) -> None:
    """As a process does that stops."""
    scope = http_scope("/api/v1/events", client) | {"type": "websocket", "scheme": "wss", "subprotocols": []}
    del scope["method"]  # a WebSocket has none
    said: list[str] = []
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told.put_nowait({"type": "websocket.connect"})

    async def say(message: Any) -> None:
        said.append(message["type"])

    before = asyncio.all_tasks()
    handler = asyncio.create_task(controller.app.asgi(scope, told.get, say))
    await wait_until(lambda: len(said) == 2)
    assert said == ["websocket.accept", "websocket.send"]
    assert controller.parts.readers.count == 1
    handler.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handler

    assert controller.parts.readers.count == 0
    assert controller.publisher.listener_count == 0
    assert asyncio.all_tasks() == before


# --- logs that are followed ---------------------------------------------------------------------------------------


@asynccontextmanager
async def follow(stage: StreamStage, headers: dict[str, str] | None = None) -> AsyncIterator[httpx.Response]:
    async with stage.operator.http.stream(
        "GET", stage.url(), params={"follow": "true"}, headers=headers or {}, timeout=30.0
    ) as answer:
        if answer.status_code != 200:
            await answer.aread()
        yield answer


@pytest.mark.parametrize("headers", [{}, EVENT_STREAM], ids=["lines", "server-sent events"])
async def test_log_when_followed_once_more_than_allowed_is_refused_until_another_reader_leaves(
    stage: StreamStage, headers: dict[str, str]
) -> None:
    readers = stage.live.controller.parts.readers
    stage.log_path().write_text("a line\n")
    await allow(stage.operator.http, readers_user_max=2)

    async with follow(stage, headers) as first, AsyncExitStack() as others:
        second = await others.enter_async_context(follow(stage, headers))
        async with follow(stage, headers) as third:
            problem = require_problem(third)
        page = await stage.read(lines=1)
        await others.aclose()
        await wait_until(lambda: readers.count == 1)
        async with follow(stage, headers) as fourth:
            assert [answer.status_code for answer in (first, second, fourth)] == [200] * 3

    assert problem["detail"].startswith("2 readers of yours")
    assert page["items"], "what ends by itself needs no place"
    await wait_until(lambda: readers.count == 0 and stage.streams.open_count == 0)


async def test_logs_and_listeners_are_counted_together(stage: StreamStage) -> None:
    live = stage.live
    stage.log_path().write_text("a line\n")
    await allow(stage.operator.http, readers_user_max=1)

    async with stage.following() as records:
        await take(records, 1)
        async with listen(live, **bearer(live)) as socket:
            await require_refused(socket)
    await wait_until(lambda: live.controller.parts.readers.count == 0)
    async with listen(live, **bearer(live)) as socket:
        assert (await receive(socket))["event"] == "ready"
        async with follow(stage) as answer:
            require_problem(answer)


async def test_log_whose_node_goes_away_gives_its_readers_place_back(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")
    async with stage.following() as records:
        await take(records, 1)
        session = stage.live.controller.fleet.gateway._sessions[stage.node["id"]]
        await session._close(1012, "test")
        await wait_until(lambda: stage.live.controller.parts.readers.count == 0)


async def test_log_that_cannot_be_followed_takes_no_place(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.agent.host.state.paths.pop(f"/var/log/wcp360/sites/{stage.account['name']}/demo.example.access.log")

    async with follow(stage) as answer:
        assert answer.json()["code"] == "no_log"

    await wait_until(lambda: stage.live.controller.parts.readers.count == 0)


async def test_log_whose_answer_fails_on_its_way_is_followed_no_more(lite_stage: StreamStage) -> None:
    """What was read was not to be sent: the node must not go on, either."""
    stage, controller = lite_stage, lite_stage.live.controller
    stage.log_path().write_text("a line\n")

    async def say(message: Any) -> None:
        if message["type"] == "http.response.body":
            assert (controller.parts.readers.count, stage.streams.open_count) == (1, 1)
            raise OSError("gone")

    scope = http_scope(stage.url(), stage.operator.http, query=b"follow=true")
    with pytest.raises(LitestarException):
        await controller.app.asgi(scope, never, say)

    assert (controller.parts.readers.count, stage.streams.open_count) == (0, 0)


# --- exports ------------------------------------------------------------------------------------------------------


async def test_export_when_all_places_are_taken_is_refused_and_gives_its_own_back(live: LiveController) -> None:
    readers = live.controller.parts.readers
    async with live.client() as http:
        await allow(http, readers_user_max=1)
        made = await http.post("/api/v1/resellers", json={"name": "ours", "email": "r@example.com"})
        paths = ("/api/v1/audit/export", f"/api/v1/resellers/{made.json()['id']}/usage-export")
        async with listen(live, **bearer(live)) as socket:
            assert (await receive(socket))["event"] == "ready"
            for path in paths:
                require_problem(await http.get(path))
        await wait_until(lambda: readers.count == 0)
        for path in paths * 2:
            assert (await http.get(path)).status_code == 200
            await wait_until(lambda: readers.count == 0)


async def test_export_that_fails_on_its_way_gives_its_place_back(
    controller: Controller, client: httpx.AsyncClient
) -> None:
    """Neither a reader whose connection is gone at once nor a mistake of ours keeps one."""

    async def say(message: Any) -> None:
        assert controller.parts.readers.count == 1
        raise OSError("gone")

    scope = http_scope("/api/v1/audit/export", client)
    with pytest.raises(LitestarException):
        await controller.app.asgi(scope, never, say)

    assert controller.parts.readers.count == 0
