"""Capture, apply and undo of users, slices, processes, packages and units."""

from __future__ import annotations

import asyncio
from functools import partial

from agent.contract.actions import (
    EndProcesses,
    EnsureUnit,
    EnsureUser,
    InstallPackages,
    ReloadSystemd,
    ReloadUnit,
    RemovePackages,
    RemoveUser,
    SetSliceLimits,
)
from agent.contract.facts import UserFact
from agent.system import files
from agent.system.handlers import NoUndo, expect, keep_path
from agent.system.packages import Packages
from agent.system.processes import Processes
from agent.system.slices import Slices
from agent.system.systemd import Systemd
from agent.system.threads import in_thread
from agent.system.undo import AnyUndo, Checkpoints, NothingUndo, PackagesUndo, SliceUndo, UnitUndo, UserUndo
from agent.system.users import Users
from shared.errors import InvalidInputError
from shared.specs.account import MAX_TENANT_UID, MIN_TENANT_UID


def require_tenant_uid(uid: int) -> int:
    """Return the id if it can be an account's.

    Raises:
        InvalidInputError: It is the system's or an administrator's: their processes and limits are not ours.
    """
    if not MIN_TENANT_UID <= uid <= MAX_TENANT_UID:
        raise InvalidInputError(f"uid {uid} is outside the tenants' range", field="uid")
    return uid


class EnsureUserHandler:
    """EnsureUser; the undo of a new user ends its processes first, or userdel would refuse."""

    def __init__(self, users: Users, processes: Processes) -> None:
        self._users = users
        self._processes = processes

    async def capture(self, action: EnsureUser) -> AnyUndo:
        return UserUndo(
            user=await self._users.find(action.name), password_field=await self._users.read_password_field(action.name)
        )

    async def apply(self, action: EnsureUser) -> None:
        require_tenant_uid(action.uid)
        before = await self._users.find(action.name)
        groups = {*action.groups, *(before.groups if before is not None else ())}
        await self._users.ensure(
            UserFact(
                name=action.name,
                uid=action.uid,
                gid=action.uid,
                home=action.home,
                shell=action.shell,
                is_locked=action.is_locked,
                groups=tuple(sorted(groups)),
            )
        )

    async def undo(self, action: EnsureUser, record: AnyUndo) -> None:
        before = expect(record, UserUndo)
        if before.user is not None:
            await self._users.ensure(before.user, password_field=before.password_field)
            return
        found = await self._users.find(action.name)
        # A user of that name with another id is not what this action made.
        if found is None or found.uid == action.uid:
            await self._processes.end_all(require_tenant_uid(action.uid))
            await self._users.remove(action.name)


class RemoveUserHandler:
    """RemoveUser. The slice's limits go with the user, or its successor with the same id would inherit them."""

    def __init__(self, users: Users, slices: Slices) -> None:
        self._users = users
        self._slices = slices

    async def capture(self, action: RemoveUser) -> AnyUndo:
        user = await self._users.find(action.name)
        if user is None:
            return UserUndo(user=None)
        return UserUndo(
            user=user,
            password_field=await self._users.read_password_field(action.name),
            slice=await self._slices.capture(user.uid),
        )

    async def apply(self, action: RemoveUser) -> None:
        user = await self._users.find(action.name)
        if user is not None:
            require_tenant_uid(user.uid)
            await self._slices.forget(user.uid, is_stopped=True)
        await self._users.remove(action.name)

    async def undo(self, action: RemoveUser, record: AnyUndo) -> None:  # noqa: ARG002 - the record has the user
        before = expect(record, UserUndo)
        if before.user is not None:
            await self._users.ensure(before.user, password_field=before.password_field)
        if before.slice is not None:
            await self._slices.undo(before.slice)


class SetSliceLimitsHandler:
    """SetSliceLimits."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    async def capture(self, action: SetSliceLimits) -> AnyUndo:
        return await self._slices.capture(action.uid)

    async def apply(self, action: SetSliceLimits) -> None:
        await self._slices.set_limits(require_tenant_uid(action.uid), action.limits)

    async def undo(self, action: SetSliceLimits, record: AnyUndo) -> None:  # noqa: ARG002 - the record has the slice
        await self._slices.undo(expect(record, SliceUndo))


class EndProcessesHandler(NoUndo[EndProcesses]):
    """EndProcesses."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def apply(self, action: EndProcesses) -> None:
        await self._processes.end_all(require_tenant_uid(action.uid))


