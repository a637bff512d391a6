"""What planning an account needs to know of the host."""

from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.compare import read_paths
from agent.contract.facts import HomeFact, PathFact, Probe, SliceFact, UserFact
from shared.specs.account import AccountSpec, StorageDriver

ACCOUNTS_DIR: Final = "/srv/accounts"
SITE_LOGS_DIR: Final = "/var/log/wcp360/sites"
BTRFS_TOOLS: Final = "btrfs-progs"
WEB_SERVER_GROUP: Final = "www-data"
"""What Debian's web servers run as; every Debian has it. Source: base-passwd, group.master."""


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One account as the host has it."""

    user: UserFact | None
    """Who has the account's name."""
    uid_holder: UserFact | None
    """Who has the account's uid."""
    home: HomeFact | None
    paths: dict[str, PathFact | None]
    """ACCOUNTS_DIR, home, sites, tmp and the log folder."""
    filesystem: StorageDriver
    """What the file system of ACCOUNTS_DIR can do."""
    slice: SliceFact
    has_processes: bool


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The module's own ground."""

    accounts_dir: PathFact | None
    accounts: tuple[str, ...]
    """Names in ACCOUNTS_DIR."""
    filesystem: StorageDriver
    has_btrfs_tools: bool
    are_btrfs_tools_offered: bool
    """apt could install them."""


def home_path(name: str) -> str:
    return f"{ACCOUNTS_DIR}/{name}"


def sites_path(name: str) -> str:
    return f"{home_path(name)}/sites"


def tmp_path(name: str) -> str:
    return f"{home_path(name)}/tmp"  # noqa: S108 - below the home, not the shared one


def logs_path(name: str) -> str:
    return f"{SITE_LOGS_DIR}/{name}"


async def read_account(spec: AccountSpec, probe: Probe) -> AccountFacts:
    name = spec.name
    paths = (ACCOUNTS_DIR, home_path(name), sites_path(name), tmp_path(name), logs_path(name))
    return AccountFacts(
        user=await probe.user(name),
        uid_holder=await probe.user_of_uid(spec.uid),
        home=await probe.home(home_path(name)),
        paths=await read_paths(probe, paths),
        filesystem=await _read_filesystem(probe),
        slice=await probe.slice(spec.uid),
        has_processes=await probe.has_processes(spec.uid),
    )


async def read_host(probe: Probe) -> HostFacts:
    return HostFacts(
        accounts_dir=await probe.path(ACCOUNTS_DIR),
        accounts=await probe.list_directory(ACCOUNTS_DIR) or (),
        filesystem=await _read_filesystem(probe),
        has_btrfs_tools=BTRFS_TOOLS in await probe.packages((BTRFS_TOOLS,)),
        are_btrfs_tools_offered=BTRFS_TOOLS in await probe.available_packages(BTRFS_TOOLS),
    )


async def _read_filesystem(probe: Probe) -> StorageDriver:
    exists = await probe.path(ACCOUNTS_DIR) is not None
    return await probe.storage_driver(ACCOUNTS_DIR if exists else "/srv")
