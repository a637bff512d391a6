"""What goes in and out of the API for accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.core.accounts.models import Lifter

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

Labels = Annotated[
    dict[str, str],
    Meta(
        max_length=32,
        description="Words to find accounts by. Keys: lower-case letters, digits and inner . _ / -, up to 63; values: "
        "one line, up to 200.",
        examples=[{"plan": "gold"}],
    ),
]


class AccountCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account."""

    name: AccountName
    client_id: Annotated[RowId, Meta(description="Who owns it.")]
    package_id: Annotated[RowId, Meta(description="How much it may use.")]
    node_id: Annotated[RowId | None, Meta(description="Where it lives; null: the node with the most room.")] = None
    labels: Labels = {}


class AccountClone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account after the model of another. Files are not copied: its sites begin empty."""

    name: AccountName
    client_id: Annotated[RowId | None, Meta(description="Who owns it; null: the same client.")] = None
    node_id: Annotated[RowId | None, Meta(description="Where it lives; null: the node with the most room.")] = None
    domains: Annotated[
        dict[str, str],
        Meta(
            max_length=200,
            description="Old name to new name. A site is cloned when its domain is named here; an alias below that "
            "domain moves with it, any other only when it is named as well.",
            examples=[{"example.com": "copy.example.net"}],
        ),
    ] = {}


class AccountUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays."""

    package_id: Annotated[RowId | UnsetType, Meta(description="The package it gets.")] = UNSET
    labels: Labels | UnsetType = UNSET


class AccountSuspend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an account shall not serve for now."""

    reason: Reason = ""
    liftable_by: Annotated[
        Lifter | None,
        Meta(
            description="Who may end it, and everybody above them: client, reseller or admin; policy: it ends by "
            "itself when its reason is gone. Left out: whoever is like the one that suspends."
        ),
    ] = None
    until: Annotated[datetime, Meta(tz=True, description="When it ends by itself; null: never.")] | None = None


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account: what is wanted of it, and what its node said last."""

    id: str
    name: str
    client_id: str
    package_id: str
    package_version_id: Annotated[str | None, Meta(description="The version that it keeps; null: the newest.")]
    node_id: Annotated[str | None, Meta(description="Where it lives; null once it is deleted.")]
    uid: Annotated[int, Meta(description="Unix user and group id on its node.")]
    state: Annotated[str, Meta(description="What is wanted: active, suspended, trashed, deleting or deleted.")]
    suspension_reason: str
    suspended_at: datetime | None
    suspended_by: Annotated[str | None, Meta(description="kind/ID of who suspended it.")]
    suspended_until: Annotated[datetime | None, Meta(description="When the suspension ends by itself.")]
    liftable_by: Annotated[str | None, Meta(description="Who may end the suspension: admin, reseller, client, policy.")]
    deletion_asked_at: Annotated[datetime | None, Meta(description="When it was deleted.")]
    deletion_asked_by: Annotated[str | None, Meta(description="kind/ID of who deleted it.")]
    purge_at: Annotated[datetime | None, Meta(description="While it is in the trash: when it goes for good.")]
    labels: dict[str, str]
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


class AuditPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the audit log holds a certificate's hash."""

    number: Annotated[int, Meta(description="Of the entry (wcp360 audit list).")]
    hash: Annotated[str, Meta(description="Of the entry; the chain goes on from it.")]


class DeletionCertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed with an account, when, for whom, and which job of its node proved it."""

    id: str
    account_id: str
    content: Annotated[dict[str, Any], Meta(description="What is certified.")]
    content_hash: Annotated[
        str,
        Meta(description="SHA-256 over the content as JSON in UTF-8, keys in order, nothing between them."),
    ]
    audit: Annotated[AuditPlace | None, Meta(description="Null for the first seconds.")]
    is_verified: Annotated[
        bool, Meta(description="The content has this hash, and the audit log's entry, itself unchanged, has it, too.")
    ]
    problem: Annotated[str, Meta(description="Why it is not verified; else empty.")]
    created_at: datetime


class AccountNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What administrators tell each other about an account; no tenant sees it."""

    text: Annotated[str, Meta(max_length=2000, description="Lines of text; empty: no note.")]
