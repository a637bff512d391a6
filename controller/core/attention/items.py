"""What one item of the list is made of."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

CRITICAL: Final = "critical"
WARNING: Final = "warning"
RESELLER: Final = "reseller"
"""Kind of what a reseller is told of itself, too; other items without an account are the platform's."""
TENANT_WEBHOOK: Final = "tenant_webhook"
TENANT_RULE: Final = "tenant_rule"
OF_TENANTS: Final = frozenset({TENANT_WEBHOOK, TENANT_RULE})
"""Kinds of what is told to the reseller or client whose it is, and not to the platform's people."""


class AttentionAction(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may be done about an item."""

    name: Annotated[str, Meta(examples=["retry", "discard", "explain"])]
    description: str
    command: Annotated[str, Meta(description="The same on the command line.")]
    method: str
    path: Annotated[str, Meta(description="Below /api/v1.")]


class AttentionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person should look at."""

    id: Annotated[str, Meta(description="kind.ID, the same as long as it is there.")]
    kind: Annotated[
        str,
        Meta(
            description="job, parked, node, approval, drift, usage, reseller, package_rollout, webhook, "
            "tenant_webhook, rule, tenant_rule or audit."
        ),
    ]
    severity: Annotated[str, Meta(description="critical or warning.")]
    title: str
    detail: str
    since: datetime
    node_id: str | None
    node_name: str
    account_id: str | None
    is_muted: Annotated[bool, Meta(description="Its node is in maintenance, or being drained.")]
    actions: tuple[AttentionAction, ...]
    fingerprint: Annotated[str, Meta(description="Of what it says; another one is a new item.")]
    dismissed_by: str | None = None
    dismiss_note: str | None = None


def act(name: str, description: str, command: str, method: str, path: str) -> AttentionAction:
    return AttentionAction(name=name, description=description, command=f"wcp360 {command}", method=method, path=path)


def make_fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
