"""Rules from the event to what they do: once, as their maker may, never for ever, and never for somebody else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from controller.core.accounts.models import Account
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.context import Role
from controller.core.operations import FleetContext
from controller.core.reactions import Reactions
from controller.core.rules.following import DEPTH_MAX, RuleBook
from controller.core.rules.models import Rule, RuleRun, RunState
from controller.core.rules.runner import ATTEMPTS_MAX, RuleRunner
from controller.core.rules.service import RESELLER_RULES_MAX
from controller.core.webhooks.models import WebhookDelivery
from controller.db.base import utc_now
from controller.jobs.models import Job
from controller.jobs.states import JobState
from controller.jobs.work_models import Task, TaskState
from shared.protocol.job import JobResult
from shared.protocol.job import JobState as ResultState
from tests.integration.conftest import FAST_HASHER
from tests.integration.controller.market import Market, open_market

PAGE = Path(__file__).resolve().parents[3] / "docs/operations/rules.md"
SPAM = [{"field": "after.labels.spam", "operator": "equals", "value": "yes"}]
SUSPEND = {"type": "suspend_account", "reason": "sends spam"}


@pytest.fixture
async def market(database_url: str, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(database_url, tmp_path) as opened:
        yield opened


async def add_rule(
    market: Market, name: str = "spam", headers: dict[str, str] | None = None, *, expect: int = 201, **fields: Any
) -> Any:
    body = {"name": name, "events": ["account.update"], "conditions": SPAM, "action": SUSPEND, **fields}
    return await market.ask("POST", "/rules", headers or market.admin, body, expect=expect)


async def set_labels(market: Market, account_id: str, headers: dict[str, str] | None = None, **labels: str) -> None:
    await market.ask("PATCH", f"/accounts/{account_id}", headers or market.admin, {"labels": labels}, expect=202)


async def work(market: Market) -> None:
    """What the workers do, until no rule has anything left to do."""
    for _round in range(30):
        async with market.controller.database.write() as session:
            waits = update(RuleRun).where(RuleRun.state == RunState.PENDING).values(next_at=utc_now())
            if not (await session.execute(waits)).rowcount:  # type: ignore[attr-defined]
                return
            await session.execute(update(Task).where(Task.state == TaskState.QUEUED).values(run_at=utc_now()))
        await market.controller.schedules._schedules["rules.run"].run()
        await market.controller.tasks.run_due()
    raise AssertionError("rules do not come to an end")


async def runs_of(market: Market, rule: Any, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Oldest first."""
    answer = await market.ask("GET", f"/rules/{rule['id']}/runs", headers or market.admin)
    return list(reversed(answer["items"]))


async def account_of(market: Market, account_id: str) -> Account:
    async with market.controller.database.read() as session:
        return await session.get_one(Account, account_id)


async def test_rule_when_its_event_comes_acts_once_as_an_actor_of_its_own(market: Market) -> None:
    account_id, other_id = market.ours.ids["account_id"], market.foreign.ids["account_id"]
    rule = await add_rule(market)
    await set_labels(market, other_id, spam="no")
    await set_labels(market, account_id, spam="yes")
    await work(market)

    account = await account_of(market, account_id)
    assert (account.state.value, account.suspension_reason) == ("suspended", "sends spam")
    assert account.suspended_by == "rule/spam"
    (run,) = await runs_of(market, rule)
    assert (run["state"], run["depth"], run["attempts"]) == ("done", 0, 1)
    async with market.controller.database.read() as session:
        entries = (await session.scalars(select(AuditEntry).where(AuditEntry.actor == "rule/spam"))).all()
        jobs = (await session.scalars(select(Job).where(Job.actor == "rule/spam"))).all()
    assert [(entry.action, entry.request_id) for entry in entries] == [("account.suspend", run["request_id"])]
    assert len(jobs) == 1
    assert (await account_of(market, other_id)).state.value == "active"


async def test_suspension_of_a_rule_is_lifted_by_a_rule_and_that_of_a_person_is_not(market: Market) -> None:
    ours, foreign = market.ours.ids["account_id"], market.foreign.ids["account_id"]
    await add_rule(market)
    clean = [{"field": "after.labels.spam", "operator": "exists", "value": False}]
    lifting = await add_rule(market, "clean", conditions=clean, action={"type": "unsuspend_account", "rule": "spam"})
    await set_labels(market, ours, spam="yes")
    await market.ask("POST", f"/accounts/{foreign}/suspend", market.admin, {"reason": "unpaid"}, expect=202)
    await work(market)
    assert (await account_of(market, ours)).state.value == "suspended"

    for account_id in (ours, foreign):
        await set_labels(market, account_id, checked="today")
    await work(market)

    assert (await account_of(market, ours)).state.value == "active"
    assert (await account_of(market, foreign)).state.value == "suspended"
    assert [run["state"] for run in await runs_of(market, lifting)] == ["done", "skipped"]


