"""What goes in and out of the API for people, roles and teams."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

RoleName = Literal["root", "admin", "reseller", "client", "member"]
Level = Literal["admin", "reseller", "client", "member"]
Username = Annotated[str, Meta(min_length=2, max_length=64, examples=["grace"])]
Reference = Annotated[str, Meta(max_length=64)]
Permissions = Annotated[
    list[Annotated[str, Meta(max_length=64)]],
    Meta(
        min_length=1,
        max_length=128,
        description="NOUN:read, NOUN:write (with reading), `*:read` or `*`; see: wcp360 permissions list.",
        examples=[["sites:write", "domains:read"]],
    ),
]
RoleTitle = Annotated[str, Meta(min_length=1, max_length=64, examples=["Developer"])]
RoleDescription = Annotated[str, Meta(max_length=500)]
CustomRoleId = Annotated[
    str, Meta(max_length=64, description="Custom role that narrows what the role allows; null: all that it allows.")
]


class PersonCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody new who signs in."""

    username: Username
    role: RoleName
    reseller_id: Annotated[Reference | None, Meta(description="Of a reseller's people; left out: one's own.")] = None
    client_id: Annotated[
        Reference | None, Meta(description="Of a client's people and team members; left out: one's own.")
    ] = None
    role_id: CustomRoleId | None = None


class PersonUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. Whose person somebody is never changes."""

    role: Annotated[RoleName, Meta(description="Between root and admin, or between client and member.")] | UnsetType = (
        UNSET
    )
    role_id: CustomRoleId | UnsetType | None = UNSET


class PersonView(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who signs in."""

    id: str
    username: str
    role: str
    reseller_id: Annotated[str | None, Meta(description="Of a reseller's people.")]
    client_id: Annotated[str | None, Meta(description="Of a client's people and team members.")]
    role_id: Annotated[str | None, Meta(description="Custom role; null: all that the role allows.")]
    must_change_password: bool
    disabled_at: Annotated[datetime | None, Meta(description="Since when they cannot sign in; null: they can.")]
    created_at: datetime
    updated_at: datetime


class PersonPage(msgspec.Struct, frozen=True, kw_only=True):
    """People, newest first."""

    items: tuple[PersonView, ...]
    next_cursor: str | None


class NewPassword(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody and their one-time password."""

    user: PersonView
    password: Annotated[str, Meta(description="Shown once; to be changed after the first sign-in.")]


class Impersonation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why somebody is viewed as."""

    reason: Annotated[
        str, Meta(min_length=3, max_length=300, description="The tenant reads it.", examples=["ticket 4711"])
    ]


class RoleCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new set of permissions."""

    name: RoleTitle
    level: Annotated[Level, Meta(description="The role whose people may have it; it never allows more than that.")]
    permissions: Permissions
    description: RoleDescription = ""


class RoleUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays."""

    name: RoleTitle | UnsetType = UNSET
    description: RoleDescription | UnsetType = UNSET
    permissions: Permissions | UnsetType = UNSET


class RoleView(msgspec.Struct, frozen=True, kw_only=True):
    """A set of permissions under a name."""

    id: str
    name: str
    description: str
    level: str
    permissions: list[str]
    owner: Annotated[str, Meta(description="`platform`, `reseller/ID` or `client/ID`: whose people may have it.")]
    users: Annotated[int, Meta(description="How many people that one can see have it.")]
    created_at: datetime
    updated_at: datetime


class RolePage(msgspec.Struct, frozen=True, kw_only=True):
    """Custom roles, newest first."""

    items: tuple[RoleView, ...]
    next_cursor: str | None


class PermissionView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that one may or may not do."""

    name: Annotated[str, Meta(examples=["sites:write"])]
    description: str
    levels: Annotated[list[str], Meta(description="Roles that may have it.")]
    is_mine: Annotated[bool, Meta(description="Whether one has it, so may give it to others.")]


class PermissionList(msgspec.Struct, frozen=True, kw_only=True):
    """All permissions there are."""

    items: tuple[PermissionView, ...]
    next_cursor: str | None = None


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A team member of an account."""

    user_id: str
    username: str
    role_id: str | None
    since: datetime


class MemberPage(msgspec.Struct, frozen=True, kw_only=True):
    """Team members, newest first."""

    items: tuple[MemberView, ...]
    next_cursor: str | None
