"""Second factors: setting one up, signing in with it, losing it, and having to have one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pyotp
import pytest
from sqlalchemy import select

from controller.administration import reset_second_factor
from controller.bootstrap import Controller
from controller.core.auth.models import RecoveryCode, SecondFactor, Session
from controller.core.auth.second_factor import STEP_SECONDS
from shared.errors import NotFoundError
from tests.integration.conftest import ADMIN, PASSWORD

API = "/api/v1"


async def sign_in(http: httpx.AsyncClient, code: str | None = None) -> httpx.Response:
    body = {"username": ADMIN, "password": PASSWORD} | ({"code": code} if code is not None else {})
    answer = await http.post(f"{API}/auth/login", json=body)
    http.cookies.clear()
    return answer


def code_of(secret: str, *, steps: int = 0) -> str:
    """The code of now, or of some steps away."""
    return pyotp.TOTP(secret).at(datetime.now(UTC) + timedelta(seconds=STEP_SECONDS * steps))


async def enrol(http: httpx.AsyncClient) -> tuple[str, list[str]]:
    """Secret and recovery codes of a factor that counts; the client goes on with its new secret.

    It is confirmed with the step before, so that the code of now is left for the test.
    """
    begun = await http.post(f"{API}/second-factor", json={"password": PASSWORD})
    assert begun.status_code == 201, begun.text
    secret = begun.json()["secret"]
    confirmed = await http.post(f"{API}/second-factor/confirm", json={"code": code_of(secret, steps=-1)})
    assert confirmed.status_code == 200, confirmed.text
    http.headers["authorization"] = f"Bearer {confirmed.json()['session']['token']}"
    http.cookies.clear()
    return secret, confirmed.json()["recovery_codes"]


async def test_factor_when_begun_names_issuer_and_user_and_counts_only_once_confirmed(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    begun = (await client.post(f"{API}/second-factor", json={"password": PASSWORD})).json()

    parsed = pyotp.parse_uri(begun["uri"])
    assert (parsed.issuer, parsed.name, parsed.secret) == ("WCP360", ADMIN, begun["secret"])
    assert (await sign_in(anonymous_client)).status_code == 200
    assert not (await client.get(f"{API}/second-factor")).json()["is_enabled"]


async def test_factor_when_begun_without_the_password_is_refused(client: httpx.AsyncClient) -> None:
    for body, field in (({}, "password"), ({"password": "of somebody else"}, "password"), ({"code": "123456"}, "code")):
        answer = await client.post(f"{API}/second-factor", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


async def test_factor_when_confirmed_with_a_wrong_code_stays_off(client: httpx.AsyncClient) -> None:
    secret = (await client.post(f"{API}/second-factor", json={"password": PASSWORD})).json()["secret"]

    answer = await client.post(f"{API}/second-factor/confirm", json={"code": code_of(secret, steps=20)})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "code")
    assert not (await client.get(f"{API}/second-factor")).json()["is_enabled"]


async def test_factor_when_confirmed_ends_other_sessions_and_renews_this_ones_secret(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    other = (await sign_in(anonymous_client)).json()["token"]
    before = client.headers["authorization"]

    await enrol(client)

    assert client.headers["authorization"] != before
    assert (await client.get(f"{API}/auth/me")).json()["has_second_factor"]
    anonymous_client.cookies.clear()
    for ended in (before, f"Bearer {other}"):
        answer = await anonymous_client.get(f"{API}/auth/me", headers={"authorization": ended})
        assert answer.status_code == 401


async def test_login_with_a_factor_takes_two_steps(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret, _ = await enrol(client)

    asked = await sign_in(anonymous_client)
    wrong = await sign_in(anonymous_client, code_of(secret, steps=20))
    right = await sign_in(anonymous_client, code_of(secret))

    assert (asked.status_code, asked.json()["code"]) == (401, "second_factor_required")
    assert "set-cookie" not in asked.headers
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_code")
    assert right.status_code == 200


async def test_login_when_the_password_is_wrong_does_not_tell_of_a_factor(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    await enrol(client)

    answer = await anonymous_client.post(
        f"{API}/auth/login", json={"username": ADMIN, "password": "not this", "code": "1"}
    )

    assert answer.json()["code"] == "wrong_credentials"


async def test_code_when_used_a_second_time_is_refused(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret, _ = await enrol(client)
    code = code_of(secret)

    first = await sign_in(anonymous_client, code)
    again = await sign_in(anonymous_client, code)
    older = await sign_in(anonymous_client, code_of(secret, steps=-1))

    assert [first.status_code, again.status_code, older.status_code] == [200, 401, 401]
    assert again.json()["code"] == "wrong_code"


async def test_code_when_two_come_with_it_at_once_lets_one_in(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    secret, _ = await enrol(client)
    code = code_of(secret)

    answers = await asyncio.gather(*(sign_in(anonymous_client, code) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


async def test_recovery_code_signs_in_once_and_is_counted(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    _, codes = await enrol(client)

    first = await sign_in(anonymous_client, codes[0].upper())
    again = await sign_in(anonymous_client, codes[0])

    assert (len(set(codes)), first.status_code, again.status_code) == (10, 200, 401)
    assert (await client.get(f"{API}/second-factor")).json()["recovery_codes_left"] == 9


async def test_recovery_codes_when_renewed_make_the_old_ones_worthless(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    _, old = await enrol(client)

    new = (await client.post(f"{API}/second-factor/recovery-codes")).json()["recovery_codes"]

    assert (await sign_in(anonymous_client, old[0])).status_code == 401
    assert (await sign_in(anonymous_client, new[0])).status_code == 200


async def test_secret_and_codes_never_rest_in_clear(client: httpx.AsyncClient, controller: Controller) -> None:
    secret, codes = await enrol(client)

    async with controller.database.read() as session:
        factor = (await session.scalars(select(SecondFactor))).one()
        hashes = set(await session.scalars(select(RecoveryCode.code_hash)))
    plain = {code.replace("-", "") for code in codes}
    assert secret.encode() not in factor.sealed_secret
    assert not hashes & (plain | set(codes))
    assert controller.settings.effective_secrets_key_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("proof", ["password", "code"])
async def test_factor_when_disabled_with_a_proof_is_asked_for_no_more(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, proof: str
) -> None:
    secret, _ = await enrol(client)
    refused = await client.post(f"{API}/second-factor/disable", json={})
    body = {"password": PASSWORD} if proof == "password" else {"code": code_of(secret)}

    disabled = await client.post(f"{API}/second-factor/disable", json=body)

    assert (refused.status_code, disabled.status_code) == (400, 204)
    assert (await sign_in(anonymous_client)).status_code == 200


async def test_factor_when_an_api_token_asks_is_refused(client: httpx.AsyncClient) -> None:
    secret = (await client.post(f"{API}/tokens", json={"name": "robot"})).json()["secret"]
    client.headers["authorization"] = f"Bearer {secret}"

    answers = [
        await client.post(f"{API}/second-factor", json={"password": PASSWORD}),
        await client.post(f"{API}/second-factor/disable", json={"password": PASSWORD}),
        await client.post(f"{API}/second-factor/recovery-codes"),
        await client.post(f"{API}/auth/step-up", json={"password": PASSWORD}),
    ]

    assert [answer.status_code for answer in answers] == [403] * 4


async def test_person_who_must_have_a_factor_can_do_nothing_but_set_one_up(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient
) -> None:
    required = await client.patch(f"{API}/security", json={"second_factor_roles": ["root"]})
    assert required.status_code == 200, required.text
    token = (await sign_in(anonymous_client)).json()["token"]
    anonymous_client.cookies.clear()
    anonymous_client.headers["authorization"] = f"Bearer {token}"

    refused = [
        await anonymous_client.get(f"{API}/sessions"),
        await anonymous_client.get(f"{API}/audit"),
        await anonymous_client.post(f"{API}/tokens", json={"name": "way out"}),
        await anonymous_client.patch(f"{API}/security", json={"second_factor_roles": []}),
    ]
    shown = await anonymous_client.get(f"{API}/second-factor")
    await enrol(anonymous_client)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {
        (403, "second_factor_enrolment_required")
    }
    assert (shown.json()["is_required"], shown.json()["is_enabled"]) == (True, False)
    assert (await anonymous_client.get(f"{API}/sessions")).status_code == 200


async def test_factor_when_an_administrator_resets_it_is_asked_for_no_more(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    await enrol(client)

    answer = await client.delete(f"{API}/security/users/{ADMIN}/second-factor")

    assert answer.status_code == 204
    assert (await client.delete(f"{API}/security/users/{ADMIN}/second-factor")).status_code == 404
    assert (await sign_in(anonymous_client)).status_code == 200
    async with controller.database.read() as session:
        assert not any(row.has_second_factor for row in await session.scalars(select(Session)))


async def test_factor_when_reset_on_the_machine_is_asked_for_no_more_and_audited(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    await enrol(client)

    await reset_second_factor(controller.database, ADMIN)

    assert (await sign_in(anonymous_client)).status_code == 200
    actions = [row["action"] for row in (await client.get(f"{API}/audit")).json()["items"]]
    assert {"user.begin_second_factor", "user.enable_second_factor", "user.reset_second_factor"} <= set(actions)
    with pytest.raises(NotFoundError):
        await reset_second_factor(controller.database, ADMIN)
