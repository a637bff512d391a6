"""Webhooks from the change to the receiver, on a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.audit.models import AuditEntry
from controller.core.policies.registry import PlatformPolicies
from controller.core.webhooks import delivery
from controller.core.webhooks.delivery import WebhookDeliveries
from controller.core.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.sender import ANSWER_BYTES_MAX, Answer, HttpSender, SenderByOwner
from controller.core.webhooks.targets import Targets
from controller.db.base import utc_now
from tests.integration.conftest import ADMIN, PASSWORD, _add_admin, make_controller

API = "/api/v1"


@dataclass
class Receiver:
    """Somebody's server: keeps what it gets, answers what it is told."""

    port: int = 0
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    body: bytes = b"thanks"
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.got.append((headers | {":first": head[0]}, await reader.readexactly(int(headers["content-length"]))))
        lines = [f"HTTP/1.1 {self.status}", f"content-length: {len(self.body)}", "connection: close", *self.headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + self.body)
        writer.close()


@dataclass
class Stage:
    """A controller whose administrator is signed in, and a receiver."""

    controller: Controller
    http: httpx.AsyncClient
    receiver: Receiver

    async def add(self, *events: str, **fields: Any) -> dict[str, Any]:
        body = {"url": self.receiver.url, "events": list(events) or ["*"], **fields}
        answer = await self.http.post(f"{API}/webhooks", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def post(self, path: str, body: Any = None, *, expect: int = 200) -> Any:
        answer = await self.http.post(f"{API}{path}", json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def change(self, name: str = "Ada") -> str:
        return str((await self.post("/clients", {"name": name, "email": "a@example.com"}, expect=201))["id"])

    async def send(self) -> None:
        """What the workers do."""
        assert await self.controller.tasks.run_due() >= 1

    async def log(self, webhook_id: str, **query: str) -> list[dict[str, Any]]:
        answer = await self.http.get(f"{API}/webhooks/{webhook_id}/deliveries", params=query)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def make_due(self) -> None:
        async with self.controller.database.write() as session:
            await session.execute(update(WebhookDelivery).values(next_at=utc_now()))

    async def count(self) -> int:
        async with self.controller.database.read() as session:
            return len((await session.scalars(select(WebhookDelivery.id))).all())


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    built = make_controller(database_url, tmp_path, webhook_allowed_networks=("127.0.0.0/8",))
    await _add_admin(built)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    transport = httpx.ASGITransport(app=built.app.asgi)
    async with server, httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answer = await http.post(f"{API}/auth/login", json={"username": ADMIN, "password": PASSWORD})
        http.cookies.clear()
        http.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield Stage(built, http, receiver)
    await built.database.close()


def expected_signature(secret: str, headers: dict[str, str], body: bytes) -> str:
    """As a receiver computes it, from the specification's words alone."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


async def test_change_when_made_reaches_the_receiver_signed(stage: Stage) -> None:
    made = await stage.add("client.*")
    client_id = await stage.change()
    await stage.send()

    (headers, body) = stage.receiver.got[0]
    message = json.loads(body)
    assert headers[":first"] == "POST /hook?a=1 HTTP/1.1"
    assert headers["webhook-signature"] == expected_signature(made["secret"], headers, body)
    assert (message["type"], message["data"]["id"], message["data"]["after"]["name"]) == (
        "client.create", client_id, "Ada",
    )  # fmt: skip
    entry = (await stage.log(made["webhook"]["id"]))[0]
    assert (entry["state"], entry["attempts"][0]["status"], entry["attempts"][0]["body"]) == (
        "succeeded", 200, "thanks",
    )  # fmt: skip


async def test_change_that_fails_or_is_a_dry_run_writes_no_message(stage: Stage) -> None:
    await stage.add("client.*")

    await stage.http.post(f"{API}/clients?dry_run=true", json={"name": "Ada", "email": "a@example.com"})
    await stage.http.post(f"{API}/clients", json={"name": "Ada", "email": "not one"})

    assert await stage.count() == 0


async def test_change_that_was_not_sent_when_the_process_died_is_found_by_the_sweep(stage: Stage) -> None:
    await stage.add("client.*")
    await stage.change()
    await stage.send()
    async with stage.controller.database.write() as session:  # as if it had died before it sent anything
        await session.execute(update(WebhookDelivery).values(state=DeliveryState.PENDING, next_at=utc_now()))
    stage.receiver.got.clear()

    schedule = stage.controller.schedules._schedules["webhooks.send"]
    assert await schedule.run() == "messages are due"
    await stage.send()

    assert len(stage.receiver.got) == 1


async def test_event_that_nobody_asked_for_is_not_recorded(stage: Stage) -> None:
    await stage.add("account.*")
    disabled = await stage.add("*", is_enabled=False)
    await stage.change()

    assert await stage.log(disabled["webhook"]["id"]) == []
    assert await stage.count() == 0


async def test_failed_attempt_is_tried_again_later_under_the_same_id(stage: Stage) -> None:
    made = await stage.add("client.*")
    stage.receiver.status = "500 Oops"
    await stage.change()
    await stage.send()
    entry = (await stage.log(made["webhook"]["id"], state="pending"))[0]
    stage.receiver.status = "204 No Content"
    await stage.make_due()
    await stage.controller.schedules._schedules["webhooks.send"].run()
    await stage.send()

    assert entry["attempts"][0]["error"] == "it answered 500"
    assert entry["next_at"] > entry["attempts"][0]["at"]
    assert len({headers["webhook-id"] for headers, _ in stage.receiver.got}) == 1
    done = (await stage.log(made["webhook"]["id"]))[0]
    assert (done["state"], [attempt["status"] for attempt in done["attempts"]]) == ("succeeded", [500, 204])


async def test_replay_sends_the_same_message_again(stage: Stage) -> None:
    made = await stage.add("client.*")
    await stage.change()
    await stage.send()
    first = (await stage.log(made["webhook"]["id"]))[0]

    again = await stage.post(f"/deliveries/{first['id']}/replay", expect=201)
    await stage.send()

    assert again["replay_of"] == first["id"]
    assert [headers["webhook-id"] for headers, _ in stage.receiver.got] == [first["message_id"]] * 2
    assert stage.receiver.got[0][1] == stage.receiver.got[1][1]


async def test_test_message_is_sent_whatever_events_are_wanted(stage: Stage) -> None:
    made = await stage.add("account.create")

    sent = await stage.post(f"/webhooks/{made['webhook']['id']}/test", expect=201)
    await stage.send()

    assert sent["event"] == "webhook.test"
    assert json.loads(stage.receiver.got[0][1])["type"] == "webhook.test"


async def test_secret_when_rotated_signs_beside_the_old_one_and_is_shown_once(stage: Stage) -> None:
    made = await stage.add("client.*")
    webhook_id = made["webhook"]["id"]
    rotated = await stage.post(f"/webhooks/{webhook_id}/rotate-secret")
    await stage.change()
    await stage.send()

    (headers, body) = stage.receiver.got[0]
    assert headers["webhook-signature"].split(" ") == [
        expected_signature(secret, headers, body) for secret in (rotated["secret"], made["secret"])
    ]
    shown = (await stage.http.get(f"{API}/webhooks/{webhook_id}")).text + (await stage.http.get(f"{API}/audit")).text
    assert made["secret"] not in shown
    assert rotated["secret"] not in shown


async def test_dead_endpoint_is_paused_needs_attention_and_gets_what_was_kept_when_resumed(stage: Stage) -> None:
    made = await stage.add("client.*")
    webhook_id = made["webhook"]["id"]
    stage.receiver.status = "503 No"
    async with stage.controller.database.write() as session:
        long_ago = utc_now() - delivery.PAUSE_AFTER
        values = {"failures": delivery.PAUSE_AFTER_FAILURES - 1, "failing_since": long_ago}
        await session.execute(update(WebhookEndpoint).values(values))
    await stage.change("Ada")
    await stage.send()
    await stage.change("Grace")
    await stage.controller.tasks.run_due()

    view = (await stage.http.get(f"{API}/webhooks/{webhook_id}")).json()
    items = (await stage.http.get(f"{API}/attention?kind=webhook")).json()["items"]
    assert (view["state"], len(stage.receiver.got)) == ("paused", 1)
    assert [item["id"] for item in items] == [f"webhook.{webhook_id}"]

    stage.receiver.status = "200 OK"
    await stage.post(f"/webhooks/{webhook_id}/resume")
    await stage.send()
    names = [json.loads(body)["data"]["after"]["name"] for _, body in stage.receiver.got]
    assert names == ["Ada", "Ada", "Grace"]
    assert (await stage.http.get(f"{API}/attention?kind=webhook")).json()["items"] == []
    async with stage.controller.database.read() as session:
        assert "webhook.pause" in set(await session.scalars(select(AuditEntry.action)))


async def test_endpoint_that_answers_gone_is_paused_at_once(stage: Stage) -> None:
    made = await stage.add("client.*")
    stage.receiver.status = "410 Gone"
    await stage.change()
    await stage.send()

    assert (await stage.http.get(f"{API}/webhooks/{made['webhook']['id']}")).json()["state"] == "paused"


async def test_redirect_is_not_followed_and_a_long_answer_is_cut(stage: Stage) -> None:
    made = await stage.add("client.*")
    stage.receiver.status, stage.receiver.headers = "302 Found", (f"location: {stage.receiver.url}",)
    stage.receiver.body = b"x" * (ANSWER_BYTES_MAX * 64)
    await stage.change()
    await stage.send()

    attempt = (await stage.log(made["webhook"]["id"]))[0]["attempts"][0]
    assert (len(stage.receiver.got), attempt["status"], len(attempt["body"])) == (1, 302, ANSWER_BYTES_MAX)


async def test_slow_endpoint_does_not_hold_up_another(stage: Stage) -> None:
    """The two are sent to at once: the first one waits until the second one has its message."""
    arrived = asyncio.Event()

    class Pair:
        async def send(self, url: str, headers: dict[str, str], body: str) -> Answer:
            if url.endswith("slow"):
                async with asyncio.timeout(10):
                    await arrived.wait()
            arrived.set()
            return Answer(status=200)

    await stage.add("client.*", url=f"{stage.receiver.url}slow")
    await stage.add("client.*")
    await stage.change()
    deliveries = WebhookDeliveries(
        stage.controller.database, stage.controller.operations, SenderByOwner(Pair(), Pair())
    )

    assert await deliveries.run(None) == "2 messages sent"  # type: ignore[arg-type] # it needs nothing of its task


async def test_messages_of_long_ago_are_forgotten(stage: Stage) -> None:
    await stage.add("client.*")
    await stage.change()
    await stage.send()
    later = utc_now() + timedelta(days=PlatformPolicies().webhook_retention_days + 1)
    strict = HttpSender(Targets())
    deliveries = WebhookDeliveries(
        stage.controller.database, stage.controller.operations, SenderByOwner(strict, strict), clock=lambda: later
    )

    await deliveries.forget_old()

    assert await stage.count() == 0


@pytest.mark.parametrize(
    ("body", "field_name"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://user:secret@example.com/"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://10.1.2.3/"}, "url"),
        ({"url": "https://[::1]/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "http://8.8.8.8/"}, "url"),
        ({"events": ["account.explode"]}, "events.0"),
        ({"events": ["account.*", "nothing.*"]}, "events.1"),
    ],
)
async def test_create_with_bad_input_names_the_field(stage: Stage, body: dict[str, Any], field_name: str) -> None:
    sent = {"url": stage.receiver.url, "events": ["*"], **body}

    answer = await stage.http.post(f"{API}/webhooks", json=sent)

    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, [field_name])
    assert (await stage.http.get(f"{API}/webhooks")).json()["items"] == []


async def test_update_disable_and_delete_take_effect(stage: Stage) -> None:
    webhook_id = (await stage.add("client.*"))["webhook"]["id"]

    changed = await stage.http.patch(f"{API}/webhooks/{webhook_id}", json={"is_enabled": False, "description": "x"})
    await stage.change()
    refused = await stage.http.post(f"{API}/webhooks/{webhook_id}/test")
    gone = await stage.http.delete(f"{API}/webhooks/{webhook_id}")

    assert (changed.json()["state"], changed.json()["description"]) == ("disabled", "x")
    assert (await stage.count(), refused.status_code, gone.status_code) == (0, 409, 204)
    assert (await stage.http.get(f"{API}/webhooks/{webhook_id}")).status_code == 404
