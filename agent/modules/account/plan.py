"""From an account's spec and facts to actions."""

from __future__ import annotations

from agent.contract.actions import (
    Action,
    EndProcesses,
    EnsureDirectory,
    EnsureHome,
    EnsureUser,
    InstallPackages,
    RemoveHome,
    RemoveTree,
    RemoveUser,
    SetSliceLimits,
)
from agent.contract.compare import holds_directory, missing_directories
from agent.contract.module import Plan
from agent.modules.account.facts import (
    ACCOUNTS_DIR,
    BTRFS_TOOLS,
    WEB_SERVER_GROUP,
    AccountFacts,
    HostFacts,
    home_path,
    logs_path,
    sites_path,
    tmp_path,
)
from agent.modules.account.limits import kernel_limits, strayed_limits
from shared.errors import ModuleUnavailableError, PlanError
from shared.specs.account import TENANTS_GROUP, AccountSpec, StorageDriver
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec

LOGIN_SHELL = "/bin/bash"
NO_SHELL = "/usr/sbin/nologin"
HOME_MODE = 0o710
"""The web server's group may pass through; nobody but the owner may look."""


def plan_host(spec: ModuleSpec, presence: Presence, facts: HostFacts) -> Plan:
    """The ground that accounts stand on. There is nothing to switch off: DISABLED is the same as ENABLED."""
    if spec.settings:
        raise PlanError(f"the account module has no settings; {', '.join(sorted(spec.settings))} is unknown")
    if presence is Presence.ABSENT:
        return _plan_host_removal(facts)
    actions: list[Action] = []
    wanted = EnsureDirectory(path=ACCOUNTS_DIR, mode=0o711, reason="the homes of all accounts lie here")
    if not holds_directory(facts.accounts_dir, wanted):
        actions.append(wanted)
    needs_tools = facts.filesystem is StorageDriver.BTRFS and not facts.has_btrfs_tools
    if needs_tools and facts.are_btrfs_tools_offered:
        actions.append(InstallPackages(names=(BTRFS_TOOLS,), reason=f"{ACCOUNTS_DIR} is on btrfs: sizes are enforced"))
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"{ACCOUNTS_DIR} is as wanted")


def _plan_host_removal(facts: HostFacts) -> Plan:
    if facts.accounts:
        raise PlanError(
            f"{len(facts.accounts)} accounts live on this node, the first is {facts.accounts[0]}",
            hint="Move or delete the accounts first.",
        )
    # It may be a mount point, and an empty folder harms nobody.
    return Plan(noop_reason=f"no account is left; the empty {ACCOUNTS_DIR} stays")


def plan_account(spec: AccountSpec, presence: Presence, facts: AccountFacts) -> Plan:
    if presence is Presence.ABSENT:
        return _plan_removal(spec, facts)
    _require_ground(facts)
    _require_free_identity(spec, facts)
    is_suspended = presence is Presence.DISABLED
    actions = [
        *_plan_user(spec, facts, is_locked=is_suspended),
        *_plan_folders(spec, facts),
        *_plan_limits(spec, facts),
    ]
    may_begin = facts.user is not None and not facts.user.is_locked  # a login between this look and the lock
    if is_suspended and (facts.has_processes or may_begin):
        actions.append(EndProcesses(uid=spec.uid, reason="a suspended account runs nothing"))
    word = "suspended" if is_suspended else "active"
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"account {spec.name} is {word} as wanted")


def _require_ground(facts: AccountFacts) -> None:
    ground = facts.paths[ACCOUNTS_DIR]
    if ground is None or ground.kind != "directory":
        raise ModuleUnavailableError(
            f"the account module is not installed here: there is no folder {ACCOUNTS_DIR}",
            hint="Install the module account on this node.",
        )


def _require_free_identity(spec: AccountSpec, facts: AccountFacts) -> None:
    """Refuse to take over a name, uid or home of somebody else.

    Raises:
        PlanError: One of them is taken.
    """
    user, holder, home = facts.user, facts.uid_holder, facts.paths[home_path(spec.name)]
    if user is not None and (user.uid, user.gid) != (spec.uid, spec.uid):
        raise PlanError(
            f"the name {spec.name} belongs to another user of this node (uid {user.uid}, gid {user.gid})",
            hint="Choose another account name, or remove that user.",
        )
    if holder is not None and holder.name != spec.name:
        raise PlanError(
            f"uid {spec.uid} belongs to another user of this node ({holder.name})",
            hint="Remove that user, or place the account on another node.",
        )
    if home is not None and (home.kind != "directory" or home.owner not in (spec.name, str(spec.uid), "root")):
        raise PlanError(
            f"{home_path(spec.name)} is there already and belongs to somebody else ({home.kind} of {home.owner})",
            hint="Move it away.",
        )


def _plan_user(spec: AccountSpec, facts: AccountFacts, *, is_locked: bool) -> list[Action]:
    reason = "the account is suspended" if is_locked else "the account's unix user"
    wanted = EnsureUser(
        name=spec.name,
        uid=spec.uid,
        home=home_path(spec.name),
        shell=LOGIN_SHELL if spec.has_shell is True else NO_SHELL,
        groups=(TENANTS_GROUP,),
        is_locked=is_locked,
        reason=reason,
    )
    user = facts.user
    if user is None or (user.home, user.shell, user.is_locked) != (wanted.home, wanted.shell, is_locked):
        return [wanted]
    return [] if set(wanted.groups) <= set(user.groups) else [wanted]


