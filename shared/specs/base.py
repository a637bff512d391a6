"""What every spec has in common."""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec

from shared.types.names import ResourceKey


class Presence(enum.Enum):
    """How much of a thing there is on a node. The five lifecycle verbs of a module pick one of these."""

    ABSENT = "absent"
    """Nothing of it is left (Remove)."""
    DISABLED = "disabled"
    """It is there and does not serve: an installed module that is off, a suspended account (Install, Disable)."""
    ENABLED = "enabled"
    """It is there and serves (Enable)."""


class Stage(enum.IntEnum):
    """In which order kinds are brought about; they are taken away in the reverse order."""

    MODULE = 0
    ACCOUNT = 10
    RUNTIME = 20
    SITE = 30


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all kinds of desired state. `key` names one resource within a manifest and is unique there."""

    STAGE: ClassVar[Stage]

    @property
    def key(self) -> ResourceKey:
        """`kind/name`, unique within a manifest and stable for the life of the resource."""
        raise NotImplementedError