async def test_run_when_several_processes_have_it_at_once_or_again_is_done_once(market: Market) -> None:
    await add_rule(market)
    await set_labels(market, market.ours.ids["account_id"], spam="yes")
    async with market.controller.database.read() as session:
        (run_id,) = (await session.scalars(select(RuleRun.id))).all()
    runners = [RuleRunner(market.controller.database, market.controller.operations) for _ in range(4)]

    await asyncio.gather(*(runner._execute(run_id) for runner in runners))
    await runners[0]._execute(run_id)

    async with market.controller.database.read() as session:
        of_rule = select(func.count()).select_from(AuditEntry).where(AuditEntry.actor == "rule/spam")
        assert (await session.scalars(of_rule)).one() == 1
        assert (await session.get_one(RuleRun, run_id)).state is RunState.DONE


async def test_run_whose_process_dies_before_the_commit_has_done_nothing_and_is_done_later(market: Market) -> None:
    account_id = market.ours.ids["account_id"]
    rule = await add_rule(market)
    await set_labels(market, account_id, spam="yes")
    deaths: list[str] = []

    async def die_once(ctx: FleetContext) -> None:
        if ctx.actor.kind == "rule" and not deaths:
            deaths.append(ctx.request_id)
            raise RuntimeError("killed")

    market.controller.operations.on_change(die_once)
    await market.controller.tasks.run_due()
    assert deaths and (await account_of(market, account_id)).state.value == "active"
    await work(market)

    assert (await account_of(market, account_id)).state.value == "suspended"
    (run,) = await runs_of(market, rule)
    assert (run["state"], run["attempts"]) == ("done", 2)


async def test_run_that_kills_its_process_each_time_is_given_up(market: Market) -> None:
    rule = await add_rule(market)
    await set_labels(market, market.ours.ids["account_id"], spam="yes")

    async def die(ctx: FleetContext) -> None:
        if ctx.actor.kind == "rule":
            raise RuntimeError("killed")

    market.controller.operations.on_change(die)
    runner = RuleRunner(market.controller.database, market.controller.operations)
    async with market.controller.database.read() as session:
        (run_id,) = (await session.scalars(select(RuleRun.id))).all()
    for _attempt in range(ATTEMPTS_MAX):
        with pytest.raises(RuntimeError):
            await runner._execute(run_id)
    await runner._execute(run_id)

    (run,) = await runs_of(market, rule)
    assert (run["state"], run["attempts"]) == ("failed", ATTEMPTS_MAX)


async def test_rules_that_lead_to_each_other_are_stopped_and_say_so(market: Market) -> None:
    account_id = market.ours.ids["account_id"]
    rules = []
    for name, seen, wanted in (("ping", "a", "b"), ("pong", "b", "a")):
        when = [{"field": "after.labels.ball", "operator": "equals", "value": seen}]
        action = {"type": "set_label", "label": "ball", "value": wanted}
        rules.append(await add_rule(market, name, conditions=when, action=action))
    await set_labels(market, account_id, ball="a")
    await work(market)

    runs = sorted([run for rule in rules for run in await runs_of(market, rule)], key=lambda run: run["depth"])
    assert [run["state"] for run in runs] == ["done"] * (DEPTH_MAX + 1) + ["stopped"]
    assert [run["depth"] for run in runs] == list(range(DEPTH_MAX + 2))
    assert "the chain ends here" in runs[-1]["outcome"]


async def test_rule_that_applies_too_often_is_paused_until_somebody_looked(market: Market) -> None:
    rule = await add_rule(
        market, "often", conditions=[], action={"type": "set_label", "label": "seen", "value": "yes"}, runs_per_hour=2
    )
    ids = (market.ours.ids["account_id"], market.foreign.ids["account_id"])
    for number in range(3):
        for account_id in ids:
            await set_labels(market, account_id, number=str(number))
    await work(market)

    shown = await market.ask("GET", f"/rules/{rule['id']}", market.admin)
    assert shown["state"] == "paused" and "more than 2 times" in shown["pause_reason"]
    assert {run["state"] for run in await runs_of(market, rule)} == {"skipped"}
    assert len(await runs_of(market, rule)) == 3  # what came after the pause was due is not even kept
    (item,) = (await market.ask("GET", "/attention?kind=rule", market.admin))["items"]
    assert item["id"] == f"rule.{rule['id']}"

    await market.ask("POST", f"/rules/{rule['id']}/resume", market.admin)
    await market.ask("POST", f"/rules/{rule['id']}/resume", market.admin, expect=409)
    await set_labels(market, ids[0], number="9")
    await work(market)
    assert (await account_of(market, ids[0])).labels["seen"] == "yes"
    assert (await market.ask("GET", "/attention?kind=rule", market.admin))["items"] == []


