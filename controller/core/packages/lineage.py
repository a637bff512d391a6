"""Who inherits from whom, and what comes of it: over all tenants, as a line does not end where one of them does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.limits.registry import LimitRegistry
from controller.core.packages.definition import Values, defaults, merge
from controller.core.packages.models import Package
from controller.core.packages.views import FieldView
from controller.db.criteria import EVERYBODY
from shared.errors import BugError, InvalidInputError

DEPTH_MAX: Final = 5
"""Packages in one line, from the first ancestor to the last heir."""


async def read_chain(session: AsyncSession, package: Package) -> list[Package]:
    """The package and its ancestors, the most remote first.

    Raises:
        BugError: They lead round in a circle.
    """
    chain = [package]
    while chain[0].parent_id is not None:
        if len(chain) > DEPTH_MAX:
            raise BugError(f"the ancestors of the package {package.id} do not end")
        chain.insert(0, await session.get_one(Package, chain[0].parent_id, execution_options=EVERYBODY))
    return chain


async def read_heirs(session: AsyncSession, package_id: str) -> list[Package]:
    """Live packages below this one, each after its parent."""
    found: list[Package] = []
    parents = [package_id]
    while parents:
        statement = select(Package).where(Package.parent_id.in_(parents), Package.deleted_at.is_(None))
        children = list(await session.scalars(statement.order_by(Package.id).execution_options(**EVERYBODY)))
        found += children
        parents = [child.id for child in children]
    return found


async def require_parent(session: AsyncSession, package: Package | None, parent: Package) -> None:
    """Pass when the package may inherit from this one.

    Raises:
        InvalidInputError: It would be its own ancestor, or the line would be too long.
    """
    above = await read_chain(session, parent)
    if package is not None and any(ancestor.id == package.id for ancestor in above):
        raise InvalidInputError(f"{parent.name!r} inherits from this package already", field="parent_id")
    below = 1 if package is None else 1 + await _depth_below(session, package.id)
    if len(above) + below > DEPTH_MAX:
        raise InvalidInputError(f"a line of packages has at most {DEPTH_MAX}", field="parent_id")


def values_of_chain(chain: Sequence[Package], registry: LimitRegistry) -> Values:
    """Effective values of the last one."""
    return merge([package.own for package in chain], registry)


def trace_fields(chain: Sequence[Package], registry: LimitRegistry, *, named: Collection[str]) -> tuple[FieldView, ...]:
    """Every field of the last one with its value, and the nearest package that says it, where its id is in `named`."""
    known = defaults(registry)
    values = values_of_chain(chain, registry)
    fields = []
    for name in known:
        source = next((package for package in reversed(chain) if name in package.own), None)
        fields.append(
            FieldView(
                field=name,
                value=values[name],
                source="default" if source is None else "own" if source is chain[-1] else "inherited",
                package_id=source.id if source is not None and source.id in named else None,
                package_name=source.name if source is not None and source.id in named else "",
            )
        )
    return tuple(fields)


async def _depth_below(session: AsyncSession, package_id: str) -> int:
    depth, parents = 0, [package_id]
    while parents:
        statement = select(Package.id).where(Package.parent_id.in_(parents), Package.deleted_at.is_(None))
        parents = list(await session.scalars(statement.execution_options(**EVERYBODY)))
        depth += bool(parents)
    return depth
