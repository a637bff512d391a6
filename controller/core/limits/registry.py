"""What can be limited and switched, by whom it is enforced, and how an account's use of it is counted."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import BugError, InvalidInputError

MAX_COUNT: Final = 1_000_000
MAX_BYTES: Final = 2**60

Count = Callable[[AsyncSession, Collection[str]], Awaitable[Mapping[str, int]]]
"""How much each of these accounts (ids) uses now; one that is left out uses nothing."""


class Enforcement(enum.Enum):
    """Who keeps an account within a limit."""

    NODE = "node"
    """The kernel of the account's node; it is read back as a proof."""
    CORE = "core"
    """The controller, before anything is written."""
    POLICY = "policy"
    """Nobody at once: nodes measure it, and the package's overuse policy says what follows."""
    NOBODY = "nobody"
    """Nobody yet: what it counts does not exist in this release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitKind:
    """One thing that a package can limit."""

    key: str
    """Stable; for a limit that a node enforces, the package's own field of this name holds the hard value."""
    title: str
    unit: str
    """What one of it is called, in the plural; bytes, percent and weight are units, too."""
    count: Count | None = None
    """None: this release cannot say how much an account uses."""
    is_node_enforced: bool = False
    is_measured: bool = False
    """Nodes say how much is used, as their samples come in: more than the soft value for the grace period of the
    package's policy is too much, as with disk quotas, since the hard one cannot always be passed."""
    is_passing: bool = False
    """It falls by itself (memory, processes): what is used this moment keeps nobody from a smaller package."""
    is_monthly: bool = False
    """It begins at nothing with each calendar month (UTC): more than the soft value is told of, and only more than the
    hard one is too much."""
    maximum: int = MAX_COUNT

    @property
    def enforcement(self) -> Enforcement:
        """Who keeps accounts within it."""
        if self.is_node_enforced:
            return Enforcement.NODE
        if self.is_measured:
            return Enforcement.POLICY
        return Enforcement.NOBODY if self.count is None else Enforcement.CORE


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagKind:
    """One thing that a package can allow."""

    key: str
    title: str
    is_on_by_default: bool = False
    is_obeyed: bool = False
    """False: what it switches does not exist in this release."""
    binds_administrators: bool = True
    """False: it says what tenants may look at, so an operator is not stopped by it."""
    is_told_to_nodes: bool = False
    """True: accounts converge when their package switches it."""


_NODE_LIMITS: Final = (
    LimitKind(key="cpu_percent", title="Processor", unit="percent of one core", is_node_enforced=True, maximum=100_000),
    LimitKind(key="memory_bytes", title="Memory", unit="bytes", is_node_enforced=True, maximum=MAX_BYTES),
    LimitKind(key="processes_max", title="Processes", unit="processes", is_node_enforced=True),
    LimitKind(key="io_weight", title="Share of the disk", unit="weight", is_node_enforced=True, maximum=10_000),
    LimitKind(key="disk_bytes", title="Disk", unit="bytes", is_node_enforced=True, maximum=MAX_BYTES),
)
_COUNTED_LIMITS: Final = (
    LimitKind(key="inodes", title="Files and folders", unit="inodes", maximum=MAX_BYTES),
    LimitKind(key="bandwidth_bytes", title="Traffic in a month", unit="bytes", maximum=MAX_BYTES),
    LimitKind(key="cpu_seconds", title="Processor time in a month", unit="seconds", maximum=MAX_BYTES),
    LimitKind(key="sites", title="Sites", unit="sites"),
    LimitKind(key="domains", title="Domains", unit="domains"),
    LimitKind(key="subdomains", title="Subdomains", unit="subdomains"),
    LimitKind(key="databases", title="Databases", unit="databases"),
    LimitKind(key="database_users", title="Database users", unit="database users"),
    LimitKind(key="mailboxes", title="Mailboxes", unit="mailboxes"),
    LimitKind(key="ftp_accounts", title="FTP accounts", unit="FTP accounts"),
    LimitKind(key="cron_jobs", title="Cron jobs", unit="cron jobs"),
)
API: Final = FlagKind(key="api", title="API tokens", is_on_by_default=True, is_obeyed=True, binds_administrators=False)
"""Of the people of a package's accounts; obeyed where somebody shows a token (controller.core.auth.identities)."""
_FLAGS: Final = (
    FlagKind(key="ssh", title="SSH access"),
    FlagKind(key="cron", title="Cron jobs", is_on_by_default=True),
    FlagKind(key="git", title="Deployment from Git"),
    FlagKind(key="staging", title="Staging environments"),
    FlagKind(key="ssl", title="Certificates", is_on_by_default=True),
    FlagKind(key="dns", title="DNS records", is_on_by_default=True),
    FlagKind(key="backup", title="Access to backups", is_on_by_default=True),
    API,
    FlagKind(key="runtimes", title="Node.js and Python"),
    FlagKind(key="custom_php", title="PHP settings of their own"),
    FlagKind(key="advanced_logs", title="Error logs", is_obeyed=True, binds_administrators=False),
)