async def add_admin(market: Market, name: str, scopes: tuple[str, ...] = ("*",)) -> tuple[dict[str, str], str]:
    """Headers and id."""
    secret = new_secret(TOKEN_PREFIX)
    async with market.controller.database.write() as session:
        user = User(username=name, password_hash=FAST_HASHER.hash("a long password"), role=Role.ADMIN.value)
        session.add(user)
        await session.flush()
        token = ApiToken(user_id=user.id, name=name, secret_hash=hash_secret(secret), scopes=list(scopes))
        session.add(token)
    return {"authorization": f"Bearer {secret}"}, user.id


@pytest.mark.parametrize("loss", ["deleted", "disabled", "demoted", "moved"])
async def test_rule_whose_maker_lost_what_they_had_is_paused_and_does_nothing(market: Market, loss: str) -> None:
    headers, user_id = await add_admin(market, "grace")
    rule = await add_rule(market, headers=headers)
    account_id = market.ours.ids["account_id"]
    await set_labels(market, account_id, spam="yes")
    if loss == "deleted":
        await market.ask("DELETE", f"/users/{user_id}", market.admin, expect=204)
    else:
        lost: dict[str, dict[str, Any]] = {
            "disabled": {"disabled_at": utc_now()},
            "demoted": {"role": "client", "client_id": market.ours.ids["client_id"]},
            "moved": {"role": "reseller", "reseller_id": market.ours.reseller_id},
        }
        async with market.controller.database.write() as session:
            await session.execute(update(User).where(User.id == user_id).values(**lost[loss]))
    await work(market)

    assert (await account_of(market, account_id)).state.value == "active"
    shown = await market.ask("GET", f"/rules/{rule['id']}", market.admin)
    assert (shown["state"], "grace" in shown["pause_reason"]) == ("paused", True)
    assert [run["state"] for run in await runs_of(market, rule)] == ["skipped"]
    await market.ask("POST", f"/rules/{rule['id']}/resume", market.admin)  # somebody else answers for it now
    await set_labels(market, account_id, spam="yes", again="yes")
    await work(market)
    assert (await account_of(market, account_id)).state.value == "suspended"


async def test_rule_has_no_more_than_the_token_it_was_made_with(market: Market) -> None:
    headers, _user_id = await add_admin(market, "grace", ("rules:write", "rules:read", "webhooks:write"))
    await add_rule(market, headers=headers, expect=403)
    full, _user_id = await add_admin(market, "heidi")
    rule = await add_rule(market, headers=full)

    await market.ask("PATCH", f"/rules/{rule['id']}", headers, {"description": "mine"}, expect=403)
    async with market.controller.database.write() as session:  # as if a token with less had made it
        await session.execute(update(Rule).values(grants=["rules:write", "rules:read"]))
    await set_labels(market, market.ours.ids["account_id"], spam="yes")
    await work(market)

    assert (await market.ask("GET", f"/rules/{rule['id']}", market.admin))["state"] == "paused"
    assert (await account_of(market, market.ours.ids["account_id"])).state.value == "active"


async def test_rule_of_a_reseller_is_about_its_own_accounts_and_nobody_elses(market: Market) -> None:
    ours, foreign = market.ours, market.foreign
    reseller = ours.headers[Role.RESELLER]
    rule = await add_rule(market, headers=reseller)
    for tenant in (ours, foreign):
        await set_labels(market, tenant.ids["account_id"], spam="yes")
    await work(market)

    assert (await account_of(market, ours.ids["account_id"])).state.value == "suspended"
    assert (await account_of(market, foreign.ids["account_id"])).state.value == "active"
    assert len(await runs_of(market, rule, reseller)) == 1
    other = foreign.headers[Role.RESELLER]
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {"is_enabled": False}), ("DELETE", "", None), ("GET", "/runs", None),
        ("POST", "/resume", None), ("POST", "/try", {"audit_number": 1}),
    ):  # fmt: skip
        await market.ask(method, f"/rules/{rule['id']}{path}", other, body, expect=404)
    assert rule["id"] not in {one["id"] for one in (await market.ask("GET", "/rules", other))["items"]}
    for role in (Role.CLIENT, Role.MEMBER):
        await market.ask("GET", "/rules", ours.headers[role], expect=403)
    await market.ask("PATCH", f"/rules/{rule['id']}", market.admin, {"is_enabled": False}, expect=403)


