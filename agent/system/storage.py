"""Where accounts' homes are kept: a plain directory, or a btrfs subvolume whose size the kernel limits.

Known limit: btrfs lets an unprivileged user make subvolumes of its own inside its home, and those have a quota group of
their own without a limit. Whoever has a shell there can thus pass the limit; a web application alone cannot.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.actions import EnsureHome
from agent.contract.facts import HomeFact, HomeUse
from agent.system import files
from agent.system.cgroups import MOUNTINFO
from agent.system.paths import opened_directory
from agent.system.runner import run
from agent.system.threads import in_thread
from agent.system.tree import SUBVOLUME_INODE, mount_id, remove_tree
from shared.errors import CommandError, ConflictError, FactError
from shared.specs.account import StorageDriver

BTRFS_TIMEOUT_SECONDS: Final = 120.0
_QGROUP_ROW: Final = re.compile(r"^0/(\d+)\s+(\d+)\s+(\d+)\s+(\d+|none)\s+(\d+|none)", re.MULTILINE)


class QuotaGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `btrfs qgroup show`, in bytes."""

    referenced_bytes: int
    limit_bytes: int | None


def parse_quota_groups(text: str) -> dict[int, QuotaGroup]:
    """Parse `btrfs qgroup show --raw -re`: subvolume id to its quota group (btrfs-progs 6.2 to 6.14)."""
    groups: dict[int, QuotaGroup] = {}
    for subvolume, referenced, _, limit, _ in _QGROUP_ROW.findall(text):
        groups[int(subvolume)] = QuotaGroup(
            referenced_bytes=int(referenced), limit_bytes=None if limit == "none" else int(limit)
        )
    return groups


def parse_mount_types(mountinfo: str) -> dict[int, str]:
    """Parse /proc/self/mountinfo: mount id to file system type. Source: proc_pid_mountinfo(5)."""
    types: dict[int, str] = {}
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        if separator:
            types[int(left.split(maxsplit=1)[0])] = right.split(maxsplit=1)[0]
    return types


def driver_of(file_system: str | None) -> StorageDriver:
    return StorageDriver.BTRFS if file_system == "btrfs" else StorageDriver.DIRECTORY


def _look(path: str) -> tuple[str | None, bool]:
    """File system type of a directory, and whether it is a btrfs subvolume's root."""
    with files.readable(path), opened_directory(path) as descriptor:
        types = parse_mount_types(MOUNTINFO.read_text(encoding="utf-8", errors="replace"))
        file_system = types.get(mount_id(descriptor))
        return file_system, file_system == "btrfs" and os.fstat(descriptor).st_ino == SUBVOLUME_INODE


async def read_driver(directory: str) -> StorageDriver:
    """See Probe.storage_driver."""
    file_system, _ = await asyncio.to_thread(_look, directory)
    return driver_of(file_system)


async def read_home(path: str) -> HomeFact | None:
    """See Probe.home."""
    fact = await asyncio.to_thread(files.path_fact, path)
    if fact is None or fact.kind != "directory":
        return None
    _, is_subvolume = await asyncio.to_thread(_look, path)
    if not is_subvolume:
        return HomeFact(driver=StorageDriver.DIRECTORY, quota_bytes=None)
    groups = await _read_quota_groups(path)
    own = groups.get(await _read_subvolume_id(path)) if groups is not None else None
    if own is None:
        return HomeFact(driver=StorageDriver.BTRFS, quota_bytes=None)
    return HomeFact(driver=StorageDriver.BTRFS, quota_bytes=own.limit_bytes, used_bytes=own.referenced_bytes)


async def read_use(path: str, *, timeout_seconds: float) -> HomeUse | None:
    """See Probe.home_use. On btrfs the quota knows the bytes; files are counted by walking, at the lowest priority."""
    home = await read_home(path)
    if home is None:
        return None
    async with asyncio.timeout(timeout_seconds):
        inodes = await _count(("--inodes",), path, timeout_seconds)
        used = home.used_bytes
        if used is None:
            used = await _count(("--block-size=1",), path, timeout_seconds)
    return HomeUse(disk_bytes=used, inodes=inodes)


async def _count(options: tuple[str, ...], path: str, timeout_seconds: float) -> int:
    """The total that du says; files that vanish under its eyes are no failure. Source: du(1), coreutils 9.1."""
    argv = ("nice", "-n", "19", "du", "--summarize", "--one-file-system", *options, "--", path)
    shown = await run(argv, timeout_seconds=timeout_seconds, accepted_codes=(0, 1))
    return parse_total(shown.stdout, path)


