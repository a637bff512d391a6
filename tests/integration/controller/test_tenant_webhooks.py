"""Webhooks of resellers and clients: the events of their own things, and of nobody else's, at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from controller.core.auth.models import User
from controller.core.context import Role
from controller.core.reactions import Reactions
from controller.core.tenancy.models import CustomRole
from controller.core.webhooks.models import WebhookEndpoint
from controller.core.webhooks.outbox import Outbox
from controller.core.webhooks.service import TENANT_ENDPOINTS_MAX
from controller.fleet.models import Node
from controller.jobs.models import Job
from controller.jobs.states import JobState
from shared.protocol.job import JobResult
from shared.protocol.job import JobState as ResultState
from tests.integration.controller.market import Market, open_market
from tests.integration.controller.test_webhooks import API

PUBLIC = "https://8.8.8.8/hook"


@pytest.fixture
async def market(database_url: str, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(database_url, tmp_path) as opened:
        yield opened


async def test_reseller_and_client_get_the_events_of_their_own_things_and_of_nobody_elses(market: Market) -> None:
    ours, foreign = market.ours, market.foreign
    own = {role: await market.add(ours.headers[role]) for role in (Role.RESELLER, Role.CLIENT)}
    other = await market.add(foreign.headers[Role.RESELLER])
    everything = await market.add(market.admin)
    note = {"text": "asks for a discount"}

    for tenant in (ours, foreign):
        await market.label(tenant)
        await market.ask("PUT", f"/accounts/{tenant.ids['account_id']}/note", market.admin, note)
        await market.ask(
            "PATCH", f"/packages/{tenant.ids['package_id']}", market.admin, {"processes_max": 9}, expect=202
        )
        await market.ask(
            "PATCH", f"/nodes/{tenant.ids['node_id']}", market.admin, {"drift_policy": "repair"}, expect=202
        )
        body = {"name": f"new-{tenant.reseller_id[-8:]}.example", "account_id": tenant.ids["account_id"]}
        await market.ask("POST", "/domains", market.admin, body, expect=201)

    told = {role: await market.log(own[role], ours.headers[role]) for role in own}
    assert [item["event"] for item in told[Role.RESELLER]] == ["account.update", "package.update", "domain.create"]
    assert [item["event"] for item in told[Role.CLIENT]] == ["account.update", "domain.create"]
    assert [item["event"] for item in await market.log(other, foreign.headers[Role.RESELLER])] == [
        "account.update", "package.update", "domain.create",
    ]  # fmt: skip
    everywhere = [item["event"] for item in await market.log(everything, market.admin)]
    assert {"node.update", "account.set_note"} <= set(everywhere) and everywhere.count("account.update") == 2
    async with market.controller.database.read() as session:
        names = (await session.scalars(select(Node.name))).all()
    hidden = [*names, "discount", "note", foreign.reseller_id, foreign.ids["client_id"], foreign.ids["account_id"]]
    bodies = json.dumps([item["body"] for items in told.values() for item in items])
    assert [word for word in hidden if word in bodies] == []
    state = json.loads(told[Role.CLIENT][0]["body"])["data"]["after"]
    assert (state["id"], state["client_id"]) == (ours.ids["account_id"], ours.ids["client_id"])


async def test_result_of_a_job_reaches_the_tenant_whose_account_it_was_for(market: Market) -> None:
    ours, foreign = market.ours, market.foreign
    webhook_id = await market.add(ours.headers[Role.CLIENT], "job.*")
    other = await market.add(foreign.headers[Role.CLIENT], "job.*")
    reactions = Reactions()
    reactions.add(Outbox(market.controller.tasks, market.controller.parts.dependencies["catalogue"]))

    async with market.controller.database.write() as session:
        job = await session.get_one(Job, ours.ids["job_id"])
        job.state = JobState.FAILED
        await reactions.on_result(session, job, JobResult(job_id=job.id, state=ResultState.FAILED))

    (told,) = await market.log(webhook_id, ours.headers[Role.CLIENT])
    assert (told["event"], json.loads(told["body"])["data"]["account_id"]) == ("job.failed", ours.ids["account_id"])
    assert await market.log(other, foreign.headers[Role.CLIENT]) == []


async def test_message_that_waits_when_its_account_goes_to_another_is_neither_sent_nor_shown(market: Market) -> None:
    ours, foreign = market.ours, market.foreign
    roles = (Role.RESELLER, Role.CLIENT)
    own = {role: await market.add(ours.headers[role]) for role in roles}
    await market.label(ours)
    waiting = {role: (await market.log(own[role], ours.headers[role]))[0]["id"] for role in roles}
    new = await market.add(foreign.headers[Role.CLIENT])

    await market.give_away()

    for role in roles:
        shown = await market.log(own[role], ours.headers[role])
        assert [item["event"] for item in shown] == ["account.lose"]
        await market.ask("GET", f"/deliveries/{waiting[role]}", ours.headers[role], expect=404)
        await market.ask("POST", f"/deliveries/{waiting[role]}/replay", ours.headers[role], expect=404)
    await market.send()
    await market.label(ours)  # from now on nothing more
    await market.send()
    sent = [json.loads(body) for _headers, body in market.receiver.got]
    assert sorted(message["type"] for message in sent) == [
        "account.lose", "account.lose", "account.transfer", "account.update",
    ]  # fmt: skip
    (moved,) = [message for message in sent if message["type"] == "account.transfer"]
    assert moved["data"]["before"] is None and moved["data"]["after"]["client_id"] == foreign.ids["client_id"]
    former = (ours.reseller_id, ours.ids["client_id"], ours.ids["package_id"])
    assert [secret for secret in former if secret in json.dumps(moved)] == []
    lost = [json.dumps(message) for message in sent if message["type"] == "account.lose"]
    assert not any(foreign.ids["client_id"] in text or foreign.reseller_id in text for text in lost)
    assert len(await market.log(new, foreign.headers[Role.CLIENT])) == 2
    for role in roles:
        kept = await market.ask("GET", f"/deliveries/{waiting[role]}", market.admin)
        assert (kept["state"], kept["body"]) == ("withdrawn", "")
        await market.ask("POST", f"/deliveries/{waiting[role]}/replay", market.admin, expect=409)


async def test_message_that_was_sent_is_not_replayed_once_its_client_goes_to_another_reseller(market: Market) -> None:
    ours, foreign = market.ours, market.foreign
    webhook_id = await market.add(ours.headers[Role.RESELLER])
    of_client = await market.add(ours.headers[Role.CLIENT])
    await market.label(ours)
    await market.send()
    (sent,) = await market.log(webhook_id, ours.headers[Role.RESELLER])
    new = await market.add(foreign.headers[Role.RESELLER])

    body = {"reseller_id": foreign.reseller_id, "package_id": foreign.ids["package_id"]}
    await market.ask("POST", f"/clients/{ours.ids['client_id']}/transfer", market.admin, body, expect=202)

    await market.ask("POST", f"/deliveries/{sent['id']}/replay", ours.headers[Role.RESELLER], expect=404)
    shown = await market.log(webhook_id, ours.headers[Role.RESELLER])
    assert [item["event"] for item in shown] == ["reseller.lose_client"]
    gained = await market.log(new, foreign.headers[Role.RESELLER])
    assert "client.transfer" in [item["event"] for item in gained]
    assert ours.reseller_id not in json.dumps(gained)
    moved = await market.log(of_client, ours.headers[Role.CLIENT])  # the client keeps what is its own
    assert {"account.update", "client.transfer"} <= {item["event"] for item in moved}
    assert ours.reseller_id not in json.dumps(moved)


async def test_private_network_of_the_operator_is_closed_for_tenants(market: Market) -> None:
    inner, reseller = "http://10.1.2.3/hook", market.ours.headers[Role.RESELLER]
    await market.add(market.admin, url=inner)
    refused = await market.ask("POST", "/webhooks", reseller, {"url": inner, "events": ["*"]}, expect=400)
    webhook_id = await market.add(reseller)

    for headers in (reseller, market.admin):  # whoever changes it, it is a tenant's
        await market.ask("PATCH", f"/webhooks/{webhook_id}", headers, {"url": inner}, expect=400)
    async with market.controller.database.write() as session:  # as if its name led there later
        whose = WebhookEndpoint.id == webhook_id
        await session.execute(update(WebhookEndpoint).where(whose).values(url=inner))
    await market.label(market.ours)
    await market.send()

    assert "may not reach" in refused["errors"][0]["message"] or "may not reach" in refused["detail"]
    (tried,) = await market.log(webhook_id, reseller)
    assert "may not reach" in tried["attempts"][0]["error"]


async def test_webhooks_of_a_tenant_are_limited_however_many_ask_at_once(market: Market) -> None:
    reseller = market.ours.headers[Role.RESELLER]
    body = {"url": PUBLIC, "events": ["account.*"]}

    answers = await asyncio.gather(
        *(market.http.post(f"{API}/webhooks", json=body, headers=reseller) for _ in range(TENANT_ENDPOINTS_MAX + 3))
    )

    # One came with what every tenant of these tests has.
    assert sorted(answer.status_code for answer in answers) == [201] * (TENANT_ENDPOINTS_MAX - 1) + [409] * 4
    await market.add(market.ours.headers[Role.CLIENT], url=PUBLIC)
    await market.add(market.admin, url=PUBLIC)


async def test_event_that_is_not_for_tenants_cannot_be_asked_for(market: Market) -> None:
    reseller = market.ours.headers[Role.RESELLER]
    for event in ("node.*", "account.set_note", "user.create"):
        body = {"url": PUBLIC, "events": [event]}
        refused = await market.ask("POST", "/webhooks", reseller, body, expect=400)
        assert refused["errors"][0]["field"] == "events.0"
    webhook_id = await market.add(reseller, "account.*")
    await market.ask("PATCH", f"/webhooks/{webhook_id}", market.admin, {"events": ["node.*"]}, expect=400)


async def test_owner_cannot_be_named_and_a_member_has_no_webhooks(market: Market) -> None:
    reseller, member = market.ours.headers[Role.RESELLER], market.ours.headers[Role.MEMBER]
    body = {"url": PUBLIC, "events": ["*"], "reseller_id": market.foreign.reseller_id}
    await market.ask("POST", "/webhooks", reseller, body, expect=400)
    await market.ask("POST", "/webhooks", member, {"url": PUBLIC, "events": ["*"]}, expect=403)
    await market.ask("GET", "/webhooks", member, expect=403)


async def test_person_who_may_not_read_the_audit_log_gets_no_webhook_either(market: Market) -> None:
    async with market.controller.database.write() as session:
        role = CustomRole(name="hooks", level="reseller", permissions=["webhooks:write", "webhooks:read"])
        session.add(role)
        await session.flush()
        whose = User.id == market.ours.user_ids[Role.RESELLER]
        await session.execute(update(User).where(whose).values(role_id=role.id))

    await market.ask(
        "POST", "/webhooks", market.ours.headers[Role.RESELLER], {"url": PUBLIC, "events": ["*"]}, expect=403
    )


async def test_tenant_that_is_deleted_takes_its_webhooks_along(market: Market) -> None:
    made = {"name": "Short", "email": "s@example.com"}
    reseller_id = (await market.ask("POST", "/resellers", market.admin, made, expect=201))["id"]
    client_id = (await market.ask("POST", "/clients", market.admin, made, expect=201))["id"]
    async with market.controller.database.write() as session:
        for owner in ({"reseller_id": reseller_id}, {"client_id": client_id}):
            session.add(WebhookEndpoint(url=PUBLIC, events=["*"], secret="whsec_AA==", **owner))
    assert len((await market.ask("GET", f"/webhooks?client_id={client_id}", market.admin))["items"]) == 1

    await market.ask("DELETE", f"/clients/{client_id}", market.admin, expect=204)
    await market.ask("DELETE", f"/resellers/{reseller_id}", market.admin, expect=204)

    for query in (f"client_id={client_id}", f"reseller_id={reseller_id}"):
        assert (await market.ask("GET", f"/webhooks?{query}", market.admin))["items"] == []


async def test_webhook_that_is_paused_is_shown_to_its_tenant_and_to_no_other(market: Market) -> None:
    client = market.ours.headers[Role.CLIENT]
    webhook_id = await market.add(client)
    market.receiver.status = "410 Gone"
    await market.label(market.ours)
    await market.send()

    assert (await market.ask("GET", f"/webhooks/{webhook_id}", client))["state"] == "paused"
    for headers, expected in ((client, 1), (market.admin, 0), (market.foreign.headers[Role.CLIENT], 0)):
        items = (await market.ask("GET", "/attention?kind=tenant_webhook", headers))["items"]
        assert len(items) == expected
    await market.ask("POST", f"/webhooks/{webhook_id}/resume", client)
    market.receiver.status = "200 OK"
    await market.label(market.ours)
    await market.send()
    assert [item["state"] for item in await market.log(webhook_id, client)] == ["failed", "succeeded"]
