"""The way out: nothing of the agent stays. Hosted accounts stay as they are, unless they are to go, too."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.install import units
from agent.install.checks import require_root
from agent.install.hosting import remove_all_subjects
from agent.install.layout import find_agent_user
from agent.link.settings import AGENT_USER, NodePaths
from agent.system.runner import run
from shared.specs.account import MAX_TENANT_UID, MIN_TENANT_UID

COMMAND_SECONDS: Final = 120.0


class HostedAccount(msgspec.Struct, frozen=True):
    """A tenant's unix user on this machine."""

    name: str
    uid: int
    home: Path


def list_hosted_accounts(paths: NodePaths) -> list[HostedAccount]:
    """Users in the tenants' range whose home lies where we put homes."""
    return [
        HostedAccount(entry.pw_name, entry.pw_uid, Path(entry.pw_dir))
        for entry in pwd.getpwall()
        if MIN_TENANT_UID <= entry.pw_uid <= MAX_TENANT_UID and Path(entry.pw_dir).parent == paths.accounts_dir
    ]


async def uninstall(paths: NodePaths, *, is_purge: bool, say: Callable[[str], None] = print) -> None:
    """Take the agent off this machine.

    Changes: removes units, users, /opt/wcp360, /etc/wcp360, /var/lib/wcp360-*, /run/wcp360*; with `is_purge`, or when
    no account is hosted, also homes, sites, PHP masters, logs, and the packages that modules have installed.

    Raises:
        SetupError: Not root.
        CommandError: A system tool failed.
    """
    require_root()
    accounts = list_hosted_accounts(paths)
    has_kept = bool(accounts) and not is_purge
    removed_units = await units.remove_units(paths.root)
    if not has_kept:
        await remove_all_subjects(paths.executor_state_dir, say)
        await _sweep(paths, accounts)
    await remove_agent(paths, has_kept_accounts=has_kept)
    say("The agent was removed." if removed_units else "The agent was not on this machine; leftovers were removed.")
    if has_kept:
        say(f"{len(accounts)} hosted accounts stay and keep being served; nobody looks after them any more:")
        say("  homes /srv/accounts, sites /etc/nginx/wcp360, PHP /etc/wcp360/php, logs /var/log/wcp360")
        say("  `wcp-agent uninstall --purge-accounts` would have deleted them as well.")


async def remove_agent(paths: NodePaths, *, has_kept_accounts: bool = False) -> None:
    """Remove what the installer made. Safe to run on a machine that has only part of it."""
    await units.remove_units(paths.root)
    if has_kept_accounts:
        for path in (paths.agent_toml, paths.ca_pem):
            path.unlink(missing_ok=True)
    else:
        _remove_tree(paths.config_dir)
    for tree in (paths.agent_state_dir, paths.executor_state_dir, paths.updater_state_dir, paths.runtime_dir):
        _remove_tree(tree)
    _remove_tree(paths.root / "run/wcp360-executor")
    if not has_kept_accounts:
        # Sites that stay are probed by a socket in there.
        _remove_tree(paths.root / "run/wcp360")
        for folder in ("var/log/wcp360/sites", "var/log/wcp360", "srv/accounts"):
            _remove_if_empty(paths.root / folder)
    if find_agent_user() is not None:
        await run(("userdel", AGENT_USER), timeout_seconds=COMMAND_SECONDS)
    _remove_tree(paths.program_dir)


async def _sweep(paths: NodePaths, accounts: list[HostedAccount]) -> None:
    """What the ledger did not know, or could not remove: found by our names."""
    await _remove_own_units(paths.root)
    for account in accounts:
        await _remove_account(paths, account)
    if await _remove_web_configuration(paths.root):
        await _systemctl("try-reload-or-restart", "nginx.service")
    for folder in ("var/log/wcp360", "run/wcp-php"):
        _remove_tree(paths.root / folder)


async def _remove_own_units(root: Path) -> None:
    """PHP masters and their timer: every unit of ours that a module wrote."""
    folder = units.unit_dir(root)
    files = sorted(folder.glob("wcp-php*"))
    if not files:
        return
    await _systemctl("stop", "wcp-php*")
    for path in files:
        if path.is_dir():
            _remove_tree(path)
        else:
            await _systemctl("disable", "--quiet", path.name)
            path.unlink()
    for wants in folder.glob("*.wants/wcp-php*"):
        wants.unlink()
    await _systemctl("daemon-reload")


async def _remove_account(paths: NodePaths, account: HostedAccount) -> None:
    slice_name = f"user-{account.uid}.slice"
    await _systemctl("stop", slice_name)
    for folder in ("etc/systemd/system", "etc/systemd/system.control"):
        _remove_tree(paths.root / folder / f"{slice_name}.d")
    await run(("userdel", "--force", account.name), timeout_seconds=COMMAND_SECONDS, accepted_codes=range(256))
    if account.home.is_dir() and not account.home.is_symlink() and _is_btrfs_subvolume(account.home):
        await run(("btrfs", "subvolume", "delete", "--commit-after", str(account.home)), timeout_seconds=600.0)
    _remove_tree(account.home)


def _is_btrfs_subvolume(path: Path) -> bool:
    """Source: btrfs-subvolume(8), "inode number 256" (BTRFS_FIRST_FREE_OBJECTID)."""
    return path.stat().st_ino == 256 and path.stat().st_dev != path.parent.stat().st_dev


async def _remove_web_configuration(root: Path) -> bool:
    """Changes: /etc/nginx. True when there was something of ours."""
    own = [root / "etc/nginx/wcp360", root / "etc/systemd/system/nginx.service.d/wcp360.conf"]
    own += (root / "etc/logrotate.d").glob("wcp360*")
    present = [path for path in own if path.exists()]
    for path in present:
        if path.is_dir():
            _remove_tree(path)
        else:
            path.unlink()
    return bool(present)


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)  # never follows links inside (shutil.rmtree.avoids_symlink_attacks on Linux)


def _remove_if_empty(path: Path) -> None:
    # A folder that is a mount point, or that somebody put something into, is not ours to remove.
    if path.is_dir() and not os.path.ismount(path) and not any(path.iterdir()):
        path.rmdir()


async def _systemctl(*words: str) -> None:
    await run(("systemctl", *words), timeout_seconds=COMMAND_SECONDS, accepted_codes=range(256))