def parse_total(text: str, path: str) -> int:
    """Parse the one line of `du --summarize`.

    Raises:
        FactError: It is none.
    """
    number, _, _ = text.strip().partition("\t")
    if not number.isdigit():
        raise FactError(f"what lies in {path} cannot be counted")
    return int(number)


async def _read_subvolume_id(path: str) -> int:
    shown = await run(("btrfs", "inspect-internal", "rootid", path), timeout_seconds=BTRFS_TIMEOUT_SECONDS)
    return int(shown.stdout)


async def _read_quota_groups(path: str) -> Mapping[int, QuotaGroup] | None:
    """Quota groups of the file system, counted anew; None when quotas are off."""
    try:
        shown = await run(
            ("btrfs", "qgroup", "show", "--raw", "-re", "--sync", path), timeout_seconds=BTRFS_TIMEOUT_SECONDS
        )
    except CommandError as error:
        if "quota" in error.stderr_tail and "not enabled" in error.stderr_tail:
            return None
        raise FactError(f"the quota of {path} cannot be read") from error
    return parse_quota_groups(shown.stdout)


async def ensure_home(action: EnsureHome) -> None:
    """Make a home with its owner, mode and quota; an existing one keeps its content.

    Raises:
        ConflictError: A plain directory is where a subvolume is wanted: nothing is converted behind anybody's back.
        CommandError, UnavailableError: It could not be made, or limited.
    """
    before = await asyncio.to_thread(files.path_fact, action.path)
    if action.driver is StorageDriver.BTRFS:
        if before is None:
            await run(("btrfs", "subvolume", "create", action.path), timeout_seconds=BTRFS_TIMEOUT_SECONDS)
        elif not (await asyncio.to_thread(_look, action.path))[1]:
            raise ConflictError(f"{action.path} is no btrfs subvolume", code="home_not_subvolume")
    rights = {"uid": files.owner_id(action.owner), "gid": files.group_id(action.group), "mode": action.mode}
    await in_thread(partial(files.ensure_directory, action.path, **rights))
    if action.driver is StorageDriver.BTRFS:
        await set_quota(action.path, action.quota_bytes)


async def set_quota(path: str, quota_bytes: int | None) -> None:
    """Limit what a subvolume refers to; switches quotas on for its file system when they are off.

    The group is named by its number, from the directory above: asked from inside, btrfs counts the change itself to the
    subvolume, and whoever has more than the old limit could never be given a larger one.

    Raises:
        CommandError: btrfs refused.
    """
    if await _read_quota_groups(path) is None:
        if quota_bytes is None:
            return
        await run(("btrfs", "quota", "enable", path), timeout_seconds=BTRFS_TIMEOUT_SECONDS)
    limit = "none" if quota_bytes is None else str(quota_bytes)
    group = f"0/{await _read_subvolume_id(path)}"
    argv = ("btrfs", "qgroup", "limit", limit, group, str(Path(path).parent))
    await run(argv, timeout_seconds=BTRFS_TIMEOUT_SECONDS)


async def remove_home(path: str) -> None:
    """Remove a home with all it holds, its subvolumes and their quota groups included; a missing one is fine.

    Raises:
        CommandError, UnavailableError: It could not be removed.
    """
    fact = await asyncio.to_thread(files.path_fact, path)
    if fact is not None and fact.kind == "directory" and (await asyncio.to_thread(_look, path))[1]:
        await _remove_subvolume(path)
    with files.changeable(path):
        await in_thread(partial(remove_tree, path))


async def _remove_subvolume(path: str) -> None:
    number = await _read_subvolume_id(path)
    has_quotas = await _read_quota_groups(path) is not None
    try:
        argv = ("btrfs", "subvolume", "delete", "--commit-after", path)
        await run(argv, timeout_seconds=BTRFS_TIMEOUT_SECONDS)
    except CommandError as error:
        # The tenant made subvolumes of its own in there. `btrfs subvolume list` would name them, but a name with a
        # newline could forge another account's line: only walking the tree tells what really lies inside.
        if "not empty" not in error.stderr_tail.lower():
            raise
        with files.changeable(path):
            await in_thread(partial(remove_tree, path))
    if has_quotas:
        await _forget_quota_group(number, str(Path(path).parent))


async def _forget_quota_group(number: int, directory: str) -> None:
    """Remove the quota group of a deleted subvolume. Newer kernels do it themselves, or refuse until it is cleaned up.

    Ids are never used again, so that one left behind costs a row of a table and nothing else.
    """
    try:
        argv = ("btrfs", "qgroup", "destroy", f"0/{number}", directory)
        await run(argv, timeout_seconds=BTRFS_TIMEOUT_SECONDS)
    except CommandError as error:
        if not re.search(r"No such|busy", error.stderr_tail):
            raise
