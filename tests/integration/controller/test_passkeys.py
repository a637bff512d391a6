"""Passkeys: registering one, signing in with and without a password, and every forgery that a signature must not pass."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.core.auth.models import Passkey, PasskeyChallenge, Session, SignInAttempt, User
from controller.core.auth.passkeys import RelyingParty
from controller.core.auth.users import create_user
from controller.core.context import Role
from tests.integration.authenticator import Authenticator, decode
from tests.integration.conftest import ADMIN, FAST_HASHER, PASSWORD
from tests.integration.controller.test_second_factor import code_of, enrol, sign_in

API = "/api/v1"


async def register(http: httpx.AsyncClient, device: Authenticator, name: str = "laptop") -> dict[str, Any]:
    """The answer of a registration; the client goes on with its new secret."""
    begun = await http.post(f"{API}/passkeys/begin", json={"password": PASSWORD})
    assert begun.status_code == 201, begun.text
    made = await finish(http, begun.json(), device, name)
    assert made.status_code == 201, made.text
    http.headers["authorization"] = f"Bearer {made.json()['session']['token']}"
    content: dict[str, Any] = made.json()
    return content


async def finish(
    http: httpx.AsyncClient, begun: dict[str, Any], device: Authenticator, name: str = "laptop"
) -> httpx.Response:
    body = {
        "challenge_id": begun["challenge_id"],
        "name": name,
        "credential": device.create(begun["options"]),
    }
    answer = await http.post(f"{API}/passkeys", json=body)
    http.cookies.clear()
    return answer


async def prove(http: httpx.AsyncClient, device: Authenticator) -> dict[str, Any]:
    """A signed challenge of whoever the client is."""
    begun = await http.post(f"{API}/auth/passkey-challenge")
    assert begun.status_code == 201, begun.text
    challenge = begun.json()
    return {"challenge_id": challenge["challenge_id"], "credential": device.get(challenge["options"])}


async def enter(http: httpx.AsyncClient, proof: dict[str, Any]) -> httpx.Response:
    answer = await http.post(f"{API}/auth/passkey", json=proof)
    http.cookies.clear()
    return answer


async def reasons(controller: Controller) -> list[str]:
    async with controller.database.read() as session:
        return list(await session.scalars(select(SignInAttempt.reason).order_by(SignInAttempt.id)))


# --- registering --------------------------------------------------------------------------------------------------


async def test_passkey_when_registered_is_a_second_factor_with_recovery_codes_and_ends_other_sessions(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    other = (await sign_in(anonymous_client)).json()["token"]
    before = client.headers["authorization"]

    made = await register(client, Authenticator())

    assert client.headers["authorization"] != before
    for ended in (before, f"Bearer {other}"):
        answer = await anonymous_client.get(f"{API}/auth/me", headers={"authorization": ended})
        assert answer.status_code == 401
    state = (await client.get(f"{API}/second-factor")).json()
    assert (state["is_enabled"], state["has_codes"], state["passkeys"]) == (True, False, 1)
    assert (await client.get(f"{API}/auth/me")).json()["has_second_factor"]
    assert (await sign_in(anonymous_client)).json()["code"] == "second_factor_required"
    used = [await sign_in(anonymous_client, made["recovery_codes"][0]) for _ in range(2)]
    assert (len(made["recovery_codes"]), [answer.status_code for answer in used]) == (10, [200, 401])


async def test_passkey_when_begun_without_a_proof_is_refused(client: httpx.AsyncClient) -> None:
    for body in ({}, {"password": "of somebody else"}, {"code": "123456"}):
        assert (await client.post(f"{API}/passkeys/begin", json=body)).status_code == 400


@pytest.mark.parametrize(
    "device",
    [
        Authenticator(origin="https://evil.test"),
        Authenticator(origin="http://controller.test:8360"),
        Authenticator(rp_id="evil.test"),
        Authenticator(verifies=False),
    ],
    ids=["origin", "no-tls", "relying-party", "no-verification"],
)
async def test_registration_when_made_for_another_page_or_without_verification_is_refused(
    client: httpx.AsyncClient, device: Authenticator
) -> None:
    begun = (await client.post(f"{API}/passkeys/begin", json={"password": PASSWORD})).json()

    answer = await finish(client, begun, device)

    assert (answer.status_code, answer.json()["code"]) == (400, "passkey_refused")
    assert (await client.get(f"{API}/passkeys")).json()["items"] == []


async def test_registration_when_repeated_old_or_of_another_session_is_refused(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    first = (await client.post(f"{API}/passkeys/begin", json={"password": PASSWORD})).json()
    token = (await sign_in(anonymous_client)).json()["token"]
    anonymous_client.headers["authorization"] = f"Bearer {token}"
    stolen = await finish(anonymous_client, first, Authenticator())
    async with controller.database.write() as session:
        await session.execute(update(PasskeyChallenge).values(expires_at=datetime.now(UTC)))
    old = await finish(client, first, Authenticator())
    device = Authenticator()
    begun = (await client.post(f"{API}/passkeys/begin", json={"password": PASSWORD})).json()
    made = await finish(client, begun, device)
    client.headers["authorization"] = f"Bearer {made.json()['session']['token']}"
    again = await finish(client, begun, Authenticator())
    twice = (await client.post(f"{API}/passkeys/begin", json={"password": PASSWORD})).json()
    same = await finish(client, twice, device)

    assert [answer.status_code for answer in (stolen, old, made, again, same)] == [400, 400, 201, 400, 409]
    assert len((await client.get(f"{API}/passkeys")).json()["items"]) == 1


async def test_passkeys_when_listed_renamed_and_deleted_follow(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    phone, laptop = Authenticator(), Authenticator()
    await register(client, phone, "phone")
    second = await register(client, laptop, "laptop")
    assert second["recovery_codes"] == []
    items = (await client.get(f"{API}/passkeys", params={"limit": 1})).json()
    rest = (await client.get(f"{API}/passkeys", params={"cursor": items["next_cursor"]})).json()["items"]
    assert [items["items"][0]["name"], rest[0]["name"]] == ["laptop", "phone"]

    renamed = await client.patch(f"{API}/passkeys/{rest[0]['id']}", json={"name": "old phone"})
    evil = await client.patch(f"{API}/passkeys/{rest[0]['id']}", json={"name": "x\ny"})
    deleted = await client.delete(f"{API}/passkeys/{rest[0]['id']}")

    assert (renamed.json()["name"], evil.status_code, deleted.status_code) == ("old phone", 400, 204)
    assert (await enter(anonymous_client, await prove(anonymous_client, phone))).status_code == 401
    assert (await client.get(f"{API}/second-factor")).json()["recovery_codes_left"] == 10
    await client.delete(f"{API}/passkeys/{items['items'][0]['id']}")
    state = (await client.get(f"{API}/second-factor")).json()
    assert (state["is_enabled"], state["recovery_codes_left"]) == (False, 0)
    assert (await sign_in(anonymous_client)).status_code == 200


async def test_passkey_of_somebody_else_is_not_there(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    await add_grace(controller, anonymous_client)
    theirs = (await register(anonymous_client, Authenticator()))["passkey"]["id"]

    renamed = await client.patch(f"{API}/passkeys/{theirs}", json={"name": "mine"})
    deleted = await client.delete(f"{API}/passkeys/{theirs}")

    assert [renamed.status_code, deleted.status_code] == [404, 404]
    assert (await client.get(f"{API}/passkeys")).json()["items"] == []


async def test_deleting_a_passkey_asks_for_a_recent_proof(client: httpx.AsyncClient, controller: Controller) -> None:
    passkey_id = (await register(client, Authenticator()))["passkey"]["id"]
    async with controller.database.write() as session:
        await session.execute(update(Session).values(verified_at=datetime.now(UTC) - timedelta(hours=1)))

    answer = await client.delete(f"{API}/passkeys/{passkey_id}")

    assert (answer.status_code, answer.json()["code"]) == (403, "step_up_required")


async def add_grace(controller: Controller, http: httpx.AsyncClient) -> None:
    """Another administrator; the client is theirs from now on."""
    async with controller.database.write() as session:
        await create_user(session, "grace", FAST_HASHER.hash(PASSWORD), role=Role.ADMIN, must_change_password=False)
    answer = await http.post(f"{API}/auth/login", json={"username": "grace", "password": PASSWORD})
    http.cookies.clear()
    http.headers["authorization"] = f"Bearer {answer.json()['token']}"


# --- signing in ---------------------------------------------------------------------------------------------------


async def test_passkey_alone_signs_its_owner_in(client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient) -> None:
    device = Authenticator()
    await register(client, device)

    answer = await enter(anonymous_client, await prove(anonymous_client, device))

    assert (answer.status_code, answer.json()["user"]["username"]) == (200, ADMIN)
    assert answer.json()["user"]["has_second_factor"]


async def test_passkey_beside_the_password_signs_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    device = Authenticator()
    await register(client, device)
    body = {"username": ADMIN, "password": PASSWORD, "passkey": await prove(anonymous_client, device)}
    wrong = body | {"password": "a guess of somebody", "passkey": await prove(anonymous_client, device)}

    refused = await anonymous_client.post(f"{API}/auth/login", json=wrong)
    entered = await anonymous_client.post(f"{API}/auth/login", json=body)

    assert (refused.status_code, refused.json()["code"]) == (401, "wrong_credentials")
    assert (entered.status_code, entered.json()["user"]["has_second_factor"]) == (200, True)


@pytest.mark.parametrize(
    "forgery",
    ["origin", "relying-party", "no-verification", "other-key", "signature", "handle", "no-handle", "garbage"],
)
async def test_signature_when_forged_lets_nobody_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller, forgery: str
) -> None:
    device = Authenticator()
    await register(client, device)
    spoiled = {
        "origin": Authenticator(key=device.key, credential_id=device.credential_id, origin="https://evil.test"),
        "relying-party": Authenticator(key=device.key, credential_id=device.credential_id, rp_id="evil.test"),
        "no-verification": Authenticator(key=device.key, credential_id=device.credential_id, verifies=False),
        "other-key": Authenticator(credential_id=device.credential_id),
    }.get(forgery, device)
    spoiled.user_handle = device.user_handle
    proof = await prove(anonymous_client, spoiled)
    response = proof["credential"]["response"]
    if forgery == "signature":
        raw = bytearray(decode(response["signature"]))
        raw[-1] ^= 1
        response["signature"] = raw.hex()
    elif forgery == "handle":
        response["userHandle"] = "c29tZWJvZHkgZWxzZQ"
    elif forgery == "no-handle":
        del response["userHandle"]
    elif forgery == "garbage":
        proof["credential"]["response"] = {"clientDataJSON": "!", "authenticatorData": "AA", "signature": "\u20ac"}

    answer = await enter(anonymous_client, proof)

    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_passkey")
    assert "set-cookie" not in answer.headers
    assert (await reasons(controller))[-1] == "wrong_passkey"


async def test_signature_when_replayed_old_or_of_another_purpose_lets_nobody_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    device = Authenticator(counts=False)
    await register(client, device)
    proof = await prove(anonymous_client, device)
    first, replayed = await enter(anonymous_client, proof), await enter(anonymous_client, proof)
    for_step_up = await enter(anonymous_client, await prove(client, device))
    late = await prove(anonymous_client, device)
    async with controller.database.write() as session:
        await session.execute(update(PasskeyChallenge).values(expires_at=datetime.now(UTC)))
    old = await enter(anonymous_client, late)

    assert [answer.status_code for answer in (first, replayed, for_step_up, old)] == [200, 401, 401, 401]


async def test_signature_that_failed_has_used_its_challenge_up(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    device = Authenticator(counts=False)
    await register(client, device)
    challenge = (await anonymous_client.post(f"{API}/auth/passkey-challenge")).json()
    device.origin = "https://evil.test"
    forged = {"challenge_id": challenge["challenge_id"], "credential": device.get(challenge["options"])}
    device.origin = Authenticator().origin
    good = {"challenge_id": challenge["challenge_id"], "credential": device.get(challenge["options"])}

    statuses = [(await enter(anonymous_client, proof)).status_code for proof in (forged, good)]

    assert statuses == [401, 401]


async def test_signature_when_several_come_with_it_at_once_lets_one_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    device = Authenticator(counts=False)
    await register(client, device)
    proof = await prove(anonymous_client, device)

    answers = await asyncio.gather(*(enter(anonymous_client, proof) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


async def test_device_that_counts_backwards_lets_nobody_in_and_the_history_says_copied(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    device = Authenticator(sign_count=7)
    await register(client, device)
    ahead = await enter(anonymous_client, await prove(anonymous_client, device))
    device.sign_count = 6

    same = await enter(anonymous_client, await prove(anonymous_client, device))
    device.sign_count = 2
    behind = await enter(anonymous_client, await prove(anonymous_client, device))

    assert [answer.status_code for answer in (ahead, same, behind)] == [200, 401, 401]
    assert (await reasons(controller))[-2:] == ["passkey_copied"] * 2
    async with controller.database.read() as session:
        assert (await session.scalars(select(Passkey.sign_count))).one() == 8


async def test_passkey_of_somebody_else_is_no_second_factor_of_mine(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    await register(client, Authenticator())
    theirs = Authenticator()
    await add_grace(controller, anonymous_client)
    await register(anonymous_client, theirs)
    del anonymous_client.headers["authorization"]

    body = {"username": ADMIN, "password": PASSWORD, "passkey": await prove(anonymous_client, theirs)}
    answer = await anonymous_client.post(f"{API}/auth/login", json=body)

    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_passkey")


async def test_passkey_of_somebody_disabled_lets_nobody_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    device = Authenticator()
    await register(client, device)
    proof = await prove(anonymous_client, device)
    async with controller.database.write() as session:
        await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

    assert (await enter(anonymous_client, proof)).status_code == 401
    assert (await reasons(controller))[-1] == "disabled"


# --- proofs and policy --------------------------------------------------------------------------------------------


async def test_step_up_by_passkey_renews_the_proof_and_takes_no_challenge_of_another_session(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    device = Authenticator()
    await register(client, device)
    async with controller.database.write() as session:
        await session.execute(update(Session).values(verified_at=datetime.now(UTC) - timedelta(hours=1)))
    foreign = await client.post(f"{API}/auth/step-up", json={"passkey": await prove(anonymous_client, device)})

    stepped = await client.post(f"{API}/auth/step-up", json={"passkey": await prove(client, device)})

    client.cookies.clear()
    assert (foreign.status_code, foreign.json()["code"]) == (400, "passkey_refused")
    assert stepped.status_code == 200
    client.headers["authorization"] = f"Bearer {stepped.json()['token']}"
    assert (await client.post(f"{API}/tokens", json={"name": "robot"})).status_code == 201


async def test_person_who_must_have_a_factor_satisfies_it_with_a_passkey(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    await client.patch(f"{API}/security", json={"second_factor_roles": ["root"]})
    refused = await client.get(f"{API}/sessions")

    await register(client, Authenticator())

    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_enrolment_required")
    assert (await client.get(f"{API}/sessions")).status_code == 200


async def test_codes_when_disabled_leave_the_passkey_and_the_recovery_codes(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret, codes = await enrol(client)
    await register(client, Authenticator())

    disabled = await client.post(f"{API}/second-factor/disable", json={"password": PASSWORD})

    assert disabled.status_code == 204
    assert (await sign_in(anonymous_client)).json()["code"] == "second_factor_required"
    assert (await sign_in(anonymous_client, code_of(secret))).status_code == 401
    assert (await sign_in(anonymous_client, codes[0])).status_code == 200


async def test_factors_when_an_administrator_resets_them_take_the_passkeys_along(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    await register(client, Authenticator())

    answer = await client.delete(f"{API}/security/users/{ADMIN}/second-factor")

    assert answer.status_code == 204
    assert (await sign_in(anonymous_client)).status_code == 200
    assert (await client.get(f"{API}/passkeys")).json()["items"] == []


async def test_token_when_it_asks_for_a_passkey_is_refused(client: httpx.AsyncClient) -> None:
    secret = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
    client.headers["authorization"] = f"Bearer {secret}"
    body = {"challenge_id": "x", "name": "x", "credential": {}}

    answers = [
        await client.post(f"{API}/passkeys/begin", json={"password": PASSWORD}),
        await client.post(f"{API}/passkeys", json=body),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize(
    ("url", "expected", "is_name"),
    [
        ("https://Panel.example.com:8360", RelyingParty("panel.example.com", "https://panel.example.com:8360"), True),
        ("https://panel.example.com:443/x", RelyingParty("panel.example.com", "https://panel.example.com"), True),
        ("https://192.0.2.1:8360", RelyingParty("192.0.2.1", "https://192.0.2.1:8360"), False),
    ],
)
def test_relying_party_is_the_name_and_origin_of_the_controllers_url(
    url: str, expected: RelyingParty, is_name: bool
) -> None:
    assert (RelyingParty.of(url), RelyingParty.of(url).is_name) == (expected, is_name)
