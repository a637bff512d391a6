"""The account itself: a unix user, a home on a storage driver, and the limits of its slice."""

from __future__ import annotations

import enum
from typing import ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from shared.errors import InvalidInputError
from shared.specs.base import Spec, Stage
from shared.types.names import ResourceKey, UnixName, parse_unix_name

MIN_TENANT_UID: Final = 20_000
MAX_TENANT_UID: Final = 59_999
"""Tenants live between Debian's ordinary users and systemd's own ranges.

Source: Debian Policy 9.2.2 (1000-59999 for users), https://systemd.io/UIDS-GIDS (60001 and up is systemd's).
"""

TENANTS_GROUP: Final = "wcp-tenants"
"""Every account's unix user is in it, so that sshd knows a tenant from a person who looks after the node."""

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


class StorageDriver(enum.Enum):
    """How an account's home is kept, and with it whether its size can be enforced."""

    DIRECTORY = "directory"
    """A plain directory; the size is counted, not enforced."""
    BTRFS = "btrfs"
    """A btrfs subvolume with a qgroup limit that the kernel enforces."""
    AUTO = "auto"
    """The node chooses: btrfs where the accounts' file system is btrfs, else a directory."""


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the kernel lets the account use. None means unlimited."""

    cpu_percent: int | None = None
    """Share of one core in percent, 1 to 100000 (400 is four cores). Source: CPUQuota=, systemd.resource-control(5)."""
    memory_bytes: int | None = None
    """Hard limit, 16 MiB to 16 TiB. Source: MemoryMax=, systemd.resource-control(5)."""
    processes_max: int | None = None
    """Processes and threads together, 5 to 100000. Source: TasksMax=, systemd.resource-control(5)."""
    io_weight: int | None = None
    """1 to 10000, the kernel's default is 100. Source: IOWeight=, systemd.resource-control(5)."""
    disk_bytes: int | None = None
    """Size of the home, 10 MiB to 1 PiB."""

    def __post_init__(self) -> None:
        _require_between("cpu_percent", self.cpu_percent, 1, 100_000)
        _require_between("memory_bytes", self.memory_bytes, 16 * MIB, 16 * 1024 * GIB)
        _require_between("processes_max", self.processes_max, 5, 100_000)
        _require_between("io_weight", self.io_weight, 1, 10_000)
        _require_between("disk_bytes", self.disk_bytes, 10 * MIB, 1024 * 1024 * GIB)


def _require_between(field: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInputError(f"{field} must be between {low} and {high}; it is {value}", field=field)


class AccountSpec(Spec, frozen=True, kw_only=True, tag="account"):
    """One account on one node."""

    STAGE: ClassVar[Stage] = Stage.ACCOUNT

    name: UnixName
    uid: int
    """Unix user and group id, MIN_TENANT_UID to MAX_TENANT_UID, never used twice on a node."""
    limits: ResourceLimits = ResourceLimits()
    storage: StorageDriver = StorageDriver.AUTO
    has_shell: bool | UnsetType = UNSET
    """True: it may log in, if a module gives it a way. UNSET, not False: agents of before do not know the field."""

    def __post_init__(self) -> None:
        parse_unix_name(self.name)
        if not MIN_TENANT_UID <= self.uid <= MAX_TENANT_UID:
            raise InvalidInputError(f"uid {self.uid} is outside the tenants' range", field="uid")

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(f"account/{self.name}")