class LimitRegistry:
    """Everything that was declared, in the order in which people are shown it. Set up once by bootstrap."""

    def __init__(self, limits: Iterable[LimitKind] = (), flags: Iterable[FlagKind] = ()) -> None:
        """`limits`, `flags`: what this release's modules declare; they replace core's own declarations of the key.

        Raises:
            BugError: Two modules declare one key.
        """
        self._limits = {kind.key: kind for kind in (*_NODE_LIMITS, *_COUNTED_LIMITS)}
        self._flags = {kind.key: kind for kind in _FLAGS}
        _put(self._limits, limits)
        _put(self._flags, flags)

    @property
    def limits(self) -> tuple[LimitKind, ...]:
        """All limits."""
        return tuple(self._limits.values())

    @property
    def counted(self) -> tuple[LimitKind, ...]:
        """Limits of which an account's use is known."""
        return tuple(kind for kind in self._limits.values() if kind.count is not None)

    @property
    def flags(self) -> tuple[FlagKind, ...]:
        """All feature flags."""
        return tuple(self._flags.values())

    def limit(self, key: str) -> LimitKind:
        """What was declared under this key.

        Raises:
            BugError: Nothing was.
        """
        if key not in self._limits:
            raise BugError(f"nobody declared the limit {key!r}")
        return self._limits[key]

    def flag(self, key: str) -> FlagKind:
        """What was declared under this key.

        Raises:
            BugError: Nothing was.
        """
        if key not in self._flags:
            raise BugError(f"nobody declared the feature flag {key!r}")
        return self._flags[key]

    def require_limit(self, key: str, *, field: str) -> LimitKind:
        """What somebody means by this key.

        Raises:
            InvalidInputError: There is no such limit.
        """
        if key not in self._limits:
            hint = f"The limits are {', '.join(self._limits)}."
            raise InvalidInputError(f"there is no limit {key[:40]!r}", field=field, hint=hint)
        return self._limits[key]

    def require_flag(self, key: str, *, field: str) -> FlagKind:
        """What somebody means by this key.

        Raises:
            InvalidInputError: There is no such flag.
        """
        if key not in self._flags:
            hint = f"The features are {', '.join(self._flags)}."
            raise InvalidInputError(f"there is no feature {key[:40]!r}", field=field, hint=hint)
        return self._flags[key]


def _put(known: dict[str, LimitKind] | dict[str, FlagKind], declared: Iterable[LimitKind | FlagKind]) -> None:
    seen: set[str] = set()
    for kind in declared:
        if kind.key in seen:
            raise BugError(f"two modules declare {kind.key!r}")
        seen.add(kind.key)
        known[kind.key] = kind  # type: ignore[assignment] # both callers pass kinds of the dictionary's own type
