"""What goes in and out of the API for packages. The descriptions become OpenAPI and the CLI's help."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

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
PhpVersion = Annotated[str, Meta(pattern=r"^[5-9]\.[0-9]$", examples=["8.2"])]
PhpVersions = Annotated[
    tuple[PhpVersion, ...], Meta(max_length=20, description="PHP versions that the account's sites may use.")
]
PhpChildrenMax = Annotated[int, Meta(ge=1, le=500, description="PHP requests at the same time, for each version.")]
PhpMemoryBytes = Annotated[int, Meta(ge=16 * MIB, le=1024 * GIB, description="memory_limit of one PHP request.")]
UploadMaxBytes = Annotated[
    int, Meta(ge=MIB, le=MAX_UPLOAD_BYTES, description="Largest upload, for the web server and PHP alike.")
]
Tier = Annotated[
    Literal["admin", "reseller", "client"],
    Meta(
        description="Whom it is made for. client: accounts of anybody; reseller: accounts of resellers' clients, and"
        " resellers' own packages inherit from it; admin: accounts of the platform's own clients only."
    ),
]
RowId = Annotated[str, Meta(min_length=1, max_length=36, examples=["0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"])]
ParentId = Annotated[RowId, Meta(description="The package from which it has what it does not say itself.")]
Amount = Annotated[int, Meta(ge=0, le=2**60)]


class LimitValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of one thing."""

    soft: Annotated[Amount | None, Meta(description="From here on somebody is warned; null: never.")] = None
    hard: Annotated[Amount | None, Meta(description="Never more than this; null: unlimited.")] = None


Limits = Annotated[
    dict[str, LimitValue | Amount | None],
    Meta(
        max_length=500,
        description="Limit to how much: a number (the hard value), an object with soft and hard, or null for unlimited."
        " `list-limits` names them.",
    ),
]
Flags = Annotated[
    dict[str, bool],
    Meta(max_length=500, description="Feature to whether accounts have it. `list-features` names them."),
]


class StorageOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where accounts keep their files."""

    driver: Literal["local", "nfs", "s3"] | UnsetType = UNSET
    has_snapshots: Annotated[bool, Meta(description="Whether states of the account may be kept.")] | UnsetType = UNSET


class SecurityPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the people of an account must put up with."""

    is_two_factor_required: bool | UnsetType = UNSET
    api_rate_tier: Literal["low", "standard", "high"] | UnsetType = UNSET
    sessions_max: (
        Annotated[int, Meta(ge=1, le=1000, description="Sessions of one login at the same time.")] | UnsetType | None
    ) = UNSET
    allowed_networks: (
        Annotated[
            tuple[Annotated[str, Meta(max_length=50)], ...],
            Meta(max_length=100, description="Networks from which one may sign in; empty: from anywhere."),
        ]
        | UnsetType
    ) = UNSET
    process_restrictions: (
        Annotated[
            Literal["standard", "strict"],
            Meta(description="strict: PHP starts no other program, and nobody logs in over SSH."),
        ]
        | UnsetType
    ) = UNSET


class OverusePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to an account that has more than its package allows."""

    action: Literal["alert", "throttle", "suspend"] | UnsetType = UNSET
    grace_hours: (
        Annotated[int, Meta(ge=0, le=24 * 90, description="How long it may have more before more than an alert.")]
        | UnsetType
    ) = UNSET


class RolloutTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an edit reaches the accounts: some first, more when they are well, none after too many failures."""

    waves: Annotated[
        tuple[Annotated[str, Meta(max_length=20)], ...],
        Meta(max_length=20, description="Numbers of accounts or shares of them, each counted from the first account."),
    ] = ("1", "10%", "100%")
    soak_seconds: Annotated[
        int, Meta(ge=0, le=604_800, description="How long all has to be well before the next wave begins.")
    ] = 300
    failures_max: Annotated[int, Meta(ge=0, le=100_000, description="With one more it halts.")] = 0
    account_timeout_seconds: Annotated[
        int, Meta(ge=60, le=86_400, description="An account whose node has not answered by then has failed.")
    ] = 1200
    deadline_hours: Annotated[
        int, Meta(ge=1, le=2160, description="Until then accounts of nodes that were away are picked up.")
    ] = 168


class PackageCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new package. What is left out comes from the parent; without one, a limit is unlimited. Null is unlimited."""

    name: Name
    description: Description = ""
    tier: Tier = "client"
    reseller_id: Annotated[
        RowId | None,
        Meta(description="Whose it is; only administrators say so. Null: a reseller's own, or everybody's."),
    ] = None
    parent_id: ParentId | None = None
    cpu_percent: CpuPercent | UnsetType | None = UNSET
    memory_bytes: MemoryBytes | UnsetType | None = UNSET
    processes_max: ProcessesMax | UnsetType | None = UNSET
    io_weight: IoWeight | UnsetType | None = UNSET
    disk_bytes: DiskBytes | UnsetType | None = UNSET
    php_versions: PhpVersions | UnsetType | None = UNSET
    php_children_max: PhpChildrenMax | UnsetType = UNSET
    php_memory_bytes: PhpMemoryBytes | UnsetType = UNSET
    upload_max_bytes: UploadMaxBytes | UnsetType = UNSET
    limits: Limits = {}
    flags: Flags = {}
    storage: StorageOptions | UnsetType = UNSET
    security: SecurityPolicy | UnsetType = UNSET
    overuse: OverusePolicy | UnsetType = UNSET


class PackageUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. Null makes a limit unlimited; `inherit` takes back an own value."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    tier: Tier | UnsetType = UNSET
    parent_id: ParentId | UnsetType | None = UNSET
    cpu_percent: CpuPercent | UnsetType | None = UNSET
    memory_bytes: MemoryBytes | UnsetType | None = UNSET
    processes_max: ProcessesMax | UnsetType | None = UNSET
    io_weight: IoWeight | UnsetType | None = UNSET
    disk_bytes: DiskBytes | UnsetType | None = UNSET
    php_versions: PhpVersions | UnsetType | None = UNSET
    php_children_max: PhpChildrenMax | UnsetType = UNSET
    php_memory_bytes: PhpMemoryBytes | UnsetType = UNSET
    upload_max_bytes: UploadMaxBytes | UnsetType = UNSET
    limits: Limits = {}
    flags: Flags = {}
    storage: StorageOptions | UnsetType = UNSET
    security: SecurityPolicy | UnsetType = UNSET
    overuse: OverusePolicy | UnsetType = UNSET
    inherit: Annotated[
        tuple[Annotated[str, Meta(max_length=80, examples=["memory_bytes", "limits.sites"])], ...],
        Meta(max_length=200, description="Fields that shall come from the parent again (or be the default)."),
    ] = ()
    rollout: Annotated[RolloutTerms | None, Meta(description="Reach the accounts in waves; left out: all at once.")] = (
        None
    )


class PackageView(msgspec.Struct, frozen=True, kw_only=True):
    """A package as its accounts have it, inherited values included. A limit that is null is unlimited."""

    id: str
    name: str
    description: str
    tier: str
    visibility: Annotated[str, Meta(description="global, or reseller: only for its reseller and their clients.")]
    reseller_id: str | None
    parent_id: str | None
    version: Annotated[int, Meta(description="Number of its newest version.")]
    cpu_percent: int | None
    memory_bytes: int | None
    processes_max: int | None
    io_weight: int | None
    disk_bytes: int | None
    php_versions: Annotated[tuple[str, ...] | None, Meta(description="Null: every version that the node has.")]
    php_children_max: int
    php_memory_bytes: int
    upload_max_bytes: int
    limits: Annotated[dict[str, LimitValue], Meta(description="Limits beside the above; one not named is unlimited.")]
    flags: dict[str, bool]
    storage: StorageOptions
    security: SecurityPolicy
    overuse: OverusePolicy
    own_fields: Annotated[tuple[str, ...], Meta(description="What it says itself; the rest is inherited or default.")]
    accounts: Annotated[int, Meta(description="How many accounts use it, pinned ones included.")]
    is_suspended: Annotated[bool, Meta(description="No account gets it any more; those that have it go on.")]
    suspended_at: datetime | None
    rollout_id: Annotated[str | None, Meta(description="The open rollout of its newest version, if there is one.")]
    created_at: datetime
    updated_at: datetime


class PackagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Packages, newest first."""

    items: tuple[PackageView, ...]
    next_cursor: str | None


class FieldView(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a package as its accounts have it, and where it comes from."""

    field: Annotated[str, Meta(examples=["memory_bytes", "limits.sites", "flags.ssh"])]
    value: Any
    source: Annotated[str, Meta(description="own, inherited or default.")]
    package_id: Annotated[str | None, Meta(description="Whose value it is; null for a default.")]
    package_name: str


class FieldList(msgspec.Struct, frozen=True, kw_only=True):
    """Every field of a package."""

    items: tuple[FieldView, ...]
    next_cursor: str | None = None


class PackageClone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the copy is called."""

    name: Name
    description: Description | UnsetType = UNSET


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A package as one edit left it."""

    id: str
    package_id: str
    number: int
    name: str
    note: Annotated[str, Meta(description="Why it was made, when nobody edited this very package.")]
    actor: str
    actor_name: str
    created_at: datetime
    accounts: Annotated[int, Meta(description="How many accounts are pinned to it.")]
    values: Annotated[dict[str, Any], Meta(description="Every field as accounts have it.")]
    own_fields: tuple[str, ...]


class VersionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Versions, newest first."""

    items: tuple[VersionView, ...]
    next_cursor: str | None


class FieldDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One field that two versions have differently."""

    field: str
    before: Any
    after: Any


class VersionDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from one version to another."""

    before: int
    after: int
    items: tuple[FieldDifference, ...]
    next_cursor: str | None = None


class AccountPin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version of its package an account follows."""

    version: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="A version's number; null: always the newest.")
    ]


class LimitKindView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a package can limit."""

    key: str
    title: str
    unit: str
    enforced_by: Annotated[
        str,
        Meta(description="node (the kernel), core (before anything is written), policy (overuse) or nobody yet."),
    ]
    is_counted: Annotated[bool, Meta(description="False: not counted yet; it can be set, and is shown.")]
    maximum: int


class LimitKindList(msgspec.Struct, frozen=True, kw_only=True):
    """All limits."""

    items: tuple[LimitKindView, ...]
    next_cursor: str | None = None


class FlagKindView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a package can allow."""

    key: str
    title: str
    is_on_by_default: bool
    is_obeyed: Annotated[bool, Meta(description="False: what it switches does not exist in this release.")]


class FlagKindList(msgspec.Struct, frozen=True, kw_only=True):
    """All features."""

    items: tuple[FlagKindView, ...]
    next_cursor: str | None = None