async def test_rule_of_a_reseller_cannot_name_what_is_not_its_own(market: Market) -> None:
    reseller, foreign = market.ours.headers[Role.RESELLER], market.foreign
    webhook_id = await market.add(foreign.headers[Role.RESELLER])
    platform = await market.add(market.admin)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"action": {"type": "change_package", "package_id": foreign.ids["package_id"]}}, "action.package_id"),
        ({"action": {"type": "call_webhook", "webhook_id": webhook_id}}, "action.webhook_id"),
        ({"action": {"type": "call_webhook", "webhook_id": platform}}, "action.webhook_id"),
        ({"events": ["node.update"], "conditions": []}, "events.0"),
        ({"action": {"type": "suspend_account"}}, "action.reason"),
        ({"action": {**SUSPEND, "label": "x"}}, "action.label"),
        ({"conditions": [{"field": "after.note", "operator": "exists", "value": True}]}, "conditions.0.field"),
    ]
    for fields, field in wrong:
        problem = await add_rule(market, headers=reseller, expect=400, **fields)
        assert problem["errors"][0]["field"] == field
    await add_rule(
        market, headers=reseller, expect=403, events=["job.failed"], conditions=[], action={"type": "retry_job"}
    )
    assert [one for one in (await market.ask("GET", "/rules", reseller))["items"] if one["name"] == "spam"] == []


async def test_account_that_went_away_before_the_rule_acted_is_left_alone(market: Market) -> None:
    ours = market.ours
    rule = await add_rule(market, headers=ours.headers[Role.RESELLER])
    await set_labels(market, ours.ids["account_id"], spam="yes")
    await market.give_away()
    await work(market)

    assert (await account_of(market, ours.ids["account_id"])).state.value == "active"
    assert await runs_of(market, rule, ours.headers[Role.RESELLER]) == []
    (run,) = await runs_of(market, rule)
    assert (run["state"], run["error_code"]) == ("failed", "not_found")


async def test_rules_of_a_reseller_are_limited_and_go_with_it(market: Market) -> None:
    reseller = market.ours.headers[Role.RESELLER]
    body = {"events": ["account.update"], "action": SUSPEND}
    answers = await asyncio.gather(
        *(
            market.http.post("/api/v1/rules", json={"name": f"r{number}", **body}, headers=reseller)
            for number in range(RESELLER_RULES_MAX + 2)
        )
    )
    assert [answer.status_code for answer in answers].count(201) == RESELLER_RULES_MAX - 1  # one came with the tenant
    made = {"name": "Short", "email": "s@example.com"}
    reseller_id = (await market.ask("POST", "/resellers", market.admin, made, expect=201))["id"]
    async with market.controller.database.write() as session:
        session.add(
            Rule(
                name="x", owner=f"reseller/{reseller_id}", events=["*"], action=SUSPEND, runs_per_hour=1,
                maker_name="x", grants=[],
            )
        )  # fmt: skip

    await market.ask("DELETE", f"/resellers/{reseller_id}", market.admin, expect=204)

    async with market.controller.database.read() as session:
        left = select(func.count()).select_from(Rule).where(Rule.owner == f"reseller/{reseller_id}")
        assert (await session.scalars(left)).one() == 0


@pytest.mark.parametrize(
    "conditions",
    [
        [{"field": "id", "operator": "equals", "value": "1"}] * 21,
        [{"field": "x" * 201, "operator": "equals", "value": "1"}],
        [{"field": "id", "operator": "matches", "value": "(a+)+$"}],
        [{"field": "id", "operator": "equals", "value": "x" * 501}],
        [{"field": "id", "operator": "in", "value": ["x"] * 101}],
        [{"field": "id", "operator": "in", "value": [["x"]]}],
        [{"field": "id", "operator": "equals", "value": {"a": 1}}],
        [{"field": "__class__.__mro__", "operator": "exists", "value": True}],
        [{"field": "id", "operator": "equals", "value": "1", "or": []}],
    ],
)
async def test_condition_that_is_a_bomb_is_refused(market: Market, conditions: Any) -> None:
    await add_rule(market, conditions=conditions, expect=400)


