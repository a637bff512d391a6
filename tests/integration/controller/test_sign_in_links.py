"""Single sign-on by a link: whom it lets in, how often, and who may make one."""

from __future__ import annotations

import itertools
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import select, update

from controller.core.auth.models import SignInAttempt, SignInLink, User
from controller.core.auth.secrets import hash_secret
from controller.db.base import utc_now
from tests.integration.controller.people import SECRET, World

ROOT = Path(__file__).resolve().parents[3]
LINK = "/api/v1/auth/sign-in-link"


async def make(world: World, who: str, whom: str, *, expect: int = 201) -> dict[str, Any]:
    answer: dict[str, Any] = await world.ask(who, "POST", f"/users/{world.ids[whom]}/sign-in-link", expect=expect)
    return answer


async def follow(world: World, token: str, **more: Any) -> httpx.Response:
    answer = await world.http.post(LINK, json={"token": token, **more}, headers={"authorization": ""})
    world.http.cookies.clear()
    return answer


async def test_link_when_followed_lets_its_person_in_once(world: World) -> None:
    made = await make(world, "adam", "clara")

    first, second = await follow(world, made["token"]), await follow(world, made["token"])

    assert (first.status_code, first.json()["user"]["username"]) == (200, "clara")
    assert "httponly" in first.headers["set-cookie"].lower()
    assert (second.status_code, second.json()["code"]) == (401, "wrong_link")
    assert made["url"].partition("#")[2] == made["token"]
    assert made["token"] not in made["url"].partition("#")[0]


async def test_link_when_another_is_made_or_its_minute_is_over_is_worth_nothing(world: World) -> None:
    old = (await make(world, "adam", "clara"))["token"]
    new = (await make(world, "adam", "clara"))["token"]
    assert (await follow(world, old)).status_code == 401
    async with world.controller.database.write() as session:
        await session.execute(update(SignInLink).values(expires_at=utc_now() - timedelta(seconds=1)))

    assert (await follow(world, new)).json()["code"] == "wrong_link"


async def test_link_when_kept_is_a_hash_and_no_audit_entry_has_it(world: World) -> None:
    token = (await make(world, "adam", "clara"))["token"]

    assert await world.count(SignInLink, SignInLink.secret_hash == hash_secret(token)) == 1
    for who in ("root", "clara", "rita"):
        listed = await world.ask(who, "GET", "/audit?action=user.create_sign_in_link", expect=200)
        assert [entry["actor_name"] for entry in listed["items"]] == ["adam"]
        assert token not in str(listed)


async def test_link_when_its_person_has_a_second_factor_asks_for_it_and_is_not_used_up(world: World) -> None:
    clara = world.headers["clara"]
    begun = await world.http.post("/api/v1/second-factor", json={"password": SECRET}, headers=clara)
    assert begun.status_code in (200, 201), begun.text
    totp = pyotp.TOTP(begun.json()["secret"])
    confirmed = await world.http.post("/api/v1/second-factor/confirm", json={"code": totp.now()}, headers=clara)
    world.http.cookies.clear()
    assert confirmed.status_code == 200, confirmed.text
    token = (await make(world, "adam", "clara"))["token"]

    asked, wrong = await follow(world, token), await follow(world, token, code="000000")
    recovered = await follow(world, token, code=confirmed.json()["recovery_codes"][0])

    assert (asked.status_code, asked.json()["code"]) == (401, "second_factor_required")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_code")
    assert recovered.status_code == 200, recovered.text
    assert (await follow(world, token)).status_code == 401


@pytest.mark.parametrize(
    ("who", "whom", "status"),
    [
        ("rita", "clara", 201),
        ("clara", "mel", 201),
        ("rita", "clara.f", 404),
        ("clara", "mel.f", 404),
        ("mel", "clara", 403),
        ("root", "adam", 403),
        ("rita", "adam", 404),
    ],
)
async def test_link_when_asked_for_is_for_those_below_and_inside(
    world: World, who: str, whom: str, status: int
) -> None:
    await make(world, who, whom, expect=status)

    assert await world.count(SignInLink) == (status == 201)


async def test_link_of_who_is_shut_out_is_neither_made_nor_good(world: World) -> None:
    token = (await make(world, "adam", "clara"))["token"]
    async with world.controller.database.write() as session:
        await session.execute(update(User).where(User.username == "clara").values(disabled_at=utc_now()))

    refused = await follow(world, token)
    await make(world, "adam", "clara", expect=409)

    assert refused.status_code == 401
    assert await world.count(SignInAttempt, SignInAttempt.username == "clara", SignInAttempt.reason == "disabled") == 1


async def test_link_when_an_administrator_views_as_somebody_cannot_be_made(world: World) -> None:
    viewed = await world.ask(
        "adam", "POST", f"/users/{world.ids['clara']}/impersonate", {"reason": "ticket 4711"}, expect=201
    )
    world.headers["view"] = {"authorization": f"Bearer {viewed['token']}"}

    refused = await make(world, "view", "mel", expect=403)

    assert refused["code"] == "impersonation_forbidden"


async def test_link_that_asked_for_a_code_is_good_for_five_minutes_in_all_however_often_it_is_followed(
    world: World,
) -> None:
    clara = world.headers["clara"]
    begun = await world.http.post("/api/v1/second-factor", json={"password": SECRET}, headers=clara)
    totp = pyotp.TOTP(begun.json()["secret"])
    await world.http.post("/api/v1/second-factor/confirm", json={"code": totp.now()}, headers=clara)
    world.http.cookies.clear()
    link = await make(world, "adam", "clara")

    for _ in range(2):
        assert (await follow(world, link["token"])).json()["code"] == "second_factor_required"

    async with world.controller.database.read() as session:
        row = (await session.scalars(select(SignInLink))).one()
    assert row.expires_at - row.created_at == timedelta(minutes=5)


async def test_page_of_a_link_is_the_same_for_everybody(world: World) -> None:
    page = await world.http.get("/sign-in", headers={"authorization": ""})
    script = await world.http.get("/link-pages/sign-in.js", headers={"authorization": ""})

    assert (page.status_code, script.status_code) == (200, 200)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert 'src="/link-pages/sign-in.js"' in page.text


def documented_scopes(name: str) -> list[str]:
    """What docs/operations/billing.md gives the token of this name."""
    lines = (ROOT / "docs/operations/billing.md").read_text().replace("\\\n", " ").splitlines()
    words = shlex.split(next(line for line in lines if line.startswith(f"wcp360 tokens create --name {name} ")))
    return [after for before, after in itertools.pairwise(words) if before == "--scopes"]


async def test_link_when_the_token_is_as_documented_lets_a_new_client_in(world: World) -> None:
    for name in ("billing", "sign-on"):
        body = {"name": name, "scopes": documented_scopes(name)}
        secret = (await world.ask("adam", "POST", "/tokens", body, expect=201))["secret"]
        world.headers[name] = {"authorization": f"Bearer {secret}"}
    person = {"username": "grace", "role": "client", "client_id": world.ids["ours client"]}
    world.ids["grace"] = (await world.ask("sign-on", "POST", "/users", person, expect=201))["user"]["id"]

    made = await make(world, "sign-on", "grace")

    followed = await follow(world, made["token"])
    assert followed.json()["user"]["username"] == "grace"
    world.headers["grace"] = {"authorization": f"Bearer {followed.json()['token']}"}
    await world.ask("grace", "GET", "/accounts", expect=200)  # her one-time password was not used, and binds nothing
    await make(world, "billing", "grace", expect=403)
