"""A log that is asked for at one process of the controller while the node is connected to another."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from controller.bootstrap import Controller
from tests.integration.conftest import make_controller
from tests.integration.live import free_port, serve_controller, wait_until
from tests.integration.streams.stage import StreamStage, read_records, request_lines, stream_stage, take

MIB = 1024 * 1024


@pytest.fixture
async def stage(postgres_url: str, tmp_path: Path) -> AsyncIterator[StreamStage]:
    async with stream_stage(postgres_url, tmp_path) as made:
        fleet = made.live.controller.fleet
        fleet.processes.find_address = lambda: f"127.0.0.1:{fleet.gateway.port}"
        await fleet.processes.beat()
        yield made


@pytest.fixture
async def other(stage: StreamStage, postgres_url: str, tmp_path: Path) -> AsyncIterator[Controller]:
    """A second process on the same database and keys, to which no node is connected."""
    port = free_port()
    controller = make_controller(
        postgres_url,
        tmp_path,
        api_host="127.0.0.1",
        api_port=port,
        gateway_host="127.0.0.1",
        gateway_port=free_port(),
        public_names=("127.0.0.1",),
        controller_url=f"https://127.0.0.1:{port}",
        gateway_url=stage.live.controller.settings.gateway_url,
    )
    async with serve_controller(controller):
        yield controller
    await controller.database.close()


@pytest.fixture
async def http(stage: StreamStage, other: Controller) -> AsyncIterator[httpx.AsyncClient]:
    """The administrator at the second process."""
    headers = {"authorization": f"Bearer {stage.live.admin_token}"}
    async with httpx.AsyncClient(
        base_url=other.settings.controller_url, verify=stage.live.tls, headers=headers, timeout=30.0
    ) as client:
        yield client


pytestmark = pytest.mark.postgresql


async def test_log_when_the_node_is_at_another_process_is_read_and_followed_through_it(
    stage: StreamStage, other: Controller, http: httpx.AsyncClient
) -> None:
    stage.log_path().write_text(request_lines(1, 5))
    assert other.fleet.gateway.connected_ids == frozenset()

    page = (await http.get(stage.url(), params={"lines": 1})).json()
    async with http.stream("GET", stage.url(), params={"follow": "true", "lines": 1}) as answer:
        records = read_records(answer)
        first = await take(records, 1)
        with stage.log_path().open("a") as log:
            log.write(request_lines(6, 6))
        second = await take(records, 1)

    assert [item["line"] for item in (*page["items"], *first, *second)] == ["request 5", "request 5", "request 6"]
    await wait_until(lambda: stage.streams.open_count == 0)


async def test_log_when_its_reader_at_another_process_stands_still_stays_on_the_node(
    stage: StreamStage, http: httpx.AsyncClient
) -> None:
    with stage.log_path().open("w") as log:
        for number in range(64 * MIB // 100):
            log.write(f"{number:099d}\n")
    cursor = f"{stage.log_path().stat().st_ino}:0"

    async with http.stream("GET", stage.url(), params={"follow": "true", "after": cursor}) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        (stream,) = stage.streams._streams.values()
        await _until_still(stream)

        assert stream._window.received < 48 * MIB
        await stage.operator.change("POST", f"/nodes/{stage.node['id']}/ping")

    await wait_until(lambda: stage.streams.open_count == 0)


async def _until_still(stream: object) -> None:
    last, same = -1, 0
    async with asyncio.timeout(30):
        while same < 25:
            await asyncio.sleep(0.02)
            now = stream._window.received  # type: ignore[attr-defined]
            last, same = now, same + 1 if now == last else 0


async def test_log_when_it_cannot_be_read_has_the_same_words_through_another_process(
    stage: StreamStage, http: httpx.AsyncClient
) -> None:
    stage.agent.host.state.paths.pop("/var/log/wcp360/sites/demo/demo.example.error.log")

    answer = await http.get(stage.url("error"))

    assert (answer.status_code, answer.json()["code"]) == (404, "no_log")


async def test_log_when_the_gateway_cannot_be_reached_says_so(stage: StreamStage, http: httpx.AsyncClient) -> None:
    port = free_port()
    stage.live.controller.fleet.processes.find_address = lambda: f"127.0.0.1:{port}"
    await stage.live.controller.fleet.processes.beat()

    answer = await http.get(stage.url())

    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unreachable")


async def test_log_when_the_gateway_goes_away_meanwhile_ends_with_its_reason(
    stage: StreamStage, http: httpx.AsyncClient
) -> None:
    stage.log_path().write_text("a line\n")

    async with http.stream("GET", stage.url(), params={"follow": "true"}) as answer:
        records = read_records(answer)
        await take(records, 1)
        gateway = stage.live.controller.fleet.gateway
        await gateway._sessions[stage.node["id"]]._close(1012, "test")
        (last,) = await take(records, 1)

    assert last["code"] == "agent_offline"


async def test_internal_path_when_a_node_asks_is_refused(stage: StreamStage) -> None:
    """A node's certificate is of the same authority, and no more than a node's."""
    paths = stage.agent._paths
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(stage.live.ca_file)
    context.load_cert_chain(paths.node_pem)
    port = stage.live.controller.fleet.gateway.port

    with pytest.raises(InvalidStatus) as refused:
        await connect(f"wss://127.0.0.1:{port}/internal/v1/streams", ssl=context, proxy=None)

    assert refused.value.response.status_code == 403
