"""What goes in and out of the API for accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

AccountName = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=24,
        description="The unix user: lower-case letters, digits and inner hyphens, starting with a letter.",
        examples=["ada"],
    ),
]
RowId = Annotated[str, Meta(min_length=1, max_length=36, examples=["0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"])]
Reason = Annotated[
    str, Meta(max_length=500, description="For administrators; visitors do not see it.", examples=["unpaid invoice"])
]


class AccountCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account."""

    name: AccountName
    client_id: Annotated[RowId, Meta(description="Who owns it.")]
    package_id: Annotated[RowId, Meta(description="How much it may use.")]
    node_id: Annotated[RowId | None, Meta(description="Where it lives; null: the node with the most room.")] = None


class AccountUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change."""

    package_id: Annotated[RowId, Meta(description="The package it gets.")]


class AccountSuspend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an account shall not serve for now."""

    reason: Reason = ""


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account: what is wanted of it, and what its node said last."""

    id: str
    name: str
    client_id: str
    package_id: str
    package_version_id: Annotated[str | None, Meta(description="The version that it keeps; null: the newest.")]
    node_id: Annotated[str | None, Meta(description="Where it lives; null once it is deleted.")]
    uid: Annotated[int, Meta(description="Unix user and group id on its node.")]
    state: Annotated[str, Meta(description="What is wanted: active, suspended, deleting or deleted.")]
    suspension_reason: str
    suspended_at: datetime | None
    desired_generation: Annotated[int, Meta(description="Number of the latest change.")]
    observed_generation: Annotated[int, Meta(description="Number of the latest change that the node has finished.")]
    observed_status: Annotated[str, Meta(description="What the node said: unknown, ok, parked or failed.")]
    observed_at: datetime | None
    observed_code: Annotated[str | None, Meta(description="Code of what went wrong last; null when nothing did.")]
    observed_message: str | None
    is_converged: Annotated[bool, Meta(description="True when the node has what is wanted, as far as we know.")]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class AccountPage(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts, newest first."""

    items: tuple[AccountView, ...]
    next_cursor: str | None


class ManifestView(msgspec.Struct, frozen=True, kw_only=True):
    """What the node is told to bring about for an account."""

    subject: str
    generation: int
    digest: Annotated[str, Meta(description="SHA-256 of the manifest's bytes: what the node compares.")]
    presence: Annotated[str, Meta(description="enabled, disabled (suspended) or absent (deleted).")]
    drift_policy: str
    specs: Annotated[tuple[dict[str, Any], ...], Meta(description="Everything the account has, one object each.")]
    held: Annotated[tuple[str, ...], Meta(description="Parked resources: left as they are on the node.")]


class ProofView(msgspec.Struct, frozen=True, kw_only=True):
    """A limit, and what the node's kernel said when it was read back."""

    resource: Annotated[str, Meta(examples=["account/ada"])]
    limit: Annotated[str, Meta(examples=["memory_bytes"])]
    wanted: Annotated[int | None, Meta(description="Null: unlimited.")]
    enforced: Annotated[int | None, Meta(description="Null: the kernel enforces nothing.")]
    is_proven: Annotated[bool, Meta(description="True when the kernel enforces exactly what is wanted.")]
    source: Annotated[str, Meta(description="The file or command it was read from.")]
    generation: int
    read_at: datetime


class ProofList(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of an account, each "enforced, proven at"."""

    items: tuple[ProofView, ...]
    next_cursor: str | None = None


class AccountDriftView(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that is not as it was applied."""

    id: str
    key: Annotated[str, Meta(examples=["site/example.com"])]
    summary: str
    diff: Annotated[str, Meta(description="Unified diff where it is a text file.")]
    is_repaired: Annotated[bool, Meta(description="True: the node put it right by itself, by policy.")]
    found_at: datetime
    checked_at: datetime
    is_ignored: Annotated[
        bool, Meta(description="Somebody decided to live with it for now; it does not count as open.")
    ]
    ignored_until: datetime | None
    ignored_by: Annotated[str, Meta(description="user/ID or token/ID.")]
    ignore_reason: str


class AccountDriftList(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when the account was last compared with its node."""

    items: tuple[AccountDriftView, ...]
    next_cursor: str | None = None
