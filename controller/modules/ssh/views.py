"""What goes in and out of the API for SSH keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.specs.ssh_access import MAX_KEY_NETWORKS

KeyName = Annotated[
    str, Meta(min_length=1, max_length=100, description="For people.", examples=["laptop", "deploy pipeline"])
]
PublicKeyLine = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=20_000,
        description="A line of a .pub file. Ed25519, ECDSA, RSA from 2048 bits or a security key.",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ada@laptop"],
    ),
]
Expiry = Annotated[datetime, Meta(tz=True, description="From then on it opens nothing. Null: no end.")]
Networks = Annotated[
    tuple[str, ...],
    Meta(
        max_length=MAX_KEY_NETWORKS,
        description="Only from these, in CIDR notation; empty: from everywhere.",
        examples=[["203.0.113.0/24"]],
    ),
]


class SshKeyCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public key that shall open an account."""

    account_id: Annotated[str, Meta(min_length=1, max_length=36, description="Whose login it is.")]
    name: KeyName
    public_key: PublicKeyLine
    expires_at: Expiry | None = None
    allowed_networks: Networks = ()


class SshKeyUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. The key itself never changes: add another one."""

    name: KeyName | UnsetType = UNSET
    expires_at: Expiry | UnsetType | None = UNSET


class SshKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A public key of an account."""

    id: str
    account_id: str
    name: str
    key_type: Annotated[str, Meta(examples=["ssh-ed25519"])]
    fingerprint: Annotated[str, Meta(description="As ssh-keygen -l shows it.")]
    public_key: Annotated[str, Meta(description="Type and base64, as sshd is given it.")]
    comment: str
    expires_at: datetime | None
    allowed_networks: tuple[str, ...]
    state: Annotated[
        str,
        Meta(
            description="active: it opens the account while its package has SSH and it is not suspended; expired: its "
            "time is over."
        ),
    ]
    created_at: datetime
    updated_at: datetime


class SshKeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """SSH keys, newest first."""

    items: tuple[SshKeyView, ...]
    next_cursor: str | None
