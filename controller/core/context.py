"""Who is asking, and the transaction they act in: the only way to reach a row (invariant 2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import ForbiddenError


class Role(enum.Enum):
    """User types of the product. Reseller and client logins arrive with tenancy; their place is kept here."""

    ROOT = "root"
    ADMIN = "admin"
    RESELLER = "reseller"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody we know."""

    kind: str
    """user, token or system."""
    id: str
    name: str
    role: Role
    scopes: frozenset[str] = frozenset({"*"})
    """What a token may do: `*`, `noun:read`, `noun:write`, or `*:read`."""
    address: str = field(default="", compare=False)
    """Where the request came from; empty for what the controller does by itself."""
    overrides_maintenance: bool = field(default=False, compare=False)
    """This request said that it comes on purpose (controller.core.maintenance); counts for root alone."""

    @property
    def reference(self) -> str:
        """`user/ID`: how jobs and the audit log name the actor."""
        return f"{self.kind}/{self.id}"

    def require(self, noun: str, verb: str) -> None:
        """Pass when the actor may do this to nouns of this kind.

        Args:
            noun: Plural as in the API's path, for example accounts.
            verb: read or write.

        Raises:
            ForbiddenError: They may not.
        """
        if self.role not in (Role.ROOT, Role.ADMIN) or not self.scopes & {"*", f"{noun}:{verb}", f"*:{verb}"}:
            raise ForbiddenError(f"{self.name} may not {verb} {noun}", context={"permission": f"{noun}:{verb}"})


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
