"""What each role may do at most, as sets of permissions: `*`, `*:read`, `*:write`, `NOUN:read`, `NOUN:write`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

EVERYTHING: Final = frozenset({"*"})


class Role(enum.Enum):
    """Kinds of people, from who owns the machines to who may look after one account."""

    ROOT = "root"
    ADMIN = "admin"
    RESELLER = "reseller"
    CLIENT = "client"
    MEMBER = "member"
    """Works on some accounts of a client, in a role of the client's choice."""


def _rights(*, read: str, write: str) -> frozenset[str]:
    """`write` includes reading."""
    writing = write.split()
    return frozenset([f"{noun}:read" for noun in (*read.split(), *writing)] + [f"{noun}:write" for noun in writing])


_OWN: Final = "tokens sessions passkeys notices"
"""About the person themselves."""

ROLE_PERMISSIONS: Final[Mapping[Role, frozenset[str]]] = MappingProxyType({
    Role.ROOT: EVERYTHING,
    Role.ADMIN: EVERYTHING,
    Role.RESELLER: _rights(
        read="jobs audit billing resellers events attention",
        write=f"packages clients accounts domains sites parked users roles branding ssh-keys webhooks rules {_OWN}",
    ),
    Role.CLIENT: _rights(
        read="packages clients accounts jobs audit events branding attention",
        write=f"domains sites parked users roles ssh-keys webhooks {_OWN}",
    ),
    Role.MEMBER: _rights(
        read="packages clients accounts jobs audit events branding attention",
        write=f"domains sites parked ssh-keys {_OWN}",
    ),
})  # fmt: skip
"""Nobody has more than this, whatever their custom role or token says. Rows are narrowed besides: see Reach."""


def allows(grant: frozenset[str], noun: str, verb: str) -> bool:
    """Whether a set of permissions has this one."""
    return not grant.isdisjoint((f"{noun}:{verb}", "*", f"*:{verb}"))
