"""What goes in and out of the API for packages. The descriptions become OpenAPI and the CLI's help."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.specs.account import GIB, MIB

MAX_UPLOAD_BYTES: Final = 16 * GIB

Name = Annotated[
    str, Meta(min_length=1, max_length=60, description="Unique name, for people.", examples=["Starter", "Pro 4 GB"])
]
Description = Annotated[str, Meta(max_length=500, description="What the package is for.")]
CpuPercent = Annotated[
    int, Meta(ge=1, le=100_000, description="CPU time in percent of one core; 200 is two cores.", examples=[100])
]
MemoryBytes = Annotated[
    int,
    Meta(ge=16 * MIB, le=16 * 1024 * GIB, description="Memory of all the account's processes.", examples=[512 * MIB]),
]
ProcessesMax = Annotated[int, Meta(ge=5, le=100_000, description="Processes and threads together.", examples=[100])]
IoWeight = Annotated[
    int, Meta(ge=1, le=10_000, description="Share of the disk when it is busy; the default of the kernel is 100.")
]
DiskBytes = Annotated[
    int, Meta(ge=10 * MIB, le=1024 * 1024 * GIB, description="Size of the account's home.", examples=[5 * GIB])
]
SitesMax = Annotated[int, Meta(ge=0, le=100_000, description="Sites the account may have.", examples=[10])]
PhpVersion = Annotated[str, Meta(pattern=r"^[5-9]\.[0-9]$", examples=["8.2"])]
PhpVersions = Annotated[
    tuple[PhpVersion, ...], Meta(max_length=20, description="PHP versions that the account's sites may use.")
]
PhpChildrenMax = Annotated[int, Meta(ge=1, le=500, description="PHP requests at the same time, for each version.")]
PhpMemoryBytes = Annotated[int, Meta(ge=16 * MIB, le=1024 * GIB, description="memory_limit of one PHP request.")]
UploadMaxBytes = Annotated[
    int, Meta(ge=MIB, le=MAX_UPLOAD_BYTES, description="Largest upload, for the web server and PHP alike.")
]


class PackageCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new package. A limit that is left out or null is unlimited."""

    name: Name
    description: Description = ""
    cpu_percent: CpuPercent | None = None
    memory_bytes: MemoryBytes | None = None
    processes_max: ProcessesMax | None = None
    io_weight: IoWeight | None = None
    disk_bytes: DiskBytes | None = None
    sites_max: SitesMax | None = None
    php_versions: PhpVersions | None = None
    php_children_max: PhpChildrenMax = 5
    php_memory_bytes: PhpMemoryBytes = 128 * MIB
    upload_max_bytes: UploadMaxBytes = 64 * MIB


class PackageUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. Null takes a limit away."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    cpu_percent: CpuPercent | UnsetType | None = UNSET
    memory_bytes: MemoryBytes | UnsetType | None = UNSET
    processes_max: ProcessesMax | UnsetType | None = UNSET
    io_weight: IoWeight | UnsetType | None = UNSET
    disk_bytes: DiskBytes | UnsetType | None = UNSET
    sites_max: SitesMax | UnsetType | None = UNSET
    php_versions: PhpVersions | UnsetType | None = UNSET
    php_children_max: PhpChildrenMax | UnsetType = UNSET
    php_memory_bytes: PhpMemoryBytes | UnsetType = UNSET
    upload_max_bytes: UploadMaxBytes | UnsetType = UNSET


class PackageView(msgspec.Struct, frozen=True, kw_only=True):
    """A package. A limit that is null is unlimited."""

    id: str
    name: str
    description: str
    cpu_percent: int | None
    memory_bytes: int | None
    processes_max: int | None
    io_weight: int | None
    disk_bytes: int | None
    sites_max: int | None
    php_versions: Annotated[tuple[str, ...] | None, Meta(description="Null: every version that the node has.")]
    php_children_max: int
    php_memory_bytes: int
    upload_max_bytes: int
    accounts: Annotated[int, Meta(description="How many accounts use it.")]
    created_at: datetime
    updated_at: datetime


class PackagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Packages, newest first."""

    items: tuple[PackageView, ...]
    next_cursor: str | None
