"""What can be read from a host. Reading changes nothing."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from shared.specs.account import ResourceLimits, StorageDriver


class UserFact(msgspec.Struct, frozen=True, kw_only=True):
    """One line of passwd, and whether the account is expired."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    is_locked: bool
    groups: tuple[str, ...] = ()
    """Those beside its own, sorted."""


class PathFact(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at a path; a symbolic link is reported, not followed."""

    kind: str
    """file, directory, symlink or other."""
    owner: str
    group: str
    mode: int
    """Permission bits only."""
    content_hash: str | None = None
    """SHA-256 in hex; regular files only."""


class UnitFact(msgspec.Struct, frozen=True, kw_only=True):
    """A systemd unit."""

    is_loaded: bool
    """False: systemd knows no such unit."""
    is_running: bool
    is_enabled: bool
    has_failed: bool = False
    changed_at: float = 0.0
    """When it last started, stopped or reloaded, seconds since the epoch; 0: not known."""


class HomeFact(msgspec.Struct, frozen=True, kw_only=True):
    """An account's home on its storage driver."""

    driver: StorageDriver
    quota_bytes: int | None
    """As the kernel enforces it; None when nothing does."""
    used_bytes: int | None = None


class HomeUse(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in an account's home."""

    disk_bytes: int
    """As the quota counts it; else what the file system has given out, files with several names once."""
    inodes: int


class LimitReading(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as the kernel has it."""

    value: int | None
    source: str
    """The file it was read from."""


class SliceFact(msgspec.Struct, frozen=True, kw_only=True):
    """user-UID.slice: what systemd will set and what the kernel has."""

    configured: ResourceLimits
    """As systemd keeps it (disk_bytes is never set here)."""
    readings: dict[str, LimitReading]
    """Field of ResourceLimits to the kernel's value; empty while the slice has no cgroup."""
    is_active: bool


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A command that ran to its end."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


class HttpFact(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of a local web server."""

    status: int
    body_start: str
    """First 1000 characters."""


class Probe(Protocol):
    """The only way a module sees the host. Every method may raise FactError; a missing thing is None, not an error."""

    async def user(self, name: str) -> UserFact | None: ...

    async def user_of_uid(self, uid: int) -> UserFact | None: ...

    async def path(self, path: str) -> PathFact | None: ...

    async def read_text(self, path: str) -> str | None:
        """Content of a text file of at most 1 MiB, UTF-8 with replacement."""
        ...

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        """Names in it, sorted; None when there is no such directory."""
        ...

    async def unit(self, name: str) -> UnitFact: ...

    async def packages(self, names: tuple[str, ...]) -> dict[str, str]:
        """Name to installed version, of those that are installed."""
        ...

    async def available_packages(self, pattern: str) -> tuple[str, ...]:
        """Names that apt could install and that match the glob, sorted."""
        ...

    async def home(self, path: str) -> HomeFact | None: ...

    async def home_use(self, path: str, *, timeout_seconds: float) -> HomeUse | None:
        """What lies in a home, on its own file system; None: there is no such home.

        Raises:
            CommandError: It could not be counted in time.
        """
        ...

    async def storage_driver(self, directory: str) -> StorageDriver:
        """What the file system of a directory can do: BTRFS or DIRECTORY."""
        ...

    async def slice(self, uid: int) -> SliceFact: ...

    async def has_processes(self, uid: int) -> bool: ...

    async def find_config_fault(self, tree: str) -> str | None:
        """What the service's validator says against what lies live in a ConfigTree; None: nothing."""
        ...

    async def http_get(self, *, host_name: str, path: str) -> HttpFact | None:
        """GET http://host_name/path from the node's own web server on 127.0.0.1:80 (5 s); None when nothing answers.

        The executor has no network of its own: `agent.system` finds a way that needs none (see there).
        """
        ...


Facts = Any
"""Each converger has its own frozen Struct."""
