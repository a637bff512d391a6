"""Whose counters a request counts on, and how memory counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.api.rate_gate import RateGate
from controller.core.auth.identities import Identity
from controller.core.context import Actor, Role
from controller.core.rate_limits.counters import Bucket, MemoryCounters
from controller.core.rate_limits.keys import Key, Tenant, key_of, network_of
from controller.core.rate_limits.policy import Rate, RateBook, RateLimits


def identity(kind: str) -> Identity:
    return Identity(
        actor=Actor(kind=kind, id="credential" if kind == "token" else "ada", name="ada", role=Role.ADMIN),
        user_id="ada",
        username="ada",
        credential_id="credential",
        must_change_password=False,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


class FixedBook(RateBook):
    """Rates that a test sets."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits

    async def current(self) -> RateLimits:
        return self.limits


def test_key_of_nobody_is_the_address() -> None:
    assert key_of(None, "203.0.113.9") == (Key("anonymous", "203.0.113.9"),)


def test_key_of_a_session_is_the_user_wherever_they_are() -> None:
    assert key_of(identity("user"), "203.0.113.9") == (Key("user", "ada"),)


def test_key_of_a_token_is_its_own_and_its_users() -> None:
    assert key_of(identity("token"), "203.0.113.9") == (Key("token", "credential"), Key("user", "ada"))


def test_key_of_a_tenant_adds_the_tenant_and_its_tier() -> None:
    tenant = Tenant(kind="client", id="c1", tier="low")

    keys = key_of(identity("user"), "", tenant=tenant)

    assert keys[1:] == (Key("tenant", "client/c1"), Key("tier_low", "client/c1"))
    assert key_of(identity("user"), "", tenant=Tenant(kind="reseller", id="r1"))[1:] == (Key("tenant", "reseller/r1"),)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_network_of_an_address_is_what_one_customer_has(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_memory_counts_in_all_buckets_or_in_none() -> None:
    counters = MemoryCounters(clock=lambda: 0.0)
    small, large = Bucket("small", 1, 60.0), Bucket("large", 100, 1.0)
    await counters.take([small, large])

    refused = await counters.take([small, large])

    assert refused.wait_seconds == 60.0
    assert (await counters.take([large])).fullness == (2.0,)


async def test_gate_of_tenants_in_one_tier_counts_them_apart() -> None:
    limits = RateLimits(tier_low=Rate(requests=2, seconds=2))
    gate = RateGate(FixedBook(limits), MemoryCounters(clock=lambda: 0.0))

    async def is_refused(client_id: str) -> bool:
        admission = await gate.admit(identity("user"), "", Tenant(kind="client", id=client_id, tier="low"))
        return admission.error is not None

    assert [await is_refused("c1") for _ in range(3)] == [False, False, True]
    assert not await is_refused("c2")


async def test_gate_when_rates_change_writes_the_new_policy() -> None:
    book = FixedBook(RateLimits())
    gate = RateGate(book, MemoryCounters())
    first = dict((await gate.admit(identity("user"), "")).headers)
    book.limits = RateLimits(user=Rate(requests=7, seconds=1))

    second = dict((await gate.admit(identity("user"), "")).headers)

    assert (first[b"ratelimit-policy"], second[b"ratelimit-policy"]) == (b'"user";q=30000;w=60', b'"user";q=7;w=1')
