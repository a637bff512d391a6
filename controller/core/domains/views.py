"""What goes in and out of the API for domains."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

HostName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=253,
        description="Host name, in any letters; it is kept in its ASCII form.",
        examples=["example.com", "bücher.example"],
    ),
]


class DomainCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name to be claimed for an account."""

    name: HostName
    account_id: Annotated[str, Meta(min_length=1, max_length=36, description="Who may serve it.")]


class DomainView(msgspec.Struct, frozen=True, kw_only=True):
    """A host name that one account may serve, together with all names below it."""

    id: str
    name: Annotated[str, Meta(description="ASCII form.", examples=["xn--bcher-kva.example"])]
    display_name: Annotated[str, Meta(description="As people read it.", examples=["bücher.example"])]
    account_id: str
    is_automatic: Annotated[bool, Meta(description="True: it came with a site, and goes with it.")]
    created_at: datetime
    updated_at: datetime


class DomainPage(msgspec.Struct, frozen=True, kw_only=True):
    """Domains, newest first."""

    items: tuple[DomainView, ...]
    next_cursor: str | None
