"""A host whose files are real: agent.system's own handlers, below a folder; and a module that does everything to files."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import msgspec

from agent.contract import actions
from agent.contract.actions import AnyAction, ConfigTree, PublishConfig, WriteFile, content_hash
from agent.contract.facts import PathFact
from agent.contract.host import UndoRecord
from agent.contract.module import Module, Plan, Verification
from agent.system.host import RealHost
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec

LIVE = "/etc/web"
TREE = ConfigTree(name="web", live_dir=LIVE, validator=("/bin/false", "{file}"))
VALIDATOR = '#!/bin/sh\n! grep -qs broken "$1"\n'
LARGE = 100 * 1024
"""More than fits into an undo record: a checkpoint is made (agent.system.undo)."""
OWNER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def lay_ground(root: Path) -> None:
    """What is there before anybody manages it; among it a link and a file where ours shall be."""
    for folder in ("etc/web", "etc/pools", "srv/accounts"):
        (root / "host" / folder).mkdir(parents=True, exist_ok=True)
    validator = root / "validator"
    validator.write_text(VALIDATOR)
    validator.chmod(0o755)
    (root / "host/etc/alice.link").symlink_to("/nowhere/at/all")
    (root / "host/etc/web/a.example.com.conf").write_text("somebody else's\n")
    (root / "host/etc/web/a.example.com.conf").chmod(0o600)
    (root / "host/etc/pools/alice-8.2").write_text("o" * LARGE)


class FilesHost:
    """Every path below `base/host`; owners are whoever runs the test."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "host"
        tree = msgspec.structs.replace(
            TREE, live_dir=str(self.root) + LIVE, validator=(str(base / "validator"), "{file}")
        )
        self._real = RealHost(base / "checkpoints", (tree,), run_directory=base / "run")

    async def capture(self, action: AnyAction) -> UndoRecord:
        return await self._real.capture(self._below(action))

    async def apply(self, action: AnyAction) -> None:
        await self._real.apply(self._below(action))

    async def undo(self, action: AnyAction, record: UndoRecord) -> None:
        await self._real.undo(self._below(action), record)

    async def path(self, path: str) -> PathFact | None:
        return await self._real.path(f"{self.root}{path}")

    async def diff(self, _action: AnyAction, *, is_whole: bool = False) -> str:
        return "whole" if is_whole else ""

    def _below(self, action: AnyAction) -> AnyAction:
        if isinstance(action, PublishConfig):
            files = tuple(self._file_below(file) for file in action.files)
            removals = tuple(f"{self.root}{path}" for path in action.removals)
            return msgspec.structs.replace(action, files=files, removals=removals)
        if isinstance(action, WriteFile):
            return self._file_below(action)
        changed: dict[str, Any] = {"path": f"{self.root}{action.target}"}
        if isinstance(action, actions.EnsureDirectory):
            changed |= {"owner": OWNER, "group": GROUP}
        return msgspec.structs.replace(action, **changed)

    def _file_below(self, file: WriteFile) -> WriteFile:
        return msgspec.structs.replace(file, path=f"{self.root}{file.path}", owner=OWNER, group=GROUP)

    def snapshot(self) -> dict[str, tuple[Any, ...]]:
        """Path to kind, mode, owner and content; hidden files as well."""
        return {str(path.relative_to(self.root)): _describe(path) for path in sorted(self.root.rglob("*"))}


def _describe(path: Path) -> tuple[Any, ...]:
    found = path.lstat()
    if path.is_symlink():
        return ("link", str(path.readlink()), found.st_uid)
    content = path.read_bytes() if path.is_file() else b""
    return (stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, content)


class FileConverger:
    """A folder, a file and a publication for each resource; removal takes the folder for good."""

    def __init__(self, spec_type: type) -> None:
        self.spec_type = spec_type

    def files(self, spec: Any, presence: Presence) -> tuple[tuple[WriteFile, ...], tuple[WriteFile, ...]]:
        """Written one by one, and published together."""
        text = f"{presence.value} {msgspec.json.encode(spec).decode()}\n"
        if isinstance(spec, AccountSpec):
            return (_file(f"/etc/{spec.name}.link", text), _file(f"/etc/{spec.name}.conf", text, 0o640)), ()
        if isinstance(spec, PhpPoolSpec):
            return (_file(f"/etc/pools/{spec.account}-{spec.version}", text + "x" * LARGE),), ()
        return (), (_file(f"{LIVE}/{spec.domain}.conf", text), _file(f"{LIVE}/{spec.domain}.inc", text, 0o600))

    def folder(self, spec: Any) -> str | None:
        return f"/srv/accounts/{spec.name}" if isinstance(spec, AccountSpec) else None

    async def observe(self, spec: Any, probe: Any) -> dict[str, PathFact | None]:
        if isinstance(spec, ModuleSpec):
            return {}
        written, published = self.files(spec, Presence.ENABLED)
        paths = [file.path for file in (*written, *published)]
        folder = self.folder(spec)
        return {path: await probe.path(path) for path in [*paths, *([folder] if folder else [])]}

    def plan(self, spec: Any, presence: Presence, facts: dict[str, PathFact | None]) -> Plan:
        if isinstance(spec, ModuleSpec):
            return Plan(noop_reason="nothing is needed")
        written, published = self.files(spec, presence)
        folder = self.folder(spec)
        planned: list[Any] = []
        if presence is Presence.ABSENT:
            planned += [actions.RemoveFile(path=file.path, reason="not wanted") for file in written if facts[file.path]]
            removals = tuple(file.path for file in published if facts[file.path])
            if removals:
                planned.append(PublishConfig(tree=TREE.name, removals=removals, reason="not wanted"))
            if folder and facts[folder]:
                planned.append(actions.RemoveTree(path=folder, reason="not wanted"))
        else:
            if folder and not facts[folder]:
                planned.append(actions.EnsureDirectory(path=folder, mode=0o710, reason="missing"))
            planned += [file for file in written if not _holds(facts[file.path], file)]
            differing = tuple(file for file in published if not _holds(facts[file.path], file))
            if differing:
                planned.append(PublishConfig(tree=TREE.name, files=differing, reason="they differ"))
        return Plan(actions=tuple(planned), noop_reason="as wanted")

    async def verify(self, spec: Any, presence: Presence, probe: Any) -> Verification:
        facts = await self.observe(spec, probe)
        is_good = not self.plan(spec, presence, facts).actions or presence is Presence.ABSENT
        return Verification(is_good=is_good, note="looked at the files")


def _file(path: str, content: str, mode: int = 0o644) -> WriteFile:
    return WriteFile(path=path, content=content, mode=mode, reason="it differs")


def _holds(fact: PathFact | None, file: WriteFile) -> bool:
    if fact is None or fact.kind != "file":
        return False
    return (fact.content_hash, fact.mode) == (content_hash(file.content), file.mode)


MODULE = Module(
    name="files",
    version="1",
    host=FileConverger(ModuleSpec),
    convergers=(FileConverger(AccountSpec), FileConverger(PhpPoolSpec), FileConverger(SiteSpec)),
    config_trees=(TREE,),
)
