"""The packages that a new controller begins with."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import select

from controller.core.context import SYSTEM
from controller.core.operations import FleetContext, Operations
from controller.core.packages.models import Package
from controller.core.packages.service import create_package
from controller.core.packages.views import PackageCreate
from shared.specs.account import GIB, MIB

_SMALL: Final[dict[str, Any]] = {
    "name": "Small",
    "description": "A few small sites.",
    "cpu_percent": 100,
    "memory_bytes": 512 * MIB,
    "processes_max": 100,
    "disk_bytes": 5 * GIB,
    "limits": {
        "sites": 3, "domains": 5, "subdomains": 20, "databases": 3, "database_users": 3, "mailboxes": 10,
        "ftp_accounts": 3, "cron_jobs": 5,
    },
}  # fmt: skip
_MEDIUM: Final[dict[str, Any]] = {
    "name": "Medium",
    "description": "Sites of a company. Inherits from Small.",
    "cpu_percent": 200,
    "memory_bytes": 2 * GIB,
    "processes_max": 200,
    "disk_bytes": 25 * GIB,
    "limits": {
        "sites": 15, "domains": 25, "subdomains": 100, "databases": 15, "database_users": 15, "mailboxes": 100,
        "ftp_accounts": 15, "cron_jobs": 20,
    },
    "flags": {"ssh": True, "advanced_logs": True},
}  # fmt: skip
_LARGE: Final[dict[str, Any]] = {
    "name": "Large",
    "description": "Busy sites and shops. Inherits from Medium.",
    "cpu_percent": 400,
    "memory_bytes": 8 * GIB,
    "processes_max": 500,
    "disk_bytes": 100 * GIB,
    "php_children_max": 20,
    "limits": {
        "sites": 100, "domains": 200, "subdomains": 1000, "databases": 100, "database_users": 100, "mailboxes": 1000,
        "ftp_accounts": 100, "cron_jobs": 100,
    },
    "flags": {"git": True, "staging": True, "custom_php": True},
}  # fmt: skip


async def ensure_default_packages(operations: Operations) -> int:
    """Make them when there never was a package: those that somebody deleted are not made again.

    Returns:
        How many were made now.
    """

    async def use_case(ctx: FleetContext) -> int:
        if (await ctx.session.scalars(select(Package.id).limit(1))).first() is not None:
            return 0  # deleted packages keep their rows
        parent_id: str | None = None
        for values in (_SMALL, _MEDIUM, _LARGE):
            parent_id = (await create_package(ctx, PackageCreate(**values, parent_id=parent_id))).id
        return 3

    return (await operations.change(SYSTEM, "first-start", use_case)).resource
