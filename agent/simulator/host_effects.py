"""What each action does to a simulated host, and which entries of its tables it may touch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from agent.contract.actions import (
    AnyAction,
    EndProcesses,
    EnsureDirectory,
    EnsureHome,
    EnsureUnit,
    EnsureUser,
    InstallPackages,
    PublishConfig,
    ReloadSystemd,
    ReloadUnit,
    RemoveFile,
    RemoveHome,
    RemovePackages,
    RemoveTree,
    RemoveUser,
    SetSliceLimits,
    WriteFile,
)
from agent.contract.facts import HomeFact, UserFact
from agent.simulator.host_state import SYSTEM_NAMES, HostState, Kind, MemoryPackage, MemoryPath, MemoryUnit
from shared.errors import CommandError, ConfigTestError, ConflictError, UnavailableError
from shared.specs.account import StorageDriver

Touched = dict[str, tuple[str, ...]]
"""Table of HostState to the keys that an action may change there."""
Validator = Callable[[str, Mapping[str, str]], str | None]
"""Tree and its changed files (path to content) to the words of a refusal, or None."""

_REFUSED: Final = re.compile(r"wcp_refuse_me|^[ \t]*(not_a_directive)\b", re.MULTILINE)


def judge_config(tree: str, files: Mapping[str, str]) -> str | None:  # noqa: ARG001 - a Validator
    """Refuse in nginx's words what holds `wcp_refuse_me`, or a line that begins with `not_a_directive`."""
    for path, content in files.items():
        found = _REFUSED.search(content)
        if found:
            word = found.group(1) or found.group(0)
            line = content.count("\n", 0, found.start()) + 1
            return f'nginx: [emerg] unknown directive "{word}" in {path}:{line}'
    return None


