"""The page of a mailed link for another password, from the question to the new password."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import update

from controller.core.auth.models import PasswordReset, User
from controller.db.base import utc_now
from tests.browser.chromium import Chromium, Visit
from tests.integration.controller.people import API, SECRET, World
from tests.integration.live import wait_until
from tests.integration.smtp_server import Inbox

EMAIL = "clara@example.com"
OTHER = "another long password"
FORGOTTEN, SENT, CHOOSE, CHANGED = (
    "Forgotten your password?",
    "Look into your mail",
    "Choose a new password",
    "Your password is changed",
)


@pytest.fixture(autouse=True)
async def address(world: World) -> None:
    """Clara can be written to."""
    async with world.controller.database.write() as session:
        await session.execute(update(User).where(User.username == "clara").values(email=EMAIL))


async def read_mailed_link(inbox: Inbox) -> str:
    """Path and secret of the link in the mail, once it came."""
    await wait_until(lambda: bool(inbox.mails))
    found = re.search(r"/reset-password#\S+", inbox.mails[-1].get_content())
    assert found is not None
    return found.group()


async def ask_for_link(world: World, inbox: Inbox) -> str:
    """As the command line asks."""
    answer = await world.http.post(f"{API}/auth/password-reset", json={"username_or_email": EMAIL})
    assert answer.status_code == 204, answer.text
    return await read_mailed_link(inbox)


async def can_sign_in(world: World, password: str) -> bool:
    answer = await world.http.post(f"{API}/auth/login", json={"username": "clara", "password": password})
    world.http.cookies.clear()
    return answer.status_code == 200


async def choose(visit: Visit, password: str, again: str | None = None) -> None:
    await visit.page.get_by_label("New password").fill(password)
    await visit.page.get_by_label("The same once more").fill(password if again is None else again)
    await visit.page.get_by_role("button", name="Set this password").click()


async def test_password_when_forgotten_is_replaced_by_a_mail_and_two_pages(
    visit: Visit, world: World, inbox: Inbox
) -> None:
    await visit.open("/reset-password")
    await visit.wait_for_title(FORGOTTEN)
    await visit.page.get_by_label("User name or e-mail address").fill(EMAIL)
    await visit.page.get_by_role("button", name="Send me a link").click()
    await visit.wait_for_title(SENT)
    link = await read_mailed_link(inbox)

    await visit.open(link)  # in the same tab: no more than the # changes
    # The heading is there before the script that takes the secret out of the address.
    await visit.page.wait_for_function("!location.hash")
    await visit.wait_for_title(CHOOSE)
    await visit.page.reload()
    await visit.wait_for_title(FORGOTTEN)  # the secret is no longer in the address, so a reload does not have it
    await visit.open(link)
    await visit.page.wait_for_function("!location.hash")
    await visit.wait_for_title(CHOOSE)
    address = visit.page.url
    await choose(visit, OTHER)
    await visit.wait_for_title(CHANGED)

    assert address == f"{visit.origin}/reset-password"
    assert await can_sign_in(world, OTHER)
    assert not await can_sign_in(world, SECRET)


async def test_password_by_keyboard_alone_is_replaced(visit: Visit, world: World, inbox: Inbox) -> None:
    await visit.open(await ask_for_link(world, inbox))
    await visit.wait_for_title(CHOOSE)
    walked = []

    for text in (OTHER, OTHER, " "):
        await visit.press("Tab")
        walked.append(await visit.focused())
        await visit.page.keyboard.type(text)
    shown = await visit.page.get_by_label("New password").get_attribute("type")
    await visit.press("Tab", "Enter")
    await visit.wait_for_title(CHANGED)

    assert walked == ["password", "again", "show"]
    assert shown == "text"
    assert await visit.focused() == "H1"
    assert await can_sign_in(world, OTHER)


async def test_password_that_is_refused_says_why_at_its_field_and_can_be_tried_again(
    visit: Visit, world: World, inbox: Inbox
) -> None:
    await visit.open(await ask_for_link(world, inbox))
    await visit.wait_for_title(CHOOSE)

    await choose(visit, OTHER, again="something else entirely")
    await visit.page.get_by_text("The two passwords are not the same.").wait_for()
    unequal = await visit.focused()
    await choose(visit, "password123456")
    await visit.page.get_by_text("The password is on lists of known ones").wait_for()
    weak = await visit.focused()
    await choose(visit, OTHER)
    await visit.wait_for_title(CHANGED)

    assert (unequal, weak) == ("again", "password")
    assert await visit.page.get_by_role("alert").text_content() == ""


@pytest.mark.parametrize("state", ["used", "expired", "made up"])
async def test_link_that_is_no_good_offers_another(visit: Visit, world: World, inbox: Inbox, state: str) -> None:
    link = await ask_for_link(world, inbox) if state != "made up" else "/reset-password#nonsense"
    column = {"used": PasswordReset.ended_at, "expired": PasswordReset.expires_at}.get(state)
    if column is not None:
        async with world.controller.database.write() as session:
            await session.execute(update(PasswordReset).values({column: utc_now()}))

    await visit.open(link)
    await visit.wait_for_title(CHOOSE)
    await choose(visit, OTHER)
    await visit.wait_for_title(FORGOTTEN)

    assert "Have another one sent." in await visit.page.get_by_role("alert").inner_text()
    assert await visit.page.get_by_role("button", name="Send me a link").is_visible()
    assert await can_sign_in(world, SECRET)


async def test_name_of_nobody_is_answered_as_any(visit: Visit, world: World, inbox: Inbox) -> None:
    said = []
    for name in ("nobody@example.com", "clara"):
        await visit.open("/reset-password")
        await visit.page.get_by_label("User name or e-mail address").fill(name)
        await visit.press("Enter")
        await visit.wait_for_title(SENT)
        said.append(await visit.page.get_by_role("status").inner_text())

    assert said[0] == said[1]


async def test_button_when_pressed_twice_sends_once(visit: Visit, world: World, inbox: Inbox) -> None:
    await visit.open("/reset-password")
    await visit.page.get_by_label("User name or e-mail address").fill("clara")

    await visit.page.get_by_role("button", name="Send me a link").dblclick()
    await visit.wait_for_title(SENT)

    assert sum(url.endswith("/auth/password-reset") for url in visit.requested) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_page_in_each_state_is_for_everybody(chromium: Chromium, world: World, scheme: Any, width: int) -> None:
    async with chromium.visit(color_scheme=scheme, viewport={"width": width, "height": 640}) as visit:
        barriers = {}

        async def look(state: str) -> None:
            await visit.wait_for_title(state)
            barriers[state] = barriers.get(state, "") + await visit.find_barriers()
            assert not await visit.is_too_wide()

        await visit.open("/reset-password#nonsense")
        await look(CHOOSE)
        await choose(visit, OTHER, again="something else entirely")
        await look(CHOOSE)
        await choose(visit, OTHER)
        await look(FORGOTTEN)
        await visit.page.get_by_label("User name or e-mail address").fill("clara")
        await visit.press("Enter")
        await look(SENT)

        assert barriers == {CHOOSE: "", FORGOTTEN: "", SENT: ""}
        assert visit.complaints == []
