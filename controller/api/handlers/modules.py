"""The modules of this release over HTTP."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.di import NamedDependency

from controller.core.context import Actor
from controller.fleet.manifest import MODULES, MODULES_OF_ROLE
from shared.version import __version__


class ModuleView(msgspec.Struct, frozen=True, kw_only=True):
    """One module that nodes can have."""

    name: str
    version: str
    description: str
    roles: tuple[str, ...]
    """Roles that bring it."""


class ModuleList(msgspec.Struct, frozen=True, kw_only=True):
    """Modules, by name."""

    items: tuple[ModuleView, ...]
    next_cursor: str | None = None


@get("/modules", operation_id="list-modules", tags=["modules"], summary="List modules", sync_to_thread=False)
def list_modules(*, actor: NamedDependency[Actor]) -> ModuleList:
    """Show what this release can put on a node."""
    actor.require("modules", "read")
    return ModuleList(
        items=tuple(
            ModuleView(
                name=name,
                version=__version__,
                description=description,
                roles=tuple(role for role, names in MODULES_OF_ROLE.items() if name in names),
            )
            for name, description in sorted(MODULES.items())
        )
    )


ROUTES = (list_modules,)
