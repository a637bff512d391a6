"""What people are told of: who, what, once, and by mail through a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from controller.bootstrap import Controller
from controller.core.accounts.models import Account
from controller.core.auth.models import User
from controller.core.context import Actor, Role
from controller.core.mail.message import Mail
from controller.core.mail.sender import Mailer, SmtpMailer, SmtpServer
from controller.core.notices.collector import NoticeCollector
from controller.core.notices.models import MailState, Notice, NoticeMail
from controller.core.resellers.models import ResellerBranding
from controller.core.webhooks.models import WebhookEndpoint
from controller.db.base import utc_now
from controller.jobs.tasks import Tasks
from tests.integration.conftest import ADMIN, _add_admin, make_controller
from tests.integration.controller.noticing import Post, address_of, open_post
from tests.integration.controller.people import SECRET, World
from tests.integration.smtp_server import Inbox, running_smtp

SUSPENDED = {"suspension_reason": "unpaid since May", "liftable_by": "admin", "suspended_until": None}


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with running_smtp(tmp_path, "none") as running:
        yield running


@pytest.fixture
async def controller(database_url: str, tmp_path: Path, inbox: Inbox) -> AsyncIterator[Controller]:
    built = make_controller(database_url, tmp_path, **inbox.settings)
    await _add_admin(built)
    yield built
    await built.database.close()


@pytest.fixture
async def post(world: World, inbox: Inbox) -> Post:
    return await open_post(world, inbox)


class Dying:
    """A process that dies after the server took a mail and before anybody wrote that down."""

    is_configured = True

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self.has_died = False

    async def send(self, mail: Mail) -> None:
        await self._mailer.send(mail)
        if not self.has_died:
            self.has_died = True
            raise asyncio.CancelledError


class NoTasks(Tasks):
    """Dies at the last thing that a transaction does."""

    async def add(self, *_args: Any, **_kwargs: Any) -> str | None:
        raise asyncio.CancelledError


async def suspend(post: Post, account_id: str, name: str = "shop", **fields: Any) -> None:
    after = SUSPENDED | fields
    await post.tell("account.suspend", f"account/{account_id}", name, before={}, after=after)


# --- who is told ------------------------------------------------------------------------------------------------------


async def test_suspension_is_told_to_client_and_reseller_with_its_reason_and_to_no_foreign_tenant(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara"), address_of("rita")]
    mail = post.to(address_of("clara"))[0]
    text = mail.get_content()
    assert mail["Subject"] == "shop was suspended"
    assert "Reason: unpaid since May." in text
    assert "What to do: The administrators of the platform can lift it" in text
    assert "By: controller" in text
    assert "When: " in text
    for username in ("clara.f", "rita.f", "mel", "mel.f", "adam"):
        assert await post.notices_of(username) == []


async def test_team_member_is_told_of_the_accounts_of_the_team_alone(post: Post) -> None:
    ours, other = await post.add_account("shop"), await post.add_account("blog")
    await post.world.ask("root", "PUT", f"/accounts/{ours}/members/{post.world.ids['mel']}", expect=200)
    await suspend(post, ours)
    await suspend(post, other, "blog")

    await post.deliver(minutes=1)

    assert [row.title for row in await post.notices_of("mel")] == ["shop was suspended"]


async def test_person_whose_role_may_not_read_accounts_is_not_told_of_them(post: Post) -> None:
    account_id = await post.add_account()
    role_id = await post.world.add_role("Billing", Role.CLIENT, "packages:read")
    async with post.controller.database.write() as session:
        await session.execute(update(User).where(User.username == "clara").values(role_id=role_id))
    await suspend(post, account_id)

    await post.deliver(minutes=1)

    assert post.told() == [address_of("rita")]


async def test_own_act_is_told_to_the_others_and_not_to_oneself(post: Post) -> None:
    account_id = await post.add_account()
    rita = Actor(kind="user", id=post.world.ids["rita"], name="rita", role=Role.RESELLER)
    await post.tell("account.suspend", f"account/{account_id}", "shop", actor=rita, before={}, after=SUSPENDED)

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara")]


async def test_notice_of_an_account_that_went_to_another_client_meanwhile_stays_with_the_old_one(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)
    theirs = {"client_id": post.world.ids["foreign client"]}
    await post.tell("account.transfer", f"account/{account_id}", "shop", before={}, after=theirs)
    async with post.controller.database.write() as session:
        await session.execute(update(Account).where(Account.id == account_id).values(**theirs))

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara"), address_of("rita")]


async def test_disabled_person_is_told_nothing(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)
    await post.collector.run()
    async with post.controller.database.write() as session:
        await session.execute(update(User).where(User.username == "clara").values(disabled_at=utc_now()))
    await suspend(post, account_id)

    await post.deliver(minutes=1)

    assert post.told() == [address_of("rita")]
    assert [row.state for row in await post.mails_to(address_of("clara"))] == [MailState.DEAD]


# --- security ---------------------------------------------------------------------------------------------------------


async def test_sign_in_from_a_new_device_is_mailed_with_where_it_came_from(post: Post) -> None:
    usual = {"username": "clara", "password": SECRET}
    await post.world.http.post("/api/v1/auth/login", json=usual, headers={"user-agent": "another device"})
    post.world.http.cookies.clear()
    await post.world.sign_in("rita")

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara")]
    text = post.inbox.mails[0].get_content()
    assert "with a device that you did not use before" in text
    assert "From: 127.0.0.1" in text
    assert "wcp360 sessions revoke-other" in text


async def test_address_when_it_changes_is_told_to_the_old_and_to_the_new_one(post: Post) -> None:
    body = {"email": "New@example.com", "password": SECRET}
    await post.world.ask("clara", "PUT", "/auth/email", body, expect=200)

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara"), "new@example.com"]
    assert len(await post.notices_of("clara")) == 1
    text = post.to(address_of("clara"))[0].get_content()
    assert "went to clara@example.com and go to new@example.com now" in text


async def test_password_when_changed_is_told_though_it_is_ones_own_act(post: Post) -> None:
    body = {"current_password": SECRET, "new_password": "another long password"}
    await post.world.ask("clara", "POST", "/auth/password", body, expect=204)

    await post.deliver(minutes=1)

    assert [mail["Subject"] for mail in post.to(address_of("clara"))] == ["Password of clara changed"]


async def test_token_when_made_is_told_to_whose_it_is(post: Post) -> None:
    made = await post.world.ask("clara", "POST", "/tokens", {"name": "robot", "scopes": ["accounts:read"]}, expect=201)

    await post.deliver(minutes=1)

    text = post.to(address_of("clara"))[0].get_content()
    assert "It may: accounts:read" in text
    assert f"wcp360 tokens revoke {made['token']['id'] if 'id' not in made else made['id']}" in text.replace("\n", " ")


async def test_view_as_somebody_is_told_to_them_without_the_administrators_address(post: Post) -> None:
    path = f"/users/{post.world.ids['clara']}/impersonate"
    await post.world.ask("adam", "POST", path, {"reason": "ticket 4711"}, expect=201)

    await post.deliver(minutes=1)

    text = post.to(address_of("clara"))[0].get_content()
    assert "adam began to see and use the panel as clara. Reason: ticket 4711." in text
    assert "From:" not in text


async def test_viewer_of_somebody_can_neither_hide_notices_nor_switch_them_off(post: Post) -> None:
    path = f"/users/{post.world.ids['clara']}/impersonate"
    begun = await post.world.ask("adam", "POST", path, {"reason": "ticket 4711"}, expect=201)
    post.world.headers["view"] = {"authorization": f"Bearer {begun['token']}"}

    await post.world.ask("view", "POST", "/notices/read", {}, expect=403)
    await post.world.ask("view", "PATCH", "/notice-preferences/suspension", {"is_mailed": False}, expect=403)


# --- once, whatever dies ----------------------------------------------------------------------------------------------


async def test_event_is_told_once_however_often_and_by_how_many_it_is_looked_for(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)

    await asyncio.gather(*(post.collector.run() for _ in range(4)))
    await asyncio.gather(*(post.deliver(minutes=1) for _ in range(4)))
    await post.deliver(hours=1)

    assert post.told() == [address_of("clara"), address_of("rita")]
    assert [len(await post.notices_of(name)) for name in ("clara", "rita")] == [1, 1]


async def test_notices_when_the_collector_dies_before_its_commit_are_written_by_the_next(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)

    dying = NoticeCollector(post.controller.operations, NoTasks(post.controller.database), post.terms)
    with pytest.raises(asyncio.CancelledError):
        await dying.run()
    assert await post.rows(Notice, Notice.kind == "suspension") == []

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara"), address_of("rita")]


async def test_mail_when_the_process_dies_after_handing_it_over_goes_again_under_the_same_id(post: Post) -> None:
    await post.world.ask("clara", "POST", "/tokens", {"name": "robot", "scopes": ["*"]}, expect=201)
    post.mailer = Dying(post.mailer)
    with pytest.raises(asyncio.CancelledError):
        await post.deliver(minutes=1)
    await post.deliver(minutes=1)
    assert len(post.inbox.mails) == 1

    await post.deliver(minutes=10)
    await post.deliver(hours=1)

    assert len(post.inbox.mails) == 2
    assert len({mail["Message-ID"] for mail in post.inbox.mails}) == 1


# --- the server -------------------------------------------------------------------------------------------------------


async def test_mail_when_the_server_is_not_there_is_tried_again_and_shown(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)
    post.inbox.answer = "451 greylisted"
    await post.deliver(minutes=1)
    waiting = (await post.world.ask("clara", "GET", "/notices", expect=200))["items"][0]["mails"][0]
    post.inbox.answer = ""

    await post.deliver(minutes=2)

    assert (waiting["state"], waiting["error"][:35]) == ("pending", "the mail server did not take the ma")
    assert post.told() == [address_of("clara"), address_of("rita")]
    sent = (await post.world.ask("clara", "GET", "/notices", expect=200))["items"][0]["mails"][0]
    assert (sent["state"], sent["error"], sent["sent_at"] is not None) == ("sent", "", True)


async def test_mail_when_nobody_took_it_for_days_is_dead_until_an_administrator_retries_it(post: Post) -> None:
    account_id = await post.add_account()
    await suspend(post, account_id)
    post.inbox.answer = "451 later"
    for _ in range(5):
        await post.deliver(hours=20)
    post.inbox.answer = ""
    await post.deliver(hours=20)
    assert post.inbox.mails == []
    path = "/notice-mails?state=dead"
    dead = (await post.world.ask("root", "GET", path, expect=200))["items"]
    assert sorted(item["address"] for item in dead) == [address_of("clara"), address_of("rita")]
    assert all("451" in item["error"] and item["next_at"] is None for item in dead)

    await post.world.ask("root", "POST", f"/notice-mails/{dead[0]['id']}/retry", expect=200)
    await post.world.ask("root", "POST", f"/notice-mails/{dead[0]['id']}/retry", expect=409)
    await post.deliver()

    assert post.told() == [dead[0]["address"]]


async def test_mail_when_the_server_refuses_it_for_good_is_dead_at_once(post: Post) -> None:
    await suspend(post, await post.add_account())
    post.inbox.answer = "550 no such person"

    await post.deliver(minutes=1)

    assert {row.state for row in await post.rows(NoticeMail)} == {MailState.DEAD}


async def test_mails_when_the_controllers_own_address_is_wrong_are_kept(post: Post) -> None:
    await suspend(post, await post.add_account())
    post.mailer = SmtpMailer(SmtpServer(host="localhost", port=post.inbox.port, tls="none", sender="panel"))

    await post.deliver(minutes=1)

    assert {(row.state, row.attempts) for row in await post.rows(NoticeMail)} == {(MailState.PENDING, 1)}


async def test_server_that_takes_nothing_is_asked_for_few_mails_in_one_run(post: Post) -> None:
    account_id = await post.add_account()
    for name in ("clara", "rita"):
        await post.tell("user.reset_password", f"user/{post.world.ids[name]}", name)
        await post.tell("user.set_networks", f"user/{post.world.ids[name]}", name, after={"allow": [], "deny": []})
    await suspend(post, account_id)
    post.inbox.answer = "451 later"

    await post.deliver(minutes=1)

    assert sum(row.attempts for row in await post.rows(NoticeMail)) == 3


# --- floods -----------------------------------------------------------------------------------------------------------


async def test_notices_of_one_kind_within_its_window_are_one_mail(post: Post) -> None:
    account_id = await post.add_account()
    for number in range(40):
        await suspend(post, account_id, f"shop{number}")
    await post.deliver(minutes=1)
    await suspend(post, account_id, "late")
    await post.deliver(minutes=2)
    first = post.to(address_of("clara"))

    await post.deliver(minutes=10)

    assert [mail["Subject"] for mail in first] == ["40 notices: shop0 was suspended"]
    assert "And 10 more" in first[0].get_content()
    assert [mail["Subject"] for mail in post.to(address_of("clara"))[1:]] == ["late was suspended"]
    assert len(await post.notices_of("clara")) == 41


async def test_mails_beyond_the_hours_cap_become_one_later_and_security_is_not_held_back(post: Post) -> None:
    post.per_hour_max = 1
    account_id = await post.add_account()
    await suspend(post, account_id)
    await post.deliver(minutes=1)
    await post.tell("account.trash", f"account/{account_id}", "shop", after={"purge_at": "2026-12-01"})
    limit = {"limit": "sites", "used": 6, "soft": None, "hard": 5}
    await post.tell("account.over_limit", f"account/{account_id}", "shop", after=limit)
    await post.world.ask("clara", "POST", "/tokens", {"name": "robot", "scopes": ["*"]}, expect=201)
    await post.deliver(minutes=5)
    subjects = [mail["Subject"] for mail in post.to(address_of("clara"))]
    await post.tell("account.restore", f"account/{account_id}", "shop")

    await post.deliver(minutes=61)

    assert subjects == ["shop was suspended", "API token robot made"]
    late = post.to(address_of("clara"))[2:]
    assert [mail["Subject"] for mail in late] == ["3 notices: shop will be deleted"]
    assert "uses 6 of 5 (sites)" in late[0].get_content()


async def test_what_needs_attention_is_one_notice_to_administrators_and_is_told_once(post: Post) -> None:
    async with post.controller.database.write() as session:
        for number in range(30):
            session.add(
                WebhookEndpoint(
                    url=f"https://hook{number}.example/", events=["*"], secret="s", paused_at=utc_now(),
                    pause_reason="it answered 410",
                )
            )  # fmt: skip
    await asyncio.gather(*(post.collector.run_attention() for _ in range(3)))
    await post.collector.run_attention()

    await post.deliver(minutes=5)

    assert post.told() == [address_of("adam"), address_of(ADMIN)]
    assert post.inbox.mails[0]["Subject"].startswith("30 things need attention: the webhook")
    assert "and 10 more" in post.inbox.mails[0].get_content()


# --- words ------------------------------------------------------------------------------------------------------------


async def test_mail_to_a_resellers_people_bears_the_resellers_name_and_the_controllers_address(post: Post) -> None:
    async with post.controller.database.write() as session:
        session.add(
            ResellerBranding(
                reseller_id=post.world.ids["ours reseller"], name="Hörnchen Hosting", support_email="help@shop.example",
                host="panel.shop.example",
            )
        )  # fmt: skip
    await suspend(post, await post.add_account())
    await suspend(post, await post.add_account("theirs", whose="foreign"), "theirs")

    await post.deliver(minutes=1)

    mail, foreign = post.to(address_of("clara"))[0], post.to(address_of("clara.f"))[0]
    assert mail["From"] == "Hörnchen Hosting <panel@example.com>"
    assert mail["Reply-To"] == "help@shop.example"
    assert "https://panel.shop.example:8360" in mail.get_content()
    assert (foreign["From"], foreign["Reply-To"]) == ("foreign <panel@example.com>", None)


async def test_line_breaks_in_names_and_reasons_make_neither_headers_nor_lines(post: Post) -> None:
    account_id = await post.add_account()
    evil = "shop\r\nBcc: all@example.com\r\n\r\nHello"
    await suspend(post, account_id, evil, suspension_reason="unpaid\nBy: the bank\x1b[2J")
    async with post.controller.database.write() as session:
        session.add(
            ResellerBranding(reseller_id=post.world.ids["ours reseller"], name='A" <x@y.example>\r\nBcc: z@z.z')
        )

    await post.deliver(minutes=1)

    assert post.told() == [address_of("clara"), address_of("rita")]
    mail = post.to(address_of("clara"))[0]
    assert mail["Bcc"] is None
    assert mail["From"].addresses[0].addr_spec == "panel@example.com"
    lines = mail.get_content().splitlines()
    assert [line for line in lines if line.startswith("By: ")] == ["By: controller"]
    assert "\x1b" not in mail.get_content()


# --- the inbox, and what one wants --------------------------------------------------------------------------------------


async def test_inbox_is_paged_counted_and_marked_as_read(post: Post) -> None:
    account_id = await post.add_account()
    for number in range(3):
        await suspend(post, account_id, f"shop{number}")
    await post.collector.run()

    first = await post.world.ask("clara", "GET", "/notices?limit=2", expect=200)
    rest = await post.world.ask("clara", "GET", f"/notices?limit=2&cursor={first['next_cursor']}", expect=200)
    ids = [item["id"] for item in (*first["items"], *rest["items"])]
    some = await post.world.ask("clara", "POST", "/notices/read", {"ids": ids[:1]}, expect=200)
    unread = await post.world.ask("clara", "GET", "/notices?unread=true", expect=200)
    every = await post.world.ask("clara", "POST", "/notices/read", {}, expect=200)

    assert [item["title"] for item in (*first["items"], *rest["items"])] == [
        f"shop{number} was suspended" for number in (2, 1, 0)
    ]
    assert (first["unread"], rest["next_cursor"], some) == (3, None, {"read": 1, "unread": 2})
    assert [item["id"] for item in unread["items"]] == ids[1:]
    assert every == {"read": 2, "unread": 0}
    shown = await post.world.ask("clara", "GET", f"/notices/{ids[0]}", expect=200)
    assert shown["read_at"] is not None


async def test_notice_of_somebody_else_is_not_found_and_not_marked(post: Post) -> None:
    await suspend(post, await post.add_account())
    await post.collector.run()
    notice_id = (await post.notices_of("clara"))[0].id

    for who in ("rita", "clara.f", "adam"):
        await post.world.ask(who, "GET", f"/notices/{notice_id}", expect=404)
        answer = await post.world.ask(who, "POST", "/notices/read", {"ids": [notice_id]}, expect=200)
        assert answer["read"] == 0
    assert (await post.notices_of("clara"))[0].read_at is None
    for who in ("rita", "clara", "mel"):
        await post.world.ask(who, "GET", "/notice-mails", expect=403)


async def test_kind_that_somebody_switched_off_is_in_the_inbox_alone(post: Post) -> None:
    await post.world.ask("clara", "PATCH", "/notice-preferences/suspension", {"is_mailed": False}, expect=200)
    await suspend(post, await post.add_account())

    await post.deliver(minutes=1)

    assert post.told() == [address_of("rita")]
    assert (await post.world.ask("clara", "GET", "/notices", expect=200))["items"][0]["mails"] == []
    listed = (await post.world.ask("clara", "GET", "/notice-preferences", expect=200))["items"]
    assert {item["kind"]: item["is_mailed"] for item in listed}["suspension"] is False


async def test_security_notices_cannot_be_switched_off(post: Post) -> None:
    problem = await post.world.ask("clara", "PATCH", "/notice-preferences/sign_in", {"is_mailed": False}, expect=409)

    assert problem["code"] == "notice_required"
    await post.world.ask("clara", "PATCH", "/notice-preferences/attention", {"is_mailed": False}, expect=404)
    kinds = {item["kind"] for item in (await post.world.ask("adam", "GET", "/notice-preferences", expect=200))["items"]}
    assert {"attention", "rollouts", "password"} <= kinds
    assert "suspension" not in kinds


async def test_test_mail_arrives_and_says_what_became_of_it(post: Post) -> None:
    made = await post.world.ask("rita", "POST", "/notices/test", expect=200)
    await post.controller.tasks.run_due()

    shown = await post.world.ask("rita", "GET", f"/notices/{made['id']}", expect=200)
    assert post.told() == [address_of("rita")]
    assert [copy["state"] for copy in shown["mails"]] == ["sent"]


async def test_notices_when_they_are_old_are_forgotten_with_their_mails(post: Post) -> None:
    await suspend(post, await post.add_account())
    await post.deliver(minutes=1)

    post.late_by = timedelta(days=200)
    await post.deliveries.forget_old()

    assert (await post.rows(Notice), await post.rows(NoticeMail)) == ([], [])


async def test_event_that_is_days_old_is_in_the_inbox_and_not_mailed(post: Post) -> None:
    await suspend(post, await post.add_account())
    post.late_by = timedelta(days=4)

    await post.deliver()

    assert post.told() == []
    assert len(await post.notices_of("clara")) == 1
