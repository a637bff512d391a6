"""What goes in and out of the API for sites."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.core.domains.views import HostName
from shared.specs.site import MAX_ALIASES, MAX_DIRECTIVES_LENGTH

Aliases = Annotated[
    tuple[HostName, ...],
    Meta(max_length=MAX_ALIASES, description="Further host names of the same site.", examples=[["www.example.com"]]),
]
DocumentRoot = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="Folder that is served, below ~/sites/DOMAIN.",
        examples=["public", "app/public"],
    ),
]
PhpVersion = Annotated[str, Meta(pattern=r"^[5-9]\.[0-9]$", description="Null: the site has no PHP.", examples=["8.2"])]
Directives = Annotated[
    str,
    Meta(
        max_length=MAX_DIRECTIVES_LENGTH,
        description="nginx directives inside the site's server block; administrators only.",
        examples=["add_header X-Robots-Tag noindex;"],
    ),
]


class SiteCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new site. Its host names are claimed for the account when they are free."""

    account_id: Annotated[str, Meta(min_length=1, max_length=36, description="Whose site it is.")]
    domain: HostName
    aliases: Aliases = ()
    document_root: DocumentRoot = "public"
    php_version: PhpVersion | None = None
    extra_directives: Directives = ""


class SiteUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. A parked site is tried again with it."""

    aliases: Aliases | UnsetType = UNSET
    document_root: DocumentRoot | UnsetType = UNSET
    php_version: PhpVersion | UnsetType | None = UNSET
    extra_directives: Directives | UnsetType = UNSET


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site: what is wanted of it, and whether its node took it."""

    id: str
    account_id: str
    domain: str
    display_name: Annotated[str, Meta(description="The domain as people read it.")]
    aliases: tuple[str, ...]
    document_root: str
    php_version: str | None
    extra_directives: str
    state: Annotated[
        str,
        Meta(
            description="active: the node serves it as wanted; pending: the node has not said so yet; parked: the node "
            "refused the last change and serves what it served before; deleting: it is on its way out."
        ),
    ]
    generation: Annotated[int, Meta(description="Generation of the account that changed it last.")]
    parked_at: datetime | None
    parked_code: Annotated[str | None, Meta(description="Code of the error for which it was parked.")]
    parked_message: Annotated[str | None, Meta(description="The node's own words, for example nginx's message.")]
    has_last_good: Annotated[bool, Meta(description="True: there is an earlier state to go back to.")]
    created_at: datetime
    updated_at: datetime


class SitePage(msgspec.Struct, frozen=True, kw_only=True):
    """Sites, newest first."""

    items: tuple[SiteView, ...]
    next_cursor: str | None
