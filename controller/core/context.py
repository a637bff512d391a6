"""Who is asking, and the transaction they act in: the only way to reach a row (invariant 2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.permissions import EVERYTHING, ROLE_PERMISSIONS, Role, allows
from shared.errors import ForbiddenError

__all__ = ["ALL_TENANTS", "SYSTEM", "Actor", "Change", "OpContext", "Reach", "ReachKind", "Role"]


class ReachKind(enum.Enum):
    """Whose rows somebody can reach."""

    EVERYTHING = "everything"
    RESELLER = "reseller"
    CLIENT = "client"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Reach:
    """Whose rows somebody sees and changes. Other rows do not exist for them (controller.core.tenancy.criteria)."""

    kind: ReachKind
    id: str = ""
    """Of the reseller, the client, or the user who is a team member; none fits the empty one."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is hidden."""
        return self.kind is ReachKind.EVERYTHING


ALL_TENANTS: Final = Reach(ReachKind.EVERYTHING)
NO_TENANT: Final = Reach(ReachKind.MEMBER)


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody we know."""

    kind: str
    """user, token or system."""
    id: str
    name: str
    role: Role
    scopes: frozenset[str] = EVERYTHING
    """What a token may do (controller.core.permissions)."""
    permissions: frozenset[str] = EVERYTHING
    """What their custom role allows; it never widens the role. Without one: all that the role allows."""
    reach: Reach = NO_TENANT
    """Left out: everything for the people of the platform, nothing for all others."""
    user_id: str = field(default="", compare=False)
    """Whose session or token it is; empty for what is no person's."""
    impersonator: str = ""
    """`user/ID` of the administrator who views as this person; the name says it too."""
    address: str = field(default="", compare=False)
    """Where the request came from; empty for what the controller does by itself."""
    overrides_maintenance: bool = field(default=False, compare=False)
    """This request said that it comes on purpose (controller.core.maintenance); counts for root alone."""

    def __post_init__(self) -> None:
        """Fill in the reach of the platform's people."""
        if self.reach == NO_TENANT and self.role in (Role.ROOT, Role.ADMIN):
            object.__setattr__(self, "reach", ALL_TENANTS)

    @property
    def reference(self) -> str:
        """`user/ID`: how jobs and the audit log name who did it; the administrator, when one views as somebody."""
        return self.impersonator or f"{self.kind}/{self.id}"

    def may(self, noun: str, verb: str) -> bool:
        """Whether `require` would pass."""
        grants = (ROLE_PERMISSIONS[self.role], self.permissions, self.scopes)
        return all(allows(grant, noun, verb) for grant in grants)

    def require(self, noun: str, verb: str) -> None:
        """Pass when the actor may do this to nouns of this kind. Which rows they reach is another question.

        Args:
            noun: Plural as in the API's path, for example accounts.
            verb: read or write.

        Raises:
            ForbiddenError: They may not.
        """
        if not self.may(noun, verb):
            raise ForbiddenError(f"{self.name} may not {verb} {noun}", context={"permission": f"{noun}:{verb}"})

    def require_platform(self, noun: str, verb: str) -> None:
        """`require`, for what cannot be narrowed to one tenant's rows.

        Raises:
            ForbiddenError: They may not, or reach one tenant only.
        """
        self.require(noun, verb)
        if not self.reach.is_everything:
            raise ForbiddenError(f"{self.name} may not {verb} {noun} of the whole platform")


SYSTEM = Actor(kind="system", id="controller", name="controller", role=Role.ROOT)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of desired state, as the audit log keeps it."""

    action: str
    """noun.verb, for example site.create."""
    target: str
    """noun/ID."""
    target_name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(slots=True)
class OpContext:
    """One use case of one actor in one transaction."""

    actor: Actor
    session: AsyncSession
    request_id: str
    now: datetime
    is_dry_run: bool = False
    changes: list[Change] = field(default_factory=list)
    """Filled by controller.core.audit.record: what was changed, for the audit log and for a dry run's answer."""
    job_ids: list[str] = field(default_factory=list)
    """Jobs requested in this transaction, in order."""
