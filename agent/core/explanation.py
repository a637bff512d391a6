"""An action in words a person can judge: what, on what, why, and how it would be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.contract import actions
from agent.contract.actions import AnyAction, ConfigTree
from agent.contract.host import Host
from shared.protocol.job import ChangeKind, PlannedChange

MAX_DIFF_CHARACTERS: Final = 16_384
"""Longer ones are cut: a result must fit into one frame."""

_KINDS: Final[Mapping[type, ChangeKind]] = {
    actions.RemoveUser: ChangeKind.DELETE,
    actions.RemoveTree: ChangeKind.DELETE,
    actions.RemoveHome: ChangeKind.DELETE,
    actions.RemoveFile: ChangeKind.DELETE,
    actions.RemovePackages: ChangeKind.DELETE,
    actions.InstallPackages: ChangeKind.CREATE,
    actions.SetSliceLimits: ChangeKind.UPDATE,
    actions.EnsureUnit: ChangeKind.RUN,
    actions.ReloadUnit: ChangeKind.RUN,
    actions.ReloadSystemd: ChangeKind.RUN,
    actions.EndProcesses: ChangeKind.RUN,
}

_UNDO: Final[Mapping[type, str]] = {
    actions.EnsureUser: "put the user back as it was, or remove a new one",
    actions.RemoveUser: "create the user again with the same id",
    actions.EnsureDirectory: "put owner and mode back, or remove a new directory",
    actions.EnsureHome: "put the size limit back, or remove a new home",
    actions.WriteFile: "put the previous content back, or remove a new file",
    actions.RemoveFile: "put the file back",
    actions.PublishConfig: "put the previous files back, test and reload",
    actions.InstallPackages: "remove the packages that were not there",
    actions.RemovePackages: "install the packages again",
    actions.EnsureUnit: "put the unit back as it was",
    actions.ReloadUnit: "reload again",
    actions.ReloadSystemd: "reload again",
    actions.SetSliceLimits: "put the previous limits back",
    actions.EndProcesses: "nothing: services start again by themselves",
}


async def explain(host: Host, resource: str, action: AnyAction, *, is_whole: bool = False) -> PlannedChange:
    """Describe one action before it happens. Changes nothing.

    Args:
        host: Where it would happen.
        resource: Key of the resource that it is for.
        action: What would be done.
        is_whole: Show the files around the changes as a whole, if that is not too long.

    Raises:
        FactError: The host could not be read.
    """
    return PlannedChange(
        resource=resource,
        action=str(type(action).__struct_config__.tag),
        kind=await _kind(host, action),
        target=action.target,
        reason=action.reason,
        diff=await _diff(host, action, is_whole=is_whole),
        undo="" if action.IS_IRREVERSIBLE else _UNDO[type(action)],
        is_irreversible=action.IS_IRREVERSIBLE,
    )


async def _diff(host: Host, action: AnyAction, *, is_whole: bool) -> str:
    """A whole file that would have to be cut is shown with little around its changes instead: none may be lost."""
    if is_whole and len(whole := await host.diff(action, is_whole=True)) <= MAX_DIFF_CHARACTERS:
        return whole
    return cut_diff(await host.diff(action))


async def _kind(host: Host, action: AnyAction) -> ChangeKind:
    """Create or update depends on what is there now."""
    known = _KINDS.get(type(action))
    if known is not None:
        return known
    match action:
        case actions.EnsureUser():
            is_there = await host.user(action.name) is not None
        case actions.PublishConfig() if not action.files:
            return ChangeKind.DELETE
        case actions.PublishConfig():
            is_there = await host.path(action.files[0].path) is not None
        case _:
            is_there = await host.path(action.target) is not None
    return ChangeKind.UPDATE if is_there else ChangeKind.CREATE


def cut_diff(diff: str) -> str:
    """Keep the start of a long diff."""
    if len(diff) <= MAX_DIFF_CHARACTERS:
        return diff
    return f"{diff[:MAX_DIFF_CHARACTERS]}\n... {len(diff) - MAX_DIFF_CHARACTERS} more characters\n"


def list_reloads(planned: Iterable[AnyAction], trees: Mapping[str, ConfigTree]) -> tuple[str, ...]:
    """Units that the actions reload, start or stop, each once, in order."""
    found: dict[str, None] = {}
    for action in planned:
        match action:
            case actions.ReloadUnit():
                found[action.unit] = None
            case actions.EnsureUnit() if action.is_running is not None:
                found[action.unit] = None
            case actions.PublishConfig():
                tree = trees.get(action.tree)
                if tree is not None and tree.reload_unit is not None:
                    found[tree.reload_unit] = None
    return tuple(found)
