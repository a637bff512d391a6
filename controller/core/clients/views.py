"""What goes in and out of the API for clients."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

Name = Annotated[
    str, Meta(min_length=1, max_length=120, description="Person or company.", examples=["Ada Lovelace", "Example Ltd"])
]
Email = Annotated[
    str,
    Meta(min_length=3, max_length=254, description="Where the client can be reached.", examples=["ada@example.com"]),
]
RowId = Annotated[str, Meta(min_length=1, max_length=36, examples=["0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"])]


class ClientCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new client."""

    name: Name
    email: Email
    reseller_id: Annotated[
        RowId | None,
        Meta(description="Who sells to it; only administrators say so. Null: a reseller's own, or ours."),
    ] = None


class ClientUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays."""

    name: Name | UnsetType = UNSET
    email: Email | UnsetType = UNSET


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """A person or company that owns accounts."""

    id: str
    name: str
    email: str
    reseller_id: Annotated[str | None, Meta(description="Who sells to it; null: the platform itself.")]
    accounts: Annotated[int, Meta(description="How many accounts it owns.")]
    created_at: datetime
    updated_at: datetime


class ClientPage(msgspec.Struct, frozen=True, kw_only=True):
    """Clients, newest first."""

    items: tuple[ClientView, ...]
    next_cursor: str | None
