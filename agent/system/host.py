"""`RealHost`: the node that this process runs on, as agent.contract.host.Host describes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from agent.contract.actions import (
    AnyAction,
    ConfigTree,
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
from agent.contract.facts import HomeFact, HomeUse, HttpFact, PathFact, SliceFact, UnitFact, UserFact
from agent.contract.host import UndoRecord
from agent.system import config_check, files, handlers, handlers_system, http, storage
from agent.system.config_tree import Committer
from agent.system.diffs import diff_of
from agent.system.packages import Packages
from agent.system.processes import Processes
from agent.system.slices import Slices
from agent.system.systemd import Systemd
from agent.system.undo import Checkpoints, decode_undo, encode_undo
from agent.system.users import Users
from agent.system.workers import TransientWorkers
from shared.specs.account import StorageDriver

RUN_DIRECTORY: Final = Path("/run/wcp360-executor")
"""Ours alone, root 0700, empty after a boot: stages and the output of transient units."""


class RealHost:
    """Reads and changes this node. One object for the life of the process; safe for any number of jobs at once.

    Args:
        checkpoint_dir: Where copies of large files are kept until their job is over.
        config_trees: What PublishConfig can publish into.
        run_directory: On a file system that is empty after a boot.
    """

    def __init__(
        self, checkpoint_dir: Path, config_trees: Sequence[ConfigTree], *, run_directory: Path = RUN_DIRECTORY
    ) -> None:
        self._systemd = Systemd(run_directory=run_directory)
        self._users = Users()
        self._slices = Slices(self._systemd)
        self._processes = Processes(self._systemd)
        self._packages = Packages(self._systemd)
        self._checkpoints = Checkpoints(checkpoint_dir)
        reload_unit = self._systemd.reload_if_running
        stage = run_directory / "stage"
        self._trees = {tree.name: tree for tree in config_trees}
        self._check_root = run_directory / "check"
        self._plan_root = run_directory / "plan"
        self._plan_lock = asyncio.Lock()
        committers = {tree.name: Committer(tree, stage_root=stage, reload_unit=reload_unit) for tree in config_trees}
        self._handlers = self._build_handlers(committers)

    def _build_handlers(self, committers: dict[str, Committer]) -> dict[type[AnyAction], handlers.Handler[Any]]:
        paths = (self._checkpoints, self._systemd)
        return {
            EnsureUser: handlers_system.EnsureUserHandler(self._users, self._processes),
            RemoveUser: handlers_system.RemoveUserHandler(self._users, self._slices),
            EnsureDirectory: handlers.EnsureDirectoryHandler(*paths),
            RemoveTree: handlers.RemoveTreeHandler(),
            EnsureHome: handlers.EnsureHomeHandler(),
            RemoveHome: handlers.RemoveHomeHandler(),
            WriteFile: handlers.WriteFileHandler(*paths),
            RemoveFile: handlers.RemoveFileHandler(*paths),
            PublishConfig: handlers.PublishConfigHandler(committers, self._checkpoints),
            InstallPackages: handlers_system.InstallPackagesHandler(self._packages),
            RemovePackages: handlers_system.RemovePackagesHandler(self._packages, self._checkpoints),
            EnsureUnit: handlers_system.EnsureUnitHandler(self._systemd),
            ReloadUnit: handlers_system.ReloadUnitHandler(self._systemd),
            ReloadSystemd: handlers_system.ReloadSystemdHandler(self._systemd),
            SetSliceLimits: handlers_system.SetSliceLimitsHandler(self._slices),
            EndProcesses: handlers_system.EndProcessesHandler(self._processes),
        }

    # --- actions ------------------------------------------------------------------------------------------------------

    async def capture(self, action: AnyAction) -> UndoRecord:
        return encode_undo(await self._handlers[type(action)].capture(action))

    async def apply(self, action: AnyAction) -> None:
        await self._handlers[type(action)].apply(action)

    async def undo(self, action: AnyAction, record: UndoRecord) -> None:
        await self._handlers[type(action)].undo(action, decode_undo(record))

    async def diff(self, action: AnyAction, *, is_whole: bool = False) -> str:
        return await asyncio.to_thread(diff_of, action, is_whole=is_whole)

    async def prune_checkpoints(self, records: Iterable[UndoRecord]) -> None:
        """Remove copies of files that none of these records (those of unfinished jobs) needs."""
        await asyncio.to_thread(self._checkpoints.prune, list(records))

    def make_workers(self, agent_gid: int) -> TransientWorkers:
        """What starts workers here; `agent_gid` is the group that may reach their sockets."""
        return TransientWorkers(self._systemd, agent_gid=agent_gid)

    async def close(self) -> None:
        await self._systemd.bus.close()

    # --- facts --------------------------------------------------------------------------------------------------------

    async def user(self, name: str) -> UserFact | None:
        return await self._users.find(name)

    async def user_of_uid(self, uid: int) -> UserFact | None:
        return await self._users.find_by_uid(uid)

    async def path(self, path: str) -> PathFact | None:
        return await asyncio.to_thread(files.path_fact, path)

    async def read_text(self, path: str) -> str | None:
        content = await asyncio.to_thread(files.read_bytes, path)
        return None if content is None else content.decode("utf-8", "replace")

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        return await asyncio.to_thread(files.list_directory, path)

    async def unit(self, name: str) -> UnitFact:
        return await self._systemd.unit(name)

    async def packages(self, names: tuple[str, ...]) -> dict[str, str]:
        return await self._packages.installed(names)

    async def available_packages(self, pattern: str) -> tuple[str, ...]:
        return await self._packages.available(pattern)

    async def home(self, path: str) -> HomeFact | None:
        return await storage.read_home(path)

    async def home_use(self, path: str, *, timeout_seconds: float) -> HomeUse | None:
        return await storage.read_use(path, timeout_seconds=timeout_seconds)

    async def storage_driver(self, directory: str) -> StorageDriver:
        return await storage.read_driver(directory)

    async def slice(self, uid: int) -> SliceFact:
        return await self._slices.read(uid)

    async def has_processes(self, uid: int) -> bool:
        return bool(await self._processes.list_pids(uid))

    async def find_refusal(self, action: PublishConfig) -> str | None:
        known = self._trees.get(action.tree)
        if known is None:
            return None
        async with self._plan_lock:  # one stage for all plans
            return await config_check.find_refusal(known, self._plan_root, action)

    async def find_config_fault(self, tree: str) -> str | None:
        known = self._trees.get(tree)
        return None if known is None else await config_check.find_fault(known, self._check_root)

    async def http_get(self, *, host_name: str, path: str) -> HttpFact | None:
        return await asyncio.to_thread(http.http_get, host_name, path)
