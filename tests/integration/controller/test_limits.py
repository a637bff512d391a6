"""Limits are checked in one place before anything is written, whoever asks at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.store import get_account
from controller.core.context import ALL_TENANTS, Actor, Role
from controller.core.domains.models import Domain
from controller.core.limits.check import require_feature, require_room
from controller.core.limits.registry import LimitKind, LimitRegistry
from controller.core.operations import FleetContext
from shared.errors import BugError, ForbiddenError, QuotaExceededError
from tests.integration.controller.hosting import Hosting

CLIENT = Actor(kind="user", id="1", name="ada", role=Role.CLIENT, reach=ALL_TENANTS)


async def test_create_domains_200_at_once_against_a_limit_of_100_gives_exactly_100(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", limits={"domains": 100})

    answers = await asyncio.gather(
        *(
            hosting.http.post("/api/v1/domains", json={"account_id": account_id, "name": f"d{number}.example"})
            for number in range(200)
        )
    )

    assert Counter(answer.status_code for answer in answers) == {201: 100, 409: 100}
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {problem["code"] for problem in refused} == {"quota_exceeded"}
    assert {tuple(problem["quota"].items()) for problem in refused} == {
        (("limit", "domains"), ("used", 100), ("allowed", 100))
    }
    assert await hosting.count(Domain) == 100


async def test_create_sites_200_at_once_against_a_limit_of_100_gives_exactly_100(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", limits={"sites": 100})

    answers = await asyncio.gather(
        *(
            hosting.http.post("/api/v1/sites", json={"account_id": account_id, "domain": f"d{number}.example"})
            for number in range(200)
        )
    )

    assert Counter(answer.status_code for answer in answers) == {202: 100, 409: 100}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"quota_exceeded"}
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 101


async def test_name_below_an_own_domain_counts_as_a_subdomain(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", limits={"domains": 1, "subdomains": 1})
    await hosting.add_site(account_id, "a.example", aliases=["www.a.example"])

    body = {"account_id": account_id, "name": "mail.a.example"}
    below = await hosting.post("/domains", body, expect=409)
    beside = await hosting.post("/sites", {"account_id": account_id, "domain": "b.example"}, expect=409)

    assert below["quota"] == {"limit": "subdomains", "used": 1, "allowed": 1}
    assert beside["quota"] == {"limit": "domains", "used": 1, "allowed": 1}
    assert "allows 1 domains, and the account has 1" in beside["detail"]
    assert (await hosting.get("/sites"))["items"][0]["domain"] == "a.example"


async def test_limit_of_what_does_not_exist_yet_hinders_nothing(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", limits={"mailboxes": 0, "databases": {"soft": 0, "hard": 0}})

    await hosting.add_site(account_id, "a.example")


async def test_limit_when_its_module_arrives_holds_for_packages_that_were_there(hosting: Hosting) -> None:
    """The module declares its count under the key, and asks before it writes: nothing else is to be done."""
    account_id = await hosting.add_account("ada", limits={"mailboxes": 3})

    async def count_mailboxes(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(account_ids, 2)

    arrived = LimitRegistry([LimitKind(key="mailboxes", title="Mailboxes", unit="mailboxes", count=count_mailboxes)])

    async def add_mailboxes(ctx: FleetContext, amount: int) -> None:
        ctx.registry.limits = arrived
        await require_room(ctx, await get_account(ctx.session, account_id), "mailboxes", amount)

    await hosting.operations.read(CLIENT, "r", lambda ctx: add_mailboxes(ctx, 1))
    with pytest.raises(QuotaExceededError) as refused:
        await hosting.operations.read(CLIENT, "r", lambda ctx: add_mailboxes(ctx, 2))
    assert refused.value.context == {"limit": "mailboxes", "used": 2, "allowed": 3}


def test_limit_that_two_modules_declare_is_a_mistake() -> None:
    kind = LimitKind(key="mailboxes", title="Mailboxes", unit="mailboxes")

    with pytest.raises(BugError):
        LimitRegistry([kind, kind])


async def test_change_of_package_to_one_with_too_few_domains_is_refused(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    for name in ("a.example", "b.example"):
        await hosting.post("/domains", {"account_id": account_id, "name": name}, expect=201)
    package_id = await hosting.add_package("Tiny", limits={"domains": 1})

    problem = await hosting.patch(f"/accounts/{account_id}", {"package_id": package_id}, expect=409)

    assert problem["quota"] == {"limit": "domains", "used": 2, "allowed": 1}


async def test_feature_that_the_package_does_not_have_is_refused(hosting: Hosting) -> None:
    without_id = await hosting.add_account("ada")
    with_id = await hosting.add_account("bob", flags={"ssh": True, "advanced_logs": True})

    async def ask(ctx: FleetContext, account_id: str, key: str) -> None:
        await require_feature(ctx, await get_account(ctx.session, account_id), key)

    for key in ("ssh", "advanced_logs"):
        with pytest.raises(ForbiddenError) as refused:
            await hosting.operations.read(CLIENT, "r", lambda ctx, key=key: ask(ctx, without_id, key))
        assert refused.value.code == "feature_disabled"
        await hosting.operations.read(CLIENT, "r", lambda ctx, key=key: ask(ctx, with_id, key))
