"""A site's log over the API: the last lines, what comes, from where somebody stopped, and clear words when it cannot be."""

from __future__ import annotations

import json
import threading

import msgspec
from sqlalchemy import update

from controller.fleet.models import Node
from shared.protocol.streams import ListStreams
from tests.integration.live import wait_until
from tests.integration.streams.stage import StreamStage, read_records, request_lines, take


async def test_read_log_when_asked_for_lines_answers_the_last_ones_and_goes_on_from_a_cursor(
    stage: StreamStage,
) -> None:
    path = stage.log_path()
    path.write_text(request_lines(1, 500))

    page = await stage.read(lines=3)
    with path.open("a") as log:
        log.write(request_lines(501, 502))
    later = await stage.read(after=page["cursor"])
    nothing = await stage.read(after=later["cursor"])

    assert [item["line"] for item in page["items"]] == ["request 498", "request 499", "request 500"]
    assert [item["line"] for item in later["items"]] == ["request 501", "request 502"]
    assert nothing == {"items": [], "cursor": later["cursor"]}
    assert stage.streams.open_count == 0


async def test_read_log_of_a_simulated_node_has_something_to_look_at(lite_stage: StreamStage) -> None:
    access = await lite_stage.read(lines=1000)
    error = await lite_stage.read("error")

    assert len(access["items"]) == 40
    assert '"GET /page-39 HTTP/1.1" 200' in access["items"][-1]["line"]
    assert error == {"items": [], "cursor": None}


async def test_follow_log_when_lines_are_written_sends_each_and_ends_the_worker_with_its_reader(
    lite_stage: StreamStage,
) -> None:
    stage = lite_stage
    path = stage.log_path()
    path.write_text(request_lines(1, 5))

    async with stage.following(lines=2) as records:
        assert [item["line"] for item in await take(records, 2)] == ["request 4", "request 5"]
        with path.open("a") as log:
            log.write(request_lines(6, 7))
        assert [item["line"] for item in await take(records, 2)] == ["request 6", "request 7"]
        assert stage.streams.open_count == 1

    await wait_until(lambda: stage.streams.open_count == 0)
    assert stage.streams.promised_bytes == 0


async def test_follow_log_when_events_are_accepted_sends_server_sent_events(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")
    headers = {"accept": "text/event-stream"}

    async with stage.operator.http.stream(
        "GET", stage.url(), params={"follow": "true"}, headers=headers, timeout=30.0
    ) as answer:
        lines = answer.aiter_lines()
        event = [await anext(lines) for _ in range(3)]

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert event[0].startswith("id: ")
    assert json.loads(event[1].removeprefix("data: "))["line"] == "a line"
    assert event[2] == ""


async def test_follow_log_when_the_node_goes_away_ends_with_its_reason(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")

    async with stage.following() as records:
        await take(records, 1)
        session = stage.live.controller.fleet.gateway._sessions[stage.node["id"]]
        await session._close(1012, "test")
        (last,) = await take(records, 1)

    assert last["code"] == "agent_offline"


async def test_follow_log_when_the_node_lost_the_stream_ends_with_its_reason(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")

    async with stage.following() as records:
        await take(records, 1)
        await stage.streams.take_list(ListStreams(sids=(), newest=0))
        assert stage.streams.open_count == 1, "a stream that the node has not seen yet is not lost"
        await stage.streams.take_list(ListStreams(sids=(), newest=99))
        (last,) = await take(records, 1)

    assert last["code"] == "stream_lost"


async def test_stream_that_the_controller_lost_is_ended_on_the_node_by_the_lists(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")

    async with stage.following() as records:
        await take(records, 1)
        (stream,) = stage.streams._streams.values()
        link = stage.agent._link._relay.outbox
        del stage.streams._streams[stream.sid]
        link.put(ListStreams(sids=(stream.sid,), newest=stream.sid))
        await wait_until(lambda: not _worker_threads())


def _worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker-")]


async def test_read_log_when_it_cannot_be_says_why(lite_stage: StreamStage) -> None:
    stage = lite_stage
    http = stage.operator.http
    other = await stage.operator.change(
        "POST", "/sites", {"account_id": stage.account["id"], "domain": "other.example"}
    )
    stage.agent.host.state.paths.pop("/var/log/wcp360/sites/demo/other.example.access.log")
    path = f"/api/v1/sites/{other['id']}/logs"

    async def code(path: str) -> tuple[int, str]:
        answer = await http.get(path)
        return answer.status_code, answer.json()["code"]

    assert await code(f"{path}/access") == (404, "no_log")
    assert await code(f"{path}/access?follow=true") == (404, "no_log")
    assert await code(f"{path}/mail") == (400, "invalid_input")
    assert await code(f"{path}/access?lines=1001") == (400, "invalid_input")
    assert await code(f"{path}/access?lines=-1") == (400, "invalid_input")
    assert await code(f"{path}/access?after=../../etc") == (400, "invalid_input")
    assert await code("/api/v1/sites/01900000-0000-7000-8000-000000000000/logs/access") == (404, "not_found")
    assert (await http.get(f"{path}/access", headers={"authorization": "Bearer wcp_none"})).status_code == 401


async def test_read_log_when_the_agent_is_of_an_older_release_says_so(lite_stage: StreamStage) -> None:
    stage = lite_stage
    async with stage.live.controller.database.write() as session:
        await session.execute(update(Node).values(capability=1))

    answer = await stage.operator.http.get(stage.url())

    assert (answer.status_code, answer.json()["code"]) == (409, "outdated_agent")


async def test_read_log_when_the_nodes_key_was_revoked_is_refused_by_the_node(lite_stage: StreamStage) -> None:
    stage = lite_stage
    store = stage.agent.executor._trust
    assert store.bundle is not None
    store.bundle = msgspec.structs.replace(store.bundle, revoked_kids=tuple(key.kid for key in store.bundle.job_keys))

    answer = await stage.operator.http.get(stage.url())

    assert (answer.status_code, answer.json()["code"]) == (409, "stream_refused")
    assert "revoked" in answer.json()["detail"]


async def test_tails_of_one_account_beyond_its_share_are_refused_and_free_it_again(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")
    opened = []
    try:
        for _ in range(8):
            request = stage.operator.http.build_request("GET", stage.url(), params={"follow": "true"})
            opened.append(await stage.operator.http.send(request, stream=True))
        refused = await stage.operator.http.get(stage.url())
    finally:
        for answer in opened:
            await answer.aclose()
    await wait_until(lambda: stage.streams.open_count == 0)

    assert [answer.status_code for answer in opened] == [200] * 8
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
    assert (await stage.read())["items"][0]["line"] == "a line"
    assert [record async for record in read_records(await stage.operator.http.get(stage.url()))]


async def test_follow_log_when_the_controller_stops_ends_at_once_with_its_reason(lite_stage: StreamStage) -> None:
    stage = lite_stage
    stage.log_path().write_text("a line\n")

    async with stage.following() as records:
        await take(records, 1)
        stage.live.server.should_exit = True
        (last,) = await take(records, 1)

    assert last == {"code": "unavailable", "detail": "the controller is being restarted"}
