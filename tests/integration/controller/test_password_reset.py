"""A forgotten password: the mail, its link, and what strangers can make of either."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select, update

from controller.bootstrap import METADATA, Controller
from controller.core.audit.models import AuditEntry
from controller.core.auth.attempts import get_user_of
from controller.core.auth.models import PasswordReset, User
from controller.core.auth.resets import PasswordResets
from controller.core.auth.users import create_user
from controller.core.clients.models import Client
from controller.core.context import SYSTEM, Role
from controller.core.mail.message import Mail
from controller.core.operations import FleetContext
from controller.core.tenancy.models import Reseller
from controller.jobs.work_models import Task, TaskState
from controller.logs import configure_logging
from controller.mail_setup import make_mailer
from controller.settings import Settings
from shared.errors import UnavailableError
from tests.integration.conftest import ADMIN, FAST_HASHER, PASSWORD, _add_admin, make_controller
from tests.integration.controller.people import build_world
from tests.integration.controller.test_second_factor import enrol
from tests.integration.smtp_server import SECRET, Inbox, running_smtp

API = "/api/v1"
EMAIL = "ada@example.com"
OTHER = "another long password"
WEAK = "password123456"


@asynccontextmanager
async def mailing(database_url: str, folder: Path, inbox: Inbox) -> AsyncIterator[Controller]:
    """A controller that sends its mails there; its administrator has an address."""
    built = make_controller(database_url, folder, **inbox.settings)
    await _add_admin(built)
    async with built.database.write() as session:
        await session.execute(update(User).values(email=EMAIL))
    yield built
    await built.database.close()


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with running_smtp(tmp_path, "none") as running:
        yield running


@pytest.fixture
async def controller(database_url: str, tmp_path: Path, inbox: Inbox) -> AsyncIterator[Controller]:
    async with mailing(database_url, tmp_path, inbox) as built:
        yield built


async def ask(http: httpx.AsyncClient, name: str = ADMIN) -> httpx.Response:
    return await http.post(f"{API}/auth/password-reset", json={"username_or_email": name})


async def confirm(http: httpx.AsyncClient, token: str, password: str = OTHER) -> httpx.Response:
    return await http.post(f"{API}/auth/password-reset/confirm", json={"token": token, "password": password})


def token_of(inbox: Inbox, number: int = -1) -> str:
    text = inbox.mails[number].get_content()
    found = re.search(r"https://controller\.test:8360/reset-password#(\S+)", text)
    assert found is not None, text
    return found.group(1)


async def mailed(controller: Controller, http: httpx.AsyncClient, inbox: Inbox, name: str = ADMIN) -> str:
    """The token of a mail that was asked for."""
    count = len(inbox.mails)
    assert (await ask(http, name)).status_code == 204
    await controller.tasks.run_due()
    assert len(inbox.mails) == count + 1
    return token_of(inbox)


async def login(http: httpx.AsyncClient, password: str) -> httpx.Response:
    answer = await http.post(f"{API}/auth/login", json={"username": ADMIN, "password": password})
    http.cookies.clear()
    return answer


@pytest.mark.parametrize("tls", ["starttls", "implicit", "none"])
@pytest.mark.parametrize("name", [ADMIN, EMAIL.upper()])
async def test_reset_by_mail_gives_another_password_and_ends_all_sessions(
    database_url: str, tmp_path: Path, tls: str, name: str
) -> None:
    with running_smtp(tmp_path, tls) as inbox:
        async with mailing(database_url, tmp_path, inbox) as built:
            transport = httpx.ASGITransport(app=built.app.asgi)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
                session = (await login(http, PASSWORD)).json()["token"]
                token = await mailed(built, http, inbox, name)

                answer = await confirm(http, token)

                carried = await http.get(f"{API}/auth/me", headers={"authorization": f"Bearer {session}"})
                assert (answer.status_code, carried.status_code) == (204, 401)
                assert [(await login(http, word)).status_code for word in (PASSWORD, OTHER)] == [401, 200]
    assert (inbox.recipients, inbox.mails[0]["to"], inbox.mails[0]["from"]) == ([[EMAIL]], EMAIL, "panel@example.com")


async def test_link_when_used_replaced_old_or_made_up_is_refused(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    first = await mailed(controller, anonymous_client, inbox)
    second = await mailed(controller, anonymous_client, inbox)
    replaced = await confirm(anonymous_client, first)
    used = [await confirm(anonymous_client, second), await confirm(anonymous_client, second, "a third long password")]
    third = await mailed(controller, anonymous_client, inbox)
    async with controller.database.write() as session:
        await session.execute(update(PasswordReset).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    old = await confirm(anonymous_client, third, "a third long password")
    made_up = await confirm(anonymous_client, "wcr_made-up")

    assert [answer.status_code for answer in used] == [204, 400]
    for answer in (replaced, used[1], old, made_up):
        assert (answer.status_code, answer.json()["code"]) == (400, "reset_link_invalid")
        assert answer.json()["errors"][0]["field"] == "token"


async def test_link_when_the_password_is_weak_or_known_is_good_for_another_try(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    token = await mailed(controller, anonymous_client, inbox)

    answers = [await confirm(anonymous_client, token, word) for word in (WEAK, PASSWORD, OTHER)]

    assert [answer.status_code for answer in answers] == [400, 400, 204]
    assert [answer.json()["code"] for answer in answers[:2]] == ["password_too_weak", "password_reused"]


@pytest.mark.parametrize("who", ["adam", "rita", "clara", "mel"])
async def test_reset_by_mail_gives_everybody_another_password_and_only_their_own(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox, who: str
) -> None:
    world = await build_world(controller, anonymous_client)
    async with controller.database.write() as session:
        await session.execute(update(User).where(User.username == who).values(email="theirs@example.com"))

    answer = await confirm(world.http, await mailed(controller, world.http, inbox, who))

    assert answer.status_code == 204, answer.text
    await world.sign_in(who, OTHER)
    for other in {"adam", "rita", "clara", "mel", "clara.f"} - {who}:
        await world.ask(other, "GET", "/auth/me", expect=200)
    assert (await world.http.get(f"{API}/auth/me", headers=world.headers[who])).status_code == 401


@pytest.mark.parametrize("event_between", ["password", "email", "disabled"])
async def test_link_when_the_person_changed_meanwhile_is_worthless(
    controller: Controller, client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, inbox: Inbox,
    event_between: str,
) -> None:  # fmt: skip
    token = await mailed(controller, anonymous_client, inbox)
    if event_between == "password":
        body = {"current_password": PASSWORD, "new_password": OTHER}
        assert (await client.post(f"{API}/auth/password", json=body)).status_code == 204
    elif event_between == "email":
        body = {"email": "grace@example.com", "password": PASSWORD}
        assert (await client.put(f"{API}/auth/email", json=body)).status_code == 200
    else:
        async with controller.database.write() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

    answer = await confirm(anonymous_client, token, "a third long password")

    assert (answer.status_code, answer.json()["code"]) == (400, "reset_link_invalid")


async def test_reset_by_mail_leaves_the_second_factor_in_force(
    controller: Controller, client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    await enrol(client)
    token = await mailed(controller, anonymous_client, inbox)

    assert (await confirm(anonymous_client, token)).status_code == 204

    asked = await login(anonymous_client, OTHER)
    assert (asked.status_code, asked.json()["code"]) == (401, "second_factor_required")


async def test_question_for_a_name_of_nobody_is_the_same_work_and_the_same_answer(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    statements: list[str] = []

    @event.listens_for(controller.database.engine.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    await ask(anonymous_client, "warm-up")
    told: list[tuple[int, bytes, list[str]]] = []
    for name in (ADMIN, "nobody", EMAIL, "nobody@example.com"):
        statements.clear()
        answer = await ask(anonymous_client, name)
        told.append((answer.status_code, answer.content, list(statements)))
    await controller.tasks.run_due()

    assert all(one == told[0] for one in told)
    assert len(inbox.mails) == 2
    async with controller.database.read() as session:
        assert not any("nobody" in (row.target_name or "") for row in await session.scalars(select(AuditEntry)))


async def test_secret_of_a_link_is_in_the_mail_and_nowhere_else(
    controller: Controller, client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    log = io.StringIO()
    configure_logging("debug", "json", log)
    try:
        inbox.answer = "451 try later"
        await ask(anonymous_client)
        await controller.tasks.run_due()
        inbox.answer = ""
        async with controller.database.write() as session:
            await session.execute(update(Task).values(run_at=datetime.now(UTC)))
        await controller.tasks.run_due()
        token = token_of(inbox)
        assert (await confirm(anonymous_client, token)).status_code == 204
    finally:
        configure_logging("warning", "json")

    async with controller.database.read() as session:
        rows = [str(row) for table in METADATA.sorted_tables for row in await session.execute(select(table))]
        actions = set(await session.scalars(select(AuditEntry.action)))
    secret = token.removeprefix("wcr_")
    assert "451 try later" in log.getvalue()
    assert secret not in log.getvalue()
    assert not [row for row in rows if secret in row]
    assert {"user.send_password_reset", "user.reset_password_by_mail"} <= actions


async def test_mail_when_the_server_is_busy_is_tried_again_and_its_link_works(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    inbox.answer = "450 greylisted"
    await ask(anonymous_client)
    await controller.tasks.run_due()
    async with controller.database.write() as session:
        task = (await session.scalars(select(Task))).one()
        assert (task.state, task.attempts) == (TaskState.QUEUED, 1)
        task.run_at = datetime.now(UTC)
    inbox.answer = ""

    await controller.tasks.run_due()

    assert (await confirm(anonymous_client, token_of(inbox))).status_code == 204


async def test_mail_when_the_server_refuses_it_for_good_is_not_tried_again(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    inbox.answer = "550 no such mailbox"
    await ask(anonymous_client)

    await controller.tasks.run_due()

    async with controller.database.read() as session:
        task = (await session.scalars(select(Task))).one()
    assert (task.state, "550 no such mailbox" in task.message) == (TaskState.SUCCEEDED, True)


async def test_mails_to_one_person_have_a_measure_whoever_asks(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    for _ in range(2):
        for name in (ADMIN, EMAIL):
            await ask(anonymous_client, name)
            await controller.tasks.run_due()

    assert len(inbox.mails) == 3


async def test_questions_beyond_the_measure_are_refused_by_name_and_by_address(
    controller: Controller, anonymous_client: httpx.AsyncClient
) -> None:
    by_name = [(await ask(anonymous_client, "nobody")).status_code for _ in range(4)]
    by_address = [(await ask(anonymous_client, f"nobody{number}")).status_code for number in range(8)]
    tokens = [(await confirm(anonymous_client, f"wcr_{number}")).status_code for number in range(11)]

    assert (by_name, by_address[-1]) == ([204, 204, 204, 429], 429)
    assert tokens == [400] * 10 + [429]


async def test_administrator_when_asking_for_somebody_lets_the_link_be_mailed(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox
) -> None:
    resets: PasswordResets = controller.parts.dependencies["password_resets"]  # type: ignore[index]

    async def use_case(ctx: FleetContext) -> None:
        await resets.request_reset(ctx, await get_user_of(ctx.session, ADMIN))

    await controller.operations.change(SYSTEM, "test", use_case)
    await controller.tasks.run_due()

    assert (await confirm(anonymous_client, token_of(inbox))).status_code == 204


async def test_controller_without_a_mail_server_says_so_to_everybody(tmp_path: Path, sqlite_url: str) -> None:
    built = make_controller(sqlite_url, tmp_path)
    transport = httpx.ASGITransport(app=built.app.asgi)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answers = [await ask(http, name) for name in (ADMIN, "nobody")]
    await built.database.close()

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "mail_not_configured")}


# --- the server ---------------------------------------------------------------------------------------------------


async def test_server_that_offers_no_tls_gets_no_mail(tmp_path: Path, inbox: Inbox) -> None:
    settings = make_settings(tmp_path, inbox, smtp_tls="starttls")

    with pytest.raises(UnavailableError, match="STARTTLS"):
        await make_mailer(settings).send(Mail(to=EMAIL, subject="Hello", text="secret"))

    assert inbox.mails == []


async def test_server_whose_certificate_nobody_signed_gets_no_mail(tmp_path: Path) -> None:
    with running_smtp(tmp_path, "implicit") as inbox:
        settings = make_settings(tmp_path, inbox, smtp_ca_file=None)

        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await make_mailer(settings).send(Mail(to=EMAIL, subject="Hello", text="secret"))

        assert inbox.mails == []


async def test_server_when_the_password_is_wrong_gets_no_mail_and_the_error_does_not_say_it(tmp_path: Path) -> None:
    with running_smtp(tmp_path, "starttls") as inbox:
        wrong = tmp_path / "wrong"
        wrong.write_text("not " + SECRET)
        settings = make_settings(tmp_path, inbox, smtp_password_file=wrong)

        with pytest.raises(UnavailableError, match="535") as raised:
            await make_mailer(settings).send(Mail(to=EMAIL, subject="Hello", text="secret"))

    assert SECRET not in str(raised.value)


def make_settings(folder: Path, inbox: Inbox, **changes: Any) -> Any:
    return Settings(data_dir=folder, **(inbox.settings | changes))


# --- one's own address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "email", ["nobody", "ada@example.com\r\nBcc: mallory@example.com", "a@b", "ada@example.com,mallory@example.com", ""]
)
async def test_email_when_malformed_or_with_a_header_in_it_is_refused(client: httpx.AsyncClient, email: str) -> None:
    answer = await client.put(f"{API}/auth/email", json={"email": email, "password": PASSWORD})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "email")
    assert (await client.get(f"{API}/auth/email")).json() == {"email": EMAIL, "can_reset_by_mail": True}


async def test_email_when_set_without_a_proof_stays(client: httpx.AsyncClient) -> None:
    for body in ({"email": None}, {"email": None, "password": "of somebody else"}, {"email": None, "code": "123456"}):
        assert (await client.put(f"{API}/auth/email", json=body)).status_code == 400

    assert (await client.get(f"{API}/auth/email")).json()["email"] == EMAIL
    cleared = await client.put(f"{API}/auth/email", json={"email": None, "password": PASSWORD})
    assert cleared.json() == {"email": None, "can_reset_by_mail": False}


async def test_email_of_somebody_else_is_refused_until_they_are_disabled(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    async with controller.database.write() as session:
        hashed = FAST_HASHER.hash(PASSWORD)
        grace = await create_user(session, "grace", hashed, role=Role.ADMIN, must_change_password=False)
        grace.email = "grace@example.com"
    body = {"email": "Grace@Example.com", "password": PASSWORD}

    refused = await client.put(f"{API}/auth/email", json=body)
    async with controller.database.write() as session:
        await session.execute(update(User).where(User.username == "grace").values(disabled_at=datetime.now(UTC)))
    taken = await client.put(f"{API}/auth/email", json=body)

    assert (refused.status_code, refused.json()["code"]) == (409, "email_taken")
    assert (taken.status_code, taken.json()["email"]) == (200, "grace@example.com")


# --- the page -----------------------------------------------------------------------------------------------------


async def test_page_of_the_link_runs_no_foreign_script_and_asks_the_confirming_route(
    anonymous_client: httpx.AsyncClient,
) -> None:
    page = await anonymous_client.get("/reset-password")
    script = await anonymous_client.get("/link-pages/reset-password.js")

    assert (page.status_code, script.status_code) == (200, 200)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert '"/auth/password-reset/confirm"' in script.text
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("role", [Role.ADMIN, Role.RESELLER, Role.CLIENT, Role.MEMBER], ids=lambda role: role.value)
async def test_link_when_followed_by_somebody_of_each_role_gives_them_the_new_password(
    controller: Controller, anonymous_client: httpx.AsyncClient, inbox: Inbox, role: Role
) -> None:
    """Whoever follows it is nobody yet, and reaches their own row all the same."""
    async with controller.database.write() as session:
        user = await create_user(session, "grace", FAST_HASHER.hash(PASSWORD), role=role, must_change_password=False)
        user.email = "grace@example.com"
        if role is not Role.ADMIN:
            reseller = Reseller(name="Shop", email="shop@example.com", caps={}, oversell={})
            session.add(reseller)
            await session.flush()
            client = Client(name="Ada", email="ada@example.com", reseller_id=reseller.id)
            session.add(client)
            await session.flush()
            user.reseller_id = reseller.id if role is Role.RESELLER else None
            user.client_id = None if role is Role.RESELLER else client.id
    token = await mailed(controller, anonymous_client, inbox, "grace")

    answer = await confirm(anonymous_client, token)

    assert answer.status_code == 204, answer.text
    body = {"username": "grace", "password": OTHER}
    assert (await anonymous_client.post(f"{API}/auth/login", json=body)).status_code == 200