def _plan_folders(spec: AccountSpec, facts: AccountFacts) -> list[Action]:
    name = spec.name
    home = EnsureHome(
        path=home_path(name),
        driver=_resolve_driver(spec, facts),
        owner=name,
        group=WEB_SERVER_GROUP,
        mode=HOME_MODE,
        quota_bytes=_wanted_quota(spec, facts),
        reason="the account's home",
    )
    folders = (
        EnsureDirectory(path=sites_path(name), owner=name, group=WEB_SERVER_GROUP, mode=0o750, reason="its sites"),
        EnsureDirectory(path=tmp_path(name), owner=name, group=name, mode=0o700, reason="its temporary files"),
    )
    for folder in folders:
        _require_directory_or_nothing(folder.path, facts)
    return [*([] if _holds_home(home, facts) else [home]), *missing_directories(facts.paths, folders)]


def _require_directory_or_nothing(path: str, facts: AccountFacts) -> None:
    fact = facts.paths[path]
    if fact is not None and fact.kind != "directory":
        raise PlanError(f"{path} must be a folder; it is a {fact.kind}", hint="The account's owner must move it away.")


def _holds_home(wanted: EnsureHome, facts: AccountFacts) -> bool:
    if facts.home is None or facts.home.quota_bytes != wanted.quota_bytes:
        return False
    folder = EnsureDirectory(path=wanted.path, owner=wanted.owner, group=wanted.group, mode=wanted.mode, reason="")
    return holds_directory(facts.paths[wanted.path], folder)


def _resolve_driver(spec: AccountSpec, facts: AccountFacts) -> StorageDriver:
    """An existing home keeps its driver.

    Raises:
        PlanError: The spec asks for a driver that the home or the file system has not.
    """
    actual = facts.filesystem if facts.home is None else facts.home.driver
    if spec.storage not in (StorageDriver.AUTO, actual) and (
        facts.home is not None or spec.storage is StorageDriver.BTRFS
    ):
        raise PlanError(
            f"{home_path(spec.name)} cannot be on the storage driver {spec.storage.value}: it is {actual.value} here",
            hint="Use the driver auto, or place the account on a node whose /srv/accounts has what it needs.",
        )
    return actual if spec.storage is StorageDriver.AUTO else spec.storage


def _wanted_quota(spec: AccountSpec, facts: AccountFacts) -> int | None:
    return spec.limits.disk_bytes if _resolve_driver(spec, facts) is StorageDriver.BTRFS else None


def _plan_limits(spec: AccountSpec, facts: AccountFacts) -> list[Action]:
    wanted = kernel_limits(spec.limits)
    if facts.slice.configured != wanted:
        return [SetSliceLimits(uid=spec.uid, limits=wanted, reason="the limits of its package")]
    if not facts.slice.is_active:
        return [SetSliceLimits(uid=spec.uid, limits=wanted, reason="the limits are to be readable in the kernel")]
    strayed = strayed_limits(wanted, facts.slice)
    if strayed:
        return [
            SetSliceLimits(uid=spec.uid, limits=wanted, reason=f"the kernel has other values: {', '.join(strayed)}")
        ]
    return []


def _plan_removal(spec: AccountSpec, facts: AccountFacts) -> Plan:
    user, holder = facts.user, facts.uid_holder
    if (user is not None and user.uid != spec.uid) or (holder is not None and holder.name != spec.name):
        taken = user if user is not None and user.uid != spec.uid else holder
        owner = "somebody else" if taken is None else f"{taken.name}, uid {taken.uid}"
        return Plan(noop_reason=f"nothing of account {spec.name} is here: its name or uid is another user's ({owner})")
    actions: list[Action] = []
    if facts.has_processes:
        actions.append(EndProcesses(uid=spec.uid, reason="the account goes"))
    if user is not None:
        # The limits of the slice go with the user, or the next one of the same uid would inherit them.
        actions.append(RemoveUser(name=spec.name, reason="the account goes, and the limits of its slice"))
    actions += _plan_tree_removal(spec, facts)
    is_data_lost = any(isinstance(action, RemoveHome) for action in actions)
    risks = (f"All files of {spec.name} are deleted for good.",) if is_data_lost else ()
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"nothing of {spec.name} is left", risks=risks)


def _plan_tree_removal(spec: AccountSpec, facts: AccountFacts) -> list[Action]:
    """What cannot be brought back: last."""
    actions: list[Action] = []
    if facts.paths[logs_path(spec.name)] is not None:
        actions.append(RemoveTree(path=logs_path(spec.name), reason="the logs of its sites"))
    home = facts.paths[home_path(spec.name)]
    if home is not None and home.kind == "directory" and home.owner in (spec.name, str(spec.uid)):
        actions.append(RemoveHome(path=home_path(spec.name), reason="the account's files"))
    return actions
