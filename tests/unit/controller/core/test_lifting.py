"""Who may end a suspension or a deletion."""

from __future__ import annotations

import pytest

from controller.core.accounts.lifting import lifter_like, may_lift, require_may_lift
from controller.core.accounts.models import Account, Lifter
from controller.core.context import SYSTEM, Actor, Role
from shared.errors import ForbiddenError


def actor(role: Role) -> Actor:
    return Actor(kind="user", id="1", name="somebody", role=role)


@pytest.mark.parametrize(
    ("lifter", "roles"),
    [
        (Lifter.ADMIN, {Role.ROOT, Role.ADMIN}),
        (Lifter.POLICY, {Role.ROOT, Role.ADMIN}),
        (Lifter.RESELLER, {Role.ROOT, Role.ADMIN, Role.RESELLER}),
        (Lifter.CLIENT, set(Role)),
        (None, {Role.ROOT, Role.ADMIN}),
    ],
)
def test_may_lift_when_asked_takes_those_named_and_those_above(lifter: Lifter | None, roles: set[Role]) -> None:
    assert {role for role in Role if may_lift(actor(role), lifter)} == roles


@pytest.mark.parametrize("lifter", list(Lifter))
def test_may_lift_when_the_controller_does_what_was_said_is_true(lifter: Lifter) -> None:
    assert may_lift(SYSTEM, lifter)


@pytest.mark.parametrize("role", list(Role))
def test_lifter_like_an_actor_is_one_that_this_actor_may_lift(role: Role) -> None:
    assert may_lift(actor(role), lifter_like(actor(role)))


def test_require_may_lift_when_one_may_not_names_who_may() -> None:
    with pytest.raises(ForbiddenError) as refused:
        require_may_lift(actor(Role.CLIENT), Lifter.RESELLER, Account(name="ada"), "suspension")

    assert (refused.value.code, refused.value.context["liftable_by"]) == ("not_liftable", "reseller")