class Effects:
    """Applies actions to a state; refuses what a real host could not do."""

    def __init__(
        self, state: HostState, *, repository: Mapping[str, MemoryPackage], driver: StorageDriver, validator: Validator
    ) -> None:
        self.state = state
        self.repository = dict(repository)
        self.driver = driver
        self.validator = validator

    # --- what an action may change ------------------------------------------------------------------------------------

    def touched(self, action: AnyAction) -> Touched:  # noqa: PLR0911 - one for each kind of action
        match action:
            case EnsureUser():
                return {"users": (action.name,)}
            case RemoveUser():
                user = self.state.users.get(action.name)
                return {"users": (action.name,), "slices": (str(user.uid),) if user else ()}
            case EnsureDirectory() | WriteFile() | RemoveFile():
                return {"paths": (action.path,)}
            case EnsureHome():
                return {"paths": (action.path,), "homes": (action.path,)}
            case PublishConfig():
                return {"paths": (*(file.path for file in action.files), *action.removals)}
            case InstallPackages():
                return self._touched_by_packages(
                    tuple(name for name in action.names if name not in self.state.packages)
                )
            case RemovePackages():
                return self._touched_by_packages(tuple(name for name in action.names if name in self.state.packages))
            case EnsureUnit():
                return {"units": (action.unit,)}
            case SetSliceLimits():
                return {"slices": (str(action.uid),)}
            case _:
                return {}

    def _touched_by_packages(self, names: tuple[str, ...]) -> Touched:
        found = [self.repository[name] for name in names if name in self.repository]
        return {
            "packages": names,
            "paths": tuple(path for package in found for path in package.paths),
            "units": tuple(unit for package in found for unit in package.units),
        }

    # --- what an action does ------------------------------------------------------------------------------------------

    def apply(self, action: AnyAction) -> None:  # noqa: C901, PLR0912 - one line for each kind of action
        match action:
            case EnsureUser():
                self._ensure_user(action)
            case RemoveUser():
                user = self.state.users.pop(action.name, None)
                if user is not None:
                    self.state.slices.pop(str(user.uid), None)
            case EnsureDirectory():
                self._ensure_directory(action.path, action.owner, action.group, action.mode)
            case RemoveTree():
                self.remove_subtree(action.path)
            case EnsureHome():
                self._ensure_home(action)
            case RemoveHome():
                self.remove_subtree(action.path)
                self.state.homes.pop(action.path, None)
            case WriteFile():
                self._write(action)
            case RemoveFile():
                self._remove_file(action.path)
            case PublishConfig():
                self._publish(action)
            case InstallPackages():
                self._install(action.names)
            case RemovePackages():
                self._purge(action.names)
            case EnsureUnit():
                self._ensure_unit(action)
            case SetSliceLimits():
                self.state.slices[str(action.uid)] = msgspec.structs.replace(action.limits, disk_bytes=None)
            case EndProcesses():
                self.state.processes.pop(str(action.uid), None)
            case ReloadUnit() | ReloadSystemd():
                return

    def _ensure_user(self, action: EnsureUser) -> None:
        before = self.state.users.get(action.name)
        holder = next((user for user in self.state.users.values() if user.uid == action.uid), before)
        if before is not None and before.uid != action.uid:
            raise ConflictError(f"the user {action.name} exists with the id {before.uid}", code="user_exists")
        if holder is not None and holder.name != action.name:
            raise ConflictError(f"user id {action.uid} belongs to {holder.name}", code="uid_taken")
        self.state.users[action.name] = UserFact(
            name=action.name,
            uid=action.uid,
            gid=action.uid,
            home=action.home,
            shell=action.shell,
            is_locked=action.is_locked,
            groups=tuple(sorted({*action.groups, *(before.groups if before is not None else ())})),
        )

    def _require_place(self, path: str, owner: str, group: str) -> None:
        parent = path.rpartition("/")[0] or "/"
        found = self.state.paths.get(parent)
        if found is None or found.kind is not Kind.DIRECTORY:
            raise UnavailableError(f"{path} cannot be changed: there is no directory {parent}")
        for name in (owner, group):
            if name not in SYSTEM_NAMES and name not in self.state.users:
                raise UnavailableError(f"there is no user or group {name} on this node", code="no_such_user")

    def _ensure_directory(self, path: str, owner: str, group: str, mode: int) -> None:
        self._require_place(path, owner, group)
        before = self.state.paths.get(path)
        if before is not None and before.kind is not Kind.DIRECTORY:
            raise UnavailableError(f"{path} cannot be changed: it is a {before.kind.value}")
        self.state.paths[path] = MemoryPath(kind=Kind.DIRECTORY, owner=owner, group=group, mode=mode)

    def _ensure_home(self, action: EnsureHome) -> None:
        before = self.state.homes.get(action.path)
        if action.driver is not self.driver and action.driver is StorageDriver.BTRFS:
            raise CommandError(("btrfs", "subvolume", "create", action.path), 1, "ERROR: not a btrfs filesystem")
        if before is not None and before.driver is not action.driver:
            raise ConflictError(f"{action.path} is no btrfs subvolume", code="home_not_subvolume")
        self._ensure_directory(action.path, action.owner, action.group, action.mode)
        is_limited = action.driver is StorageDriver.BTRFS
        self.state.homes[action.path] = HomeFact(
            driver=action.driver,
            quota_bytes=action.quota_bytes if is_limited else None,
            used_bytes=0 if is_limited else None,
        )

    def _write(self, action: WriteFile) -> None:
        self._require_place(action.path, action.owner, action.group)
        before = self.state.paths.get(action.path)
        if before is not None and before.kind is Kind.DIRECTORY:
            raise UnavailableError(f"{action.path} cannot be changed: Is a directory")
        self.state.paths[action.path] = MemoryPath(
            kind=Kind.FILE, owner=action.owner, group=action.group, mode=action.mode, content=action.content
        )

    def _remove_file(self, path: str) -> None:
        before = self.state.paths.get(path)
        if before is not None and before.kind is Kind.DIRECTORY:
            raise UnavailableError(f"{path} cannot be changed: Is a directory")
        self.state.paths.pop(path, None)

    def remove_subtree(self, path: str) -> None:
        for key in [key for key in self.state.paths if key == path or key.startswith(f"{path}/")]:
            del self.state.paths[key]
            self.state.homes.pop(key, None)

    def _publish(self, action: PublishConfig) -> None:
        said = self.validator(action.tree, {file.path: file.content for file in action.files})
        if said is not None:
            raise ConfigTestError(said, context={"tree": action.tree})
        for file in action.files:
            self._write(file)
        for path in action.removals:
            self._remove_file(path)

    def _install(self, names: tuple[str, ...]) -> None:
        unknown = [name for name in names if name not in self.repository and name not in self.state.packages]
        if unknown:
            raise CommandError(("apt-get", "install", *names), 100, f"E: Unable to locate package {unknown[0]}")
        for name in names:
            if name in self.state.packages:
                continue
            package = self.repository[name]
            self.state.packages[name] = package.version
            for path, content in package.paths.items():
                self.state.paths.setdefault(path, content)
            for unit in package.units:
                self.state.units.setdefault(unit, MemoryUnit(is_enabled=True))

    def _purge(self, names: tuple[str, ...]) -> None:
        for name in names:
            if self.state.packages.pop(name, None) is None or name not in self.repository:
                continue
            package = self.repository[name]
            for path in package.files:
                self.state.paths.pop(path, None)
            # As dpkg does: a directory goes when nothing is left in it.
            for path in reversed(package.directories):
                if not any(key.startswith(f"{path}/") for key in self.state.paths):
                    self.state.paths.pop(path, None)
            for unit in package.units:
                self.state.units.pop(unit, None)

    # --- units --------------------------------------------------------------------------------------------------------

    def is_loaded(self, unit: str) -> bool:
        """Whether systemd would find the unit: a file of ours (or its template's), a package's, or a slice."""
        stem, _, suffix = unit.rpartition(".")
        names = {unit, f"{stem.partition('@')[0]}@.{suffix}"} if "@" in stem else {unit}
        if suffix == "slice" or any(f"/etc/systemd/system/{name}" in self.state.paths for name in names):
            return True
        installed = (self.repository[name] for name in self.state.packages if name in self.repository)
        return any(names & set(package.units) for package in installed)

    def _ensure_unit(self, action: EnsureUnit) -> None:
        before = self.state.units.get(action.unit, MemoryUnit())
        if not self.is_loaded(action.unit) and (action.is_running or action.is_enabled):
            raise CommandError(("systemd", "StartUnit", action.unit), 1, f"Unit {action.unit} not found.")
        is_running = before.is_running if action.is_running is None else action.is_running
        is_enabled = before.is_enabled if action.is_enabled is None else action.is_enabled
        wanted = MemoryUnit(is_running=is_running, is_enabled=is_enabled)
        if wanted == MemoryUnit():
            self.state.units.pop(action.unit, None)
        else:
            self.state.units[action.unit] = wanted
