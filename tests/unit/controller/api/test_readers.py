"""Whose streams count on whom, and that each is given back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Literal

import pytest

from controller.api import scopes
from controller.api.errors import RateLimitedError
from controller.api.readers import Readers
from controller.core.auth.identities import Identity
from controller.core.context import Actor, Role
from controller.core.policies.registry import PlatformPolicies

Tenant = tuple[Literal["reseller", "client"], str]
ACME: Tenant = ("client", "acme")
OTHER: Tenant = ("client", "other")
FEW = PlatformPolicies(readers_user_max=2, readers_tenant_max=3, readers_max=4)


def someone(name: str, tenant: Tenant | None = None, *, kind: str = "user", impersonator: str = "") -> Identity:
    actor = Actor(
        kind=kind, id=name, name=name, role=Role.CLIENT if tenant else Role.ADMIN, user_id=name,
        impersonator=impersonator,
    )  # fmt: skip
    return Identity(
        actor=actor, user_id=name, username=name, credential_id=f"{name}/{kind}", must_change_password=False,
        expires_at=None, tenant=tenant,
    )  # fmt: skip


class Door:
    """Lets readers in until each leaves."""

    def __init__(self, rules: PlatformPolicies = FEW) -> None:
        self.readers = Readers()
        self.rules = rules

    def admit(self, identity: Identity) -> AsyncExitStack:
        scope: dict[str, Any] = {}
        endings = AsyncExitStack()
        scopes.remember_endings(scope, endings)
        scopes.remember_rules(scope, self.rules)
        self.readers.admit(scope, identity)
        return endings

    def refuse(self, identity: Identity) -> RateLimitedError:
        before = self.readers.count
        with pytest.raises(RateLimitedError) as refused:
            self.admit(identity)
        assert self.readers.count == before
        return refused.value


async def test_reader_when_one_more_than_a_user_may_is_refused_until_one_leaves() -> None:
    door = Door()
    first = door.admit(someone("ann"))
    door.admit(someone("ann", kind="token"))

    error = door.refuse(someone("ann"))
    await first.aclose()
    door.admit(someone("ann"))

    assert error.code == "too_many_readers"
    assert error.message.startswith("2 readers of yours")
    assert "readers_user_max" in str(error.hint)


async def test_reader_when_somebody_else_has_all_of_theirs_is_let_in() -> None:
    door = Door()
    for _ in range(2):
        door.admit(someone("ann"))

    door.admit(someone("bob"))

    assert door.readers.count == 3


async def test_reader_when_one_more_than_a_tenant_may_is_refused_whoever_of_them_asks() -> None:
    door = Door()
    for name in ("ann", "ann", "bob"):
        door.admit(someone(name, ACME))

    error = door.refuse(someone("cleo", ACME))
    door.admit(someone("dan", OTHER))

    assert error.message.startswith("3 readers of your client")


async def test_reader_of_a_tenant_when_all_are_taken_is_refused_and_one_of_the_platform_is_not() -> None:
    door = Door()
    for name, tenant in (("ann", ACME), ("bob", ACME), ("dan", OTHER), ("eve", OTHER)):
        door.admit(someone(name, tenant))

    error = door.refuse(someone("fay", ("reseller", "r")))
    door.admit(someone("root"))

    assert error.message.startswith("4 readers of everybody")


async def test_reader_who_views_as_somebody_takes_none_of_theirs() -> None:
    door = Door()
    for _ in range(2):
        door.admit(someone("ann", ACME, impersonator="user/root"))

    door.admit(someone("ann", ACME))
    error = door.refuse(someone("root"))

    assert error.message.startswith("2 readers of yours")


async def test_reader_when_all_have_left_leaves_nothing_behind() -> None:
    door = Door()
    endings = [door.admit(someone(name, ACME)) for name in ("ann", "bob", "cleo")]
    door.refuse(someone("dan", ACME))

    for ending in endings:
        await ending.aclose()

    assert door.readers.count == 0
    assert not door.readers._counts
