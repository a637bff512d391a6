"""Who may end what somebody brought about: a suspension, or a deletion that can still be taken back."""

from __future__ import annotations

from typing import Final

from controller.core.accounts.models import Account, Lifter
from controller.core.context import SYSTEM, Actor, Role
from shared.errors import ForbiddenError

_ABOVE: Final = {
    Lifter.ADMIN: frozenset({Role.ROOT, Role.ADMIN}),
    Lifter.RESELLER: frozenset({Role.ROOT, Role.ADMIN, Role.RESELLER}),
    Lifter.CLIENT: frozenset(Role),
    Lifter.POLICY: frozenset({Role.ROOT, Role.ADMIN}),
}
_OWN: Final = {Role.RESELLER: Lifter.RESELLER, Role.CLIENT: Lifter.CLIENT, Role.MEMBER: Lifter.CLIENT}


def lifter_like(actor: Actor) -> Lifter:
    """Those who are like this actor: what they bring about, their equals may end."""
    return _OWN.get(actor.role, Lifter.ADMIN)


def may_lift(actor: Actor, lifter: Lifter | None) -> bool:
    """Whether this actor is one of those, or stands above them. The controller itself may: it does what was said."""
    return actor.kind == SYSTEM.kind or actor.role in _ABOVE[lifter or Lifter.ADMIN]


def require_may_lift(actor: Actor, lifter: Lifter | None, account: Account, what: str) -> None:
    """Pass when they may.

    Args:
        actor: Who wants to end it.
        lifter: Who may.
        account: Named in the message.
        what: "suspension" or "deletion".

    Raises:
        ForbiddenError: They may not (`not_liftable`).
    """
    if not may_lift(actor, lifter):
        name = (lifter or Lifter.ADMIN).value
        raise ForbiddenError(
            f"the {what} of the account {account.name!r} can be ended by {name} only",
            code="not_liftable",
            hint="Ask whoever is responsible for you to end it.",
            context={"liftable_by": name},
        )