class InstallPackagesHandler:
    """InstallPackages; undo takes away what came, and nothing that was there or is needed by something else."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    async def capture(self, action: InstallPackages) -> AnyUndo:
        installed = await self._packages.installed(action.names)
        missing = tuple(name for name in action.names if name not in installed)
        coming = await self._packages.plan_installation(missing)
        return PackagesUndo(names=missing, companions=tuple(name for name in coming if name not in missing))

    async def apply(self, action: InstallPackages) -> None:
        await self._packages.install(action.names)

    async def undo(self, action: InstallPackages, record: AnyUndo) -> None:  # noqa: ARG002 - the record has the names
        before = expect(record, PackagesUndo)
        if before.names:
            await self._packages.purge(await self._packages.list_undoable(before.names, before.companions))


class RemovePackagesHandler:
    """RemovePackages; undo installs again and puts changed conffiles back, which purging forgets."""

    def __init__(self, packages: Packages, checkpoints: Checkpoints) -> None:
        self._packages = packages
        self._checkpoints = checkpoints

    async def capture(self, action: RemovePackages) -> AnyUndo:
        names = tuple(sorted(await self._packages.installed(action.names)))
        going = await self._packages.plan_removal(names)
        changed = await self._packages.changed_conffiles((*names, *going))
        conffiles = {path: await asyncio.to_thread(keep_path, self._checkpoints, path) for path in changed}
        companions = tuple(name for name in going if name not in names)
        return PackagesUndo(names=names, companions=companions, conffiles=conffiles)

    async def apply(self, action: RemovePackages) -> None:
        await self._packages.purge(
            tuple(dict.fromkeys((*action.names, *await self._packages.plan_removal(action.names))))
        )

    async def undo(self, action: RemovePackages, record: AnyUndo) -> None:  # noqa: ARG002 - the record has the names
        before = expect(record, PackagesUndo)
        await self._packages.install(before.names)
        for path, state in before.conffiles.items():
            content = await asyncio.to_thread(self._checkpoints.content_of, state)
            await in_thread(partial(files.restore_path, path, state, content))


class EnsureUnitHandler:
    """EnsureUnit."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    async def capture(self, action: EnsureUnit) -> AnyUndo:
        fact = await self._systemd.unit(action.unit)
        return UnitUndo(is_running=fact.is_running, is_enabled=fact.is_enabled)

    async def apply(self, action: EnsureUnit) -> None:
        await self._bring(action.unit, is_running=action.is_running, is_enabled=action.is_enabled)

    async def undo(self, action: EnsureUnit, record: AnyUndo) -> None:
        before = expect(record, UnitUndo)
        await self._bring(
            action.unit,
            is_running=None if action.is_running is None else before.is_running,
            is_enabled=None if action.is_enabled is None else before.is_enabled,
        )

    async def _bring(self, unit: str, *, is_running: bool | None, is_enabled: bool | None) -> None:
        fact = await self._systemd.unit(unit)
        if is_running is False:
            await self._systemd.stop(unit)
        if is_enabled is True and not fact.is_enabled:
            await self._systemd.enable(unit)
        elif is_enabled is False and fact.is_enabled:
            await self._systemd.disable(unit)
        if is_running is True and not fact.is_running:
            if fact.has_failed:
                await self._systemd.reset_failed(unit)
            await self._systemd.start(unit)


class ReloadUnitHandler(NoUndo[ReloadUnit]):
    """ReloadUnit."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    async def apply(self, action: ReloadUnit) -> None:
        await self._systemd.reload_if_running(action.unit)

    async def undo(self, action: ReloadUnit, record: AnyUndo) -> None:
        expect(record, NothingUndo)
        await self._systemd.reload_if_running(action.unit)


class ReloadSystemdHandler(NoUndo[ReloadSystemd]):
    """ReloadSystemd."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    async def apply(self, action: ReloadSystemd) -> None:  # noqa: ARG002 - it has no parameters
        await self._systemd.daemon_reload()

    async def undo(self, action: ReloadSystemd, record: AnyUndo) -> None:  # noqa: ARG002 - it has no parameters
        expect(record, NothingUndo)
        await self._systemd.daemon_reload()
