"""The page of a link for single sign-on, as somebody of a billing system's customers sees it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import update

from controller.core.auth.models import SignInLink
from controller.db.base import utc_now
from tests.browser.chromium import Chromium, Visit
from tests.integration.controller.people import API, SECRET, World

SIGNED_IN, ONE_MORE, REFUSED = "You are signed in", "One more step", "You are not signed in"


async def make_link(world: World, whom: str = "clara") -> str:
    """Path and secret of a link."""
    made = await world.ask("adam", "POST", f"/users/{world.ids[whom]}/sign-in-link", expect=201)
    url = httpx.URL(made["url"])
    return f"{url.path}#{url.fragment}"


async def add_factor(world: World) -> tuple[pyotp.TOTP, list[str]]:
    """Clara's device and recovery codes; the code of now is left for the test."""
    begun = await world.ask("clara", "POST", "/second-factor", {"password": SECRET}, expect=201)
    totp = pyotp.TOTP(begun["secret"])
    body = {"code": totp.at(utc_now() - timedelta(seconds=30))}
    confirmed = await world.ask("clara", "POST", "/second-factor/confirm", body, expect=200)
    return totp, confirmed["recovery_codes"]


async def whoami(visit: Visit) -> Any:
    """What the API says to the page's own cookie."""
    return await visit.page.evaluate(f"fetch('{API}/auth/me').then(answer => answer.json())")


async def test_link_when_opened_signs_in_and_leaves_no_secret_in_the_address(visit: Visit, world: World) -> None:
    await visit.open(await make_link(world))
    await visit.wait_for_title(SIGNED_IN)

    assert (await whoami(visit))["username"] == "clara"
    assert visit.page.url == f"{visit.origin}/sign-in"
    assert all("#" not in url for url in await visit.page.evaluate("[location.href, document.referrer]"))
    assert await visit.page.get_by_role("status").text_content() == "Signed in as clara."


async def test_code_when_typed_and_clicked_lets_in_after_a_wrong_one(visit: Visit, world: World) -> None:
    totp, _ = await add_factor(world)
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)

    await visit.page.get_by_label("Code").fill("000000")
    await visit.page.get_by_role("button", name="Sign in").click()
    await visit.page.get_by_text("This code is not right").wait_for()
    marked = await visit.page.get_by_label("Code").get_attribute("aria-invalid")
    kept = await visit.page.get_by_label("Code").input_value()
    await visit.page.get_by_label("Code").fill(f" {totp.now()} ")
    await visit.page.get_by_role("button", name="Sign in").click()
    await visit.wait_for_title(SIGNED_IN)

    assert (marked, kept) == ("true", "")
    assert (await whoami(visit))["username"] == "clara"


async def test_recovery_code_by_keyboard_alone_lets_in(visit: Visit, world: World) -> None:
    _, recovery = await add_factor(world)
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)

    focused = await visit.focused()
    await visit.page.keyboard.type(recovery[0])
    await visit.press("Enter")
    await visit.wait_for_title(SIGNED_IN)
    await visit.press("Tab")
    link = await visit.page.evaluate("document.activeElement.getAttribute('href')")

    assert focused == "code"
    assert link == "/docs"


async def test_passkey_of_a_real_browser_is_the_second_factor(visit: Visit, world: World) -> None:
    await add_authenticator(visit)
    await visit.open(await make_link(world))
    await visit.wait_for_title(SIGNED_IN)
    await register_passkey(visit)
    await visit.page.context.clear_cookies()
    await visit.page.goto("about:blank")
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)

    await visit.page.get_by_role("button", name="Use a passkey instead").click()
    await visit.wait_for_title(SIGNED_IN)

    assert (await whoami(visit))["username"] == "clara"


async def test_passkey_that_the_device_does_not_have_leaves_the_code(visit: Visit, world: World) -> None:
    await add_factor(world)
    await add_authenticator(visit)
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)

    await visit.page.get_by_role("button", name="Use a passkey instead").click()
    await visit.page.get_by_text("No passkey was used. Try again, or use a code.").wait_for()

    assert await visit.focused() == "code"


@pytest.mark.parametrize("state", ["used", "expired", "made up", "cut off"])
async def test_link_that_is_no_good_says_where_to_go(visit: Visit, world: World, state: str) -> None:
    link = await make_link(world)
    if state == "used":
        await visit.open(link)
        await visit.wait_for_title(SIGNED_IN)
        await visit.page.context.clear_cookies()
    elif state == "expired":
        async with world.controller.database.write() as session:
            await session.execute(update(SignInLink).values(expires_at=utc_now()))
    path = {"made up": "/sign-in#nonsense", "cut off": "/sign-in"}.get(state, link)

    await visit.page.goto("about:blank")
    await visit.open(path)
    await visit.wait_for_title(REFUSED)

    assert "follow it again" in await visit.page.get_by_role("alert").inner_text()
    assert not await visit.page.get_by_label("Code").is_visible()
    assert await visit.focused() == "H1"


async def test_link_that_waited_for_a_code_is_good_for_five_minutes_and_no_longer(visit: Visit, world: World) -> None:
    totp, _ = await add_factor(world)
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)
    async with world.controller.database.write() as session:
        await session.execute(update(SignInLink).values(expires_at=utc_now()))

    await visit.page.get_by_label("Code").fill(totp.now())
    await visit.press("Enter")
    await visit.wait_for_title(REFUSED)

    assert "too old" in await visit.page.get_by_role("alert").inner_text()


async def test_server_that_does_not_answer_is_said_so_and_the_code_can_be_sent_again(
    visit: Visit, world: World
) -> None:
    totp, _ = await add_factor(world)
    await visit.open(await make_link(world))
    await visit.wait_for_title(ONE_MORE)
    await visit.page.context.set_offline(True)

    await visit.page.get_by_label("Code").fill(totp.now())
    await visit.press("Enter")
    await visit.page.get_by_text("The server does not answer. Try again in a moment.").wait_for()
    await visit.page.context.set_offline(False)
    await visit.press("Enter")
    await visit.wait_for_title(SIGNED_IN)

    assert (await whoami(visit))["username"] == "clara"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_page_in_each_state_is_for_everybody(chromium: Chromium, world: World, scheme: Any, width: int) -> None:
    await add_factor(world)
    async with chromium.visit(color_scheme=scheme, viewport={"width": width, "height": 640}) as visit:
        barriers = {}
        for state, path in ((ONE_MORE, await make_link(world)), (REFUSED, "/sign-in")):
            await visit.page.goto("about:blank")
            await visit.open(path)
            await visit.wait_for_title(state)
            barriers[state] = await visit.find_barriers()
            assert not await visit.is_too_wide()

        assert barriers == {ONE_MORE: "", REFUSED: ""}
        assert visit.complaints == []


async def add_authenticator(visit: Visit) -> None:
    """A device with a fingerprint reader, built into the browser's machine."""
    devtools = await visit.page.context.new_cdp_session(visit.page)
    await devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})


async def register_passkey(visit: Visit) -> None:
    """As a panel would: ask for options, let the device make a key, send it."""
    done = await visit.page.evaluate(
        """async ([api, password]) => {
            const send = async (path, body) => (await fetch(api + path, {
                method: "POST", body: JSON.stringify(body),
                headers: {"content-type": "application/json"},
            })).json();
            const begun = await send("/passkeys/begin", {password});
            const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(begun.options);
            const made = await navigator.credentials.create({publicKey});
            return await send("/passkeys", {challenge_id: begun.challenge_id, credential: made.toJSON(), name: "laptop"});
        }""",
        [API, SECRET],
    )
    assert done.get("recovery_codes"), done
