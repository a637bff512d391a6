"""Capture, apply and undo of files, homes and configuration, one handler for each kind of action."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Generic, Protocol, TypeVar

from agent.contract.actions import (
    Action,
    EnsureDirectory,
    EnsureHome,
    PublishConfig,
    RemoveFile,
    RemoveHome,
    RemoveTree,
    WriteFile,
)
from agent.system import files, storage, tree
from agent.system.config_tree import TIMEOUT_CODE, Committer, LiveFile, Publication
from agent.system.systemd import UNIT_DIRECTORIES, Systemd
from agent.system.threads import in_thread
from agent.system.undo import AnyUndo, Checkpoints, HomeUndo, NothingUndo, PathKind, PathState, PathsUndo
from shared.errors import BugError, CommandError, ConfigTestError, FactError, UnavailableError
from shared.specs.account import StorageDriver

ActionT = TypeVar("ActionT", bound=Action)
_ActionT_contra = TypeVar("_ActionT_contra", bound=Action, contravariant=True)
UndoT = TypeVar("UndoT", bound=AnyUndo)


class Handler(Protocol[_ActionT_contra]):
    """What Host promises, for one kind of action, with decoded records."""

    async def capture(self, action: _ActionT_contra) -> AnyUndo: ...

    async def apply(self, action: _ActionT_contra) -> None: ...

    async def undo(self, action: _ActionT_contra, record: AnyUndo) -> None: ...


class NoUndo(Generic[ActionT]):
    """Base for what nothing brings back, or what needs no bringing back."""

    async def capture(self, action: ActionT) -> AnyUndo:  # noqa: ARG002 - the Protocol's
        return NothingUndo()

    async def undo(self, action: ActionT, record: AnyUndo) -> None:  # noqa: ARG002 - the Protocol's
        return


def expect(record: AnyUndo, kind: type[UndoT]) -> UndoT:
    """Return the record as the kind that belongs to the action.

    Raises:
        BugError: The journal holds another kind.
    """
    if not isinstance(record, kind):
        raise BugError(f"an undo record is {type(record).__name__} and should be {kind.__name__}")
    return record


class PathHandler(Generic[ActionT]):
    """Base for actions about one path."""

    def __init__(self, checkpoints: Checkpoints, systemd: Systemd) -> None:
        self._checkpoints = checkpoints
        self._systemd = systemd

    async def capture(self, action: ActionT) -> AnyUndo:
        state = await asyncio.to_thread(keep_path, self._checkpoints, action.target)
        return PathsUndo(paths={action.target: state})

    async def undo(self, action: ActionT, record: AnyUndo) -> None:  # noqa: ARG002 - the record has the path
        for path, state in expect(record, PathsUndo).paths.items():
            await in_thread(partial(_restore, self._checkpoints, path, state))
            if path.startswith(UNIT_DIRECTORIES):
                # Undo runs backwards: the plan's own daemon-reload was undone before its files were.
                await self._systemd.daemon_reload()


def keep_path(checkpoints: Checkpoints, path: str) -> PathState:
    state, content = files.capture_path(path)
    return checkpoints.keep(state, content)


def _restore(checkpoints: Checkpoints, path: str, state: PathState) -> None:
    files.restore_path(path, state, checkpoints.content_of(state))


class WriteFileHandler(PathHandler[WriteFile]):
    """WriteFile."""

    async def apply(self, action: WriteFile) -> None:
        rights = {"uid": files.owner_id(action.owner), "gid": files.group_id(action.group), "mode": action.mode}
        await in_thread(partial(files.write_file, action.path, action.content.encode(), **rights))


class RemoveFileHandler(PathHandler[RemoveFile]):
    """RemoveFile."""

    async def apply(self, action: RemoveFile) -> None:
        await in_thread(partial(files.remove_file, action.path))


class EnsureDirectoryHandler(PathHandler[EnsureDirectory]):
    """EnsureDirectory."""

    async def apply(self, action: EnsureDirectory) -> None:
        rights = {"uid": files.owner_id(action.owner), "gid": files.group_id(action.group), "mode": action.mode}
        await in_thread(partial(files.ensure_directory, action.path, **rights))


class RemoveTreeHandler(NoUndo[RemoveTree]):
    """RemoveTree: nothing brings it back, so a plan has it last."""

    async def apply(self, action: RemoveTree) -> None:
        with files.changeable(action.path):
            await in_thread(partial(tree.remove_tree, action.path))


class EnsureHomeHandler:
    """EnsureHome."""

    async def capture(self, action: EnsureHome) -> AnyUndo:
        state, _ = await asyncio.to_thread(files.capture_path, action.path)
        home = await storage.read_home(action.path)
        return HomeUndo(state=state, quota_bytes=None if home is None else home.quota_bytes)

    async def apply(self, action: EnsureHome) -> None:
        await storage.ensure_home(action)

    async def undo(self, action: EnsureHome, record: AnyUndo) -> None:
        before = expect(record, HomeUndo)
        if before.state.kind is PathKind.ABSENT:
            await storage.remove_home(action.path)
            return
        await in_thread(partial(files.restore_path, action.path, before.state, None))
        home = await storage.read_home(action.path)
        if home is not None and home.driver is StorageDriver.BTRFS and home.quota_bytes != before.quota_bytes:
            await storage.set_quota(action.path, before.quota_bytes)


class RemoveHomeHandler(NoUndo[RemoveHome]):
    """RemoveHome: nothing brings it back, so a plan has it last."""

    async def apply(self, action: RemoveHome) -> None:
        await storage.remove_home(action.path)


class PublishConfigHandler:
    """PublishConfig; undo publishes what was there before, through the same validator and the same one reload."""

    def __init__(self, committers: Mapping[str, Committer], checkpoints: Checkpoints) -> None:
        self._committers = committers
        self._checkpoints = checkpoints

    def _committer(self, action: PublishConfig) -> Committer:
        committer = self._committers.get(action.tree)
        if committer is None:
            raise FactError(f"this node has no configuration tree {action.tree!r}", code="config_tree_unknown")
        return committer

    async def capture(self, action: PublishConfig) -> AnyUndo:
        paths = [*(file.path for file in action.files), *action.removals]
        states = [await asyncio.to_thread(keep_path, self._checkpoints, path) for path in paths]
        return PathsUndo(paths=dict(zip(paths, states, strict=True)))

    async def apply(self, action: PublishConfig) -> None:
        publication: Publication = dict.fromkeys(action.removals)
        for file in action.files:
            publication[file.path] = LiveFile(
                content=file.content.encode(),
                uid=files.owner_id(file.owner),
                gid=files.group_id(file.group),
                mode=file.mode,
            )
        await self._committer(action).publish(publication)

    async def undo(self, action: PublishConfig, record: AnyUndo) -> None:
        publication: Publication = {}
        for path, state in expect(record, PathsUndo).paths.items():
            await in_thread(partial(files.clear_leftover, path))
            content = await asyncio.to_thread(self._checkpoints.content_of, state)
            if state.kind is PathKind.ABSENT:
                publication[path] = None
            elif state.kind is PathKind.FILE and content is not None:
                publication[path] = LiveFile(content=content, uid=state.uid, gid=state.gid, mode=state.mode)
            else:
                await in_thread(partial(files.restore_path, path, state, content))
        try:
            await self._committer(action).publish(publication, is_undo=True)
        except (CommandError, ConfigTestError) as error:
            if isinstance(error, ConfigTestError) and error.code != TIMEOUT_CODE:
                raise
            # The service hangs or is restarting; what it had before is good for it, so it is worth another try.
            raise UnavailableError(error.message, hint=error.hint, context=error.context) from error