async def test_try_says_what_the_rule_would_do_and_does_nothing(market: Market) -> None:
    account_id = market.ours.ids["account_id"]
    await set_labels(market, account_id, spam="yes", plan="a")
    await set_labels(market, account_id, spam="no", plan="a")
    label = {"type": "remove_label", "label": "plan"}
    rule = await add_rule(market, action=label)
    async with market.controller.database.read() as session:
        of_account = select(AuditEntry.number).where(AuditEntry.target == f"account/{account_id}")
        *_, first, second = (await session.scalars(of_account.order_by(AuditEntry.number))).all()

    fits = await market.ask("POST", f"/rules/{rule['id']}/try", market.admin, {"audit_number": first})
    differs = await market.ask("POST", f"/rules/{rule['id']}/try", market.admin, {"audit_number": second})
    other = await market.ask("POST", f"/rules/{rule['id']}/try", market.admin, {"audit_number": 1})
    for body in ({}, {"audit_number": 10**9}, {"audit_number": 1, "job_id": "x"}, {"job_id": "x"}):
        await market.ask("POST", f"/rules/{rule['id']}/try", market.admin, body, expect=400)

    assert (fits["would_run"], fits["error"]) == (True, "") and "removed the label plan" in fits["outcome"]
    assert fits["plan"]["changes"][0]["action"] == "account.update"
    assert (differs["would_run"], differs["conditions"][0]["found"], differs["plan"]) == (False, "no", None)
    assert other["is_followed"] is False
    assert (await account_of(market, account_id)).labels == {"spam": "no", "plan": "a"}
    assert await runs_of(market, rule) == []


async def test_rule_when_it_calls_a_webhook_sends_the_event_signed_to_that_one(market: Market) -> None:
    reseller = market.ours.headers[Role.RESELLER]
    webhook_id = await market.add(reseller, "package.delete")
    rule = await add_rule(market, headers=reseller, action={"type": "call_webhook", "webhook_id": webhook_id})
    await set_labels(market, market.ours.ids["account_id"], spam="yes")
    await work(market)
    await market.send()

    ((headers, raw),) = market.receiver.got
    body = json.loads(raw)
    assert headers["webhook-signature"].startswith("v1,")
    assert (body["type"], body["data"]["rule"], body["data"]["event"]) == ("rule.matched", "spam", "account.update")
    assert body["data"]["data"]["after"]["labels"] == {"spam": "yes"}
    assert [run["state"] for run in await runs_of(market, rule, reseller)] == ["done"]
    async with market.controller.database.read() as session:
        assert (await session.scalars(select(func.count()).select_from(WebhookDelivery))).one() >= 1


async def test_rule_when_a_job_failed_asks_for_it_again_and_knows_its_own_attempts(market: Market) -> None:
    rule = await add_rule(market, events=["job.failed"], conditions=[], action={"type": "retry_job"})
    reactions = Reactions()
    reactions.add(RuleBook(market.controller.tasks, market.controller.parts.dependencies["catalogue"]))
    async with market.controller.database.write() as session:
        job = await session.get_one(Job, market.ours.ids["job_id"])
        job.state, job.finished_at = JobState.FAILED, utc_now()
        await reactions.on_result(session, job, JobResult(job_id=job.id, state=ResultState.FAILED))
    await work(market)

    (run,) = await runs_of(market, rule)
    async with market.controller.database.read() as session:
        again = (await session.scalars(select(Job).where(Job.retry_of == market.ours.ids["job_id"]))).all()
    assert run["state"] == "done", run
    assert [(row.actor, row.request_id) for row in again] == [("rule/spam", run["request_id"])]


async def test_rule_waits_while_the_controller_is_in_maintenance(market: Market) -> None:
    rule = await add_rule(market)
    account_id = market.ours.ids["account_id"]
    await set_labels(market, account_id, spam="yes")
    await market.ask("POST", "/maintenance", market.admin, {"reason": "upgrade"})
    await market.controller.tasks.run_due()
    (run,) = await runs_of(market, rule)
    assert (run["state"], run["attempts"], (await account_of(market, account_id)).state.value) == (
        "pending", 0, "active",
    )  # fmt: skip

    await market.ask("DELETE", "/maintenance", market.admin)
    await work(market)
    assert (await account_of(market, account_id)).state.value == "suspended"


async def test_examples_of_the_documentation_are_accepted(market: Market) -> None:
    webhook_id = await market.add(market.admin)

    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    for example in examples:
        if "webhook_id" in example["action"]:
            example["action"]["webhook_id"] = webhook_id
        await market.ask("POST", "/rules", market.admin, example, expect=201)

    assert len(examples) == 4
