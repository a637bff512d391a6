"""Adopting drift: what somebody changed on a node becomes what is wanted. Only the module of a resource knows how."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.fleet.models import DriftFindingRow
from shared.errors import ConflictError

Adopter = Callable[[FleetContext, DriftFindingRow], Awaitable[None]]
"""Changes the desired state by the module's own use case, so that it holds the difference. Raises refuse_adoption()."""

_HINT: Final = "Repair it (`wcp360 drift repair FINDING`), or live with it for a while (`wcp360 drift ignore FINDING`)."


class DriftAdopters:
    """Set up once by bootstrap; afterwards read only."""

    def __init__(self, adopters: Mapping[str, Adopter]) -> None:
        """`adopters`: kind of resource (what stands before the `/` of its key) to the one that knows it."""
        self._adopters = dict(adopters)

    async def adopt(self, ctx: FleetContext, finding: DriftFindingRow) -> None:
        """Take the difference into the desired state.

        Raises:
            ForbiddenError
            ConflictError: It is none that can be adopted.
        """
        ctx.actor.require("drift", "write")
        kind = finding.key.partition("/")[0]
        adopter = self._adopters.get(kind)
        if adopter is None:
            raise refuse_adoption(f"nothing of the kind {kind} can be")
        await adopter(ctx, finding)
        change = Change(
            action="drift.adopt",
            target=f"node/{finding.node_id}",
            target_name=f"{finding.subject}: {finding.key}",
            after={"id": finding.id, "diff": finding.diff},
        )
        ctx.changes.append(change)


def refuse_adoption(reason: str) -> ConflictError:
    """Why a difference cannot be adopted."""
    return ConflictError(f"this difference cannot be adopted: {reason}", code="not_adoptable", hint=_HINT)
