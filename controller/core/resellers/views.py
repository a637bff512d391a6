"""What goes in and out of the API for resellers. The descriptions become OpenAPI and the CLI's help."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

Name = Annotated[
    str, Meta(min_length=1, max_length=120, description="Unique, for people.", examples=["Example Hosting"])
]
Email = Annotated[
    str, Meta(min_length=3, max_length=254, description="Where they can be reached.", examples=["sales@example.com"])
]
PackagesMax = Annotated[
    int, Meta(ge=0, le=10_000, description="How many packages of their own they may have; null: any number.")
]
Key = Annotated[str, Meta(max_length=40)]
Amount = Annotated[int, Meta(ge=0, le=2**60)]
Factor = Annotated[float, Meta(ge=1, le=100)]
Caps = Annotated[
    dict[Key, Amount | None],
    Meta(
        max_length=100,
        description="The most that all their accounts together may be promised: limit to amount. `list-limits` names"
        " them; `accounts` and `clients` are capped, too. Null takes a cap away.",
    ),
]
Oversell = Annotated[
    dict[Key, Factor | None],
    Meta(
        max_length=100,
        description="Limit to the factor (1 to 100) by which they may promise more than the cap. Null: 1.",
    ),
]


class ResellerCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new reseller."""

    name: Name
    email: Email
    packages_max: PackagesMax | None = None
    caps: Caps = {}
    oversell: Oversell = {}


class ResellerUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays, also within caps and oversell."""

    name: Name | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    packages_max: PackagesMax | UnsetType | None = UNSET
    caps: Caps = {}
    oversell: Oversell = {}


class ResellerSuspend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a reseller shall not sell for now, and what becomes of its accounts."""

    reason: Annotated[str, Meta(max_length=500, description="For administrators.", examples=["unpaid invoice"])] = ""
    with_accounts: Annotated[
        bool,
        Meta(description="Suspend all its accounts, too. Unsuspending brings back exactly those that this suspended."),
    ] = False


class ResellerView(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who sells packages to clients of their own."""

    id: str
    name: str
    email: str
    packages_max: int | None
    caps: dict[str, int]
    oversell: Annotated[dict[str, float], Meta(description="A limit that is not named: 1.")]
    over: Annotated[
        tuple[str, ...],
        Meta(description="Caps below what was promised already: what is there stays, and nothing more is promised."),
    ]
    clients: int
    accounts: int
    packages: int
    suspended_at: datetime | None
    suspension_reason: str
    created_at: datetime
    updated_at: datetime


class ResellerPage(msgspec.Struct, frozen=True, kw_only=True):
    """Resellers, newest first."""

    items: tuple[ResellerView, ...]
    next_cursor: str | None
