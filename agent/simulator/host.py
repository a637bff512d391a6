"""`MemoryHost`: a host that exists in memory only and otherwise behaves as agent.contract.host.Host promises.

Simulated agents put thousands of these into one process, and the tests of core and modules use it as their host. It
interprets every action, undo included, is deterministic, refuses what a real host could not do, and fails on request.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.contract.actions import AnyAction, ConfigTree, PublishConfig, ReloadUnit, RemoveFile, WriteFile, content_hash
from agent.contract.facts import HomeFact, HomeUse, HttpFact, LimitReading, PathFact, SliceFact, UnitFact, UserFact
from agent.contract.host import UndoRecord
from agent.simulator.answers import answer_like_nginx
from agent.simulator.host_effects import Effects, Validator, judge_config
from agent.simulator.host_faults import Faults, SimulatedCrash, Where
from agent.simulator.host_state import DEBIAN_12, HostState, Kind, MemoryPackage, MemoryPath, MemoryUnit, fresh_state
from agent.system.diffs import render_diff
from shared.errors import FactError, InvalidInputError
from shared.specs.account import ResourceLimits, StorageDriver


class _MemoryUndo(msgspec.Struct, frozen=True, kw_only=True):
    """Entries before; None: there was none."""

    users: dict[str, UserFact | None] = {}
    paths: dict[str, MemoryPath | None] = {}
    units: dict[str, MemoryUnit | None] = {}
    packages: dict[str, str | None] = {}
    slices: dict[str, ResourceLimits | None] = {}
    homes: dict[str, HomeFact | None] = {}


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_MemoryUndo)
_LIMIT_FIELDS = ("cpu_percent", "memory_bytes", "processes_max", "io_weight")

Responder = Callable[[HostState, str, str], HttpFact | None]
"""State, host name and path to the answer; None when nobody listens."""


class MemoryHost:
    """A Host in memory.

    Args:
        repository: Packages that apt could install.
        config_trees: As RealHost has them; a publication into another tree is refused. Empty: every tree is taken.
        storage: What the accounts' file system can do: BTRFS or DIRECTORY.
        validator: Judges the files of a publication.
        responder: Answers http_get.
        directories: Further directories that exist from the beginning.
    """

    def __init__(
        self,
        *,
        repository: Mapping[str, MemoryPackage] = DEBIAN_12,
        config_trees: Sequence[ConfigTree] = (),
        storage: StorageDriver = StorageDriver.BTRFS,
        validator: Validator = judge_config,
        responder: Responder = answer_like_nginx,
        directories: Sequence[str] = (),
    ) -> None:
        self.state = fresh_state(directories)
        self.applied: list[AnyAction] = []
        """Every action whose apply came to its end, in order."""
        self.reloads: list[str] = []
        """Units that were reloaded, in order."""
        self._effects = Effects(self.state, repository=repository, driver=storage, validator=validator)
        self._trees = {tree.name: tree for tree in config_trees}
        self._responder = responder
        self._apply_faults = Faults()
        self._undo_faults = Faults()

    # --- for whoever plays with it ------------------------------------------------------------------------------------

    def snapshot(self) -> HostState:
        """A copy of everything, to be compared with `==` later."""
        return self.state.copy()

    def fail_at(self, where: Where, error: Exception, *, is_after: bool = False) -> None:
        """Have one apply fail; `is_after`: once its effect is there."""
        self._apply_faults.plan(where, error, is_after=is_after)

    def crash_at(self, where: Where, *, is_after: bool = False) -> None:
        """Have the executor die in one apply, before or after its effect."""
        self._apply_faults.plan(where, SimulatedCrash(f"crash at {where}"), is_after=is_after)

    def fail_undo_at(self, where: Where, error: BaseException, *, is_after: bool = False) -> None:
        """Have one undo fail."""
        self._undo_faults.plan(where, error, is_after=is_after)

    def put_file(self, path: str, content: str, *, owner: str = "root", group: str = "root", mode: int = 0o644) -> None:
        """Place a file as an administrator would, behind the agent's back."""
        self.state.paths[path] = MemoryPath(kind=Kind.FILE, owner=owner, group=group, mode=mode, content=content)

    def start_processes(self, uid: int, count: int = 1) -> None:
        """Have a user run processes."""
        self.state.processes[str(uid)] = self.state.processes.get(str(uid), 0) + count

    # --- actions ------------------------------------------------------------------------------------------------------

    async def capture(self, action: AnyAction) -> UndoRecord:
        touched = self._effects.touched(action)
        before = {table: {key: getattr(self.state, table).get(key) for key in keys} for table, keys in touched.items()}
        return _ENCODER.encode(_MemoryUndo(**before))

    async def apply(self, action: AnyAction) -> None:
        before, after = self._apply_faults.next(action)
        if before is not None:
            raise before
        if isinstance(action, PublishConfig):
            self._require_tree(action)
        self._effects.apply(action)
        self._note_reload(action)
        if after is not None:
            raise after
        self.applied.append(action)

    def _require_tree(self, action: PublishConfig) -> None:
        if not self._trees:
            return
        tree = self._trees.get(action.tree)
        if tree is None:
            raise FactError(f"this node has no configuration tree {action.tree!r}", code="config_tree_unknown")
        for path in [*(file.path for file in action.files), *action.removals]:
            if path.rpartition("/")[0] != tree.live_dir:
                raise InvalidInputError(f"{path} does not lie in {tree.live_dir}", field="files")

    def _note_reload(self, action: AnyAction) -> None:
        unit = action.unit if isinstance(action, ReloadUnit) else None
        if isinstance(action, PublishConfig) and action.tree in self._trees:
            unit = self._trees[action.tree].reload_unit
        if unit is not None and self.state.units.get(unit, MemoryUnit()).is_running:
            self.reloads.append(unit)

    async def undo(self, action: AnyAction, record: UndoRecord) -> None:
        before, after = self._undo_faults.next(action)
        if before is not None:
            raise before
        captured = _DECODER.decode(record)
        for table in _MemoryUndo.__struct_fields__:
            rows = getattr(self.state, table)
            for key, value in getattr(captured, table).items():
                if value is not None:
                    rows[key] = value
                elif table == "paths":
                    # What lies in a directory that was not there came later, and goes with it.
                    self._effects.remove_subtree(key)
                else:
                    rows.pop(key, None)
        self._note_reload(action)
        if after is not None:
            raise after

    async def diff(self, action: AnyAction, *, is_whole: bool = False) -> str:
        match action:
            case WriteFile():
                return self._diff(action.path, action.content, mode=action.mode, is_whole=is_whole)
            case RemoveFile():
                return self._diff(action.path, None, mode=self._mode_of(action.path))
            case PublishConfig():
                written = [
                    self._diff(file.path, file.content, mode=file.mode, is_whole=is_whole) for file in action.files
                ]
                removed = [self._diff(path, None, mode=self._mode_of(path)) for path in action.removals]
                return "".join([*written, *removed])
            case _:
                return ""

    def _mode_of(self, path: str) -> int:
        found = self.state.paths.get(path)
        return 0o644 if found is None else found.mode

    def _diff(self, path: str, after: str | None, *, mode: int, is_whole: bool = False) -> str:
        found = self.state.paths.get(path)
        before = found.content if found is not None and found.kind is Kind.FILE else None
        return render_diff(path, before, after, is_secret=not mode & 0o077, is_whole=is_whole)

    # --- facts --------------------------------------------------------------------------------------------------------

    async def user(self, name: str) -> UserFact | None:
        return self.state.users.get(name)

    async def user_of_uid(self, uid: int) -> UserFact | None:
        return next((user for user in self.state.users.values() if user.uid == uid), None)

    async def path(self, path: str) -> PathFact | None:
        found = self.state.paths.get(path)
        if found is None:
            return None
        digest = content_hash(found.content) if found.kind is Kind.FILE else None
        return PathFact(
            kind=found.kind.value, owner=found.owner, group=found.group, mode=found.mode, content_hash=digest
        )

    async def read_text(self, path: str) -> str | None:
        found = self.state.paths.get(path)
        if found is not None and found.kind is not Kind.FILE:
            raise FactError(f"{path} is no regular file")
        return None if found is None else found.content

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        found = self.state.paths.get(path)
        if found is None or found.kind is not Kind.DIRECTORY:
            return None
        prefix = "/" if path == "/" else f"{path}/"
        names = (key.removeprefix(prefix) for key in self.state.paths if key.startswith(prefix) and key != prefix)
        return tuple(sorted(name for name in names if "/" not in name))

    async def unit(self, name: str) -> UnitFact:
        found = self.state.units.get(name, MemoryUnit())
        if name.endswith(".slice") and name.removeprefix("user-").removesuffix(".slice") in self.state.slices:
            found = MemoryUnit(is_running=True)
        return UnitFact(
            is_loaded=self._effects.is_loaded(name),
            is_running=found.is_running,
            is_enabled=found.is_enabled,
            has_failed=found.has_failed,
        )

    async def packages(self, names: tuple[str, ...]) -> dict[str, str]:
        return {name: self.state.packages[name] for name in names if name in self.state.packages}

    async def available_packages(self, pattern: str) -> tuple[str, ...]:
        return tuple(sorted(fnmatch.filter(self._effects.repository, pattern)))

    async def home(self, path: str) -> HomeFact | None:
        found = self.state.paths.get(path)
        if found is None or found.kind is not Kind.DIRECTORY:
            return None
        return self.state.homes.get(path, HomeFact(driver=StorageDriver.DIRECTORY, quota_bytes=None))

    async def home_use(self, path: str, *, timeout_seconds: float) -> HomeUse | None:  # noqa: ARG002 - as Probe
        home = await self.home(path)
        if home is None:
            return None
        inside = sum(1 for name in self.state.paths if name == path or name.startswith(f"{path}/"))
        return HomeUse(disk_bytes=home.used_bytes or 4096 * inside, inodes=inside)

    async def storage_driver(self, directory: str) -> StorageDriver:
        if await self.list_directory(directory) is None:
            raise FactError(f"{directory} cannot be read: there is no such directory")
        return self._effects.driver if directory.startswith("/srv/accounts") else StorageDriver.DIRECTORY

    async def slice(self, uid: int) -> SliceFact:
        limits = self.state.slices.get(str(uid))
        if limits is None:
            return SliceFact(configured=ResourceLimits(), readings={}, is_active=False)
        readings = {name: LimitReading(value=getattr(limits, name), source=f"memory:{name}") for name in _LIMIT_FIELDS}
        return SliceFact(configured=limits, readings=readings, is_active=True)

    async def has_processes(self, uid: int) -> bool:
        return self.state.processes.get(str(uid), 0) > 0

    async def find_refusal(self, action: PublishConfig) -> str | None:
        return self._effects.validator(action.tree, {file.path: file.content for file in action.files})

    async def find_config_fault(self, tree: str) -> str | None:
        """The validator's words about what lies there, for example what an administrator put into it."""
        known = self._trees.get(tree)
        if known is None:
            return None
        live = {path: found.content for path, found in self.state.paths.items() if found.kind is Kind.FILE}
        inside = {path: text for path, text in live.items() if path.rpartition("/")[0] == known.live_dir}
        return self._effects.validator(tree, inside)

    async def http_get(self, *, host_name: str, path: str) -> HttpFact | None:
        return self._responder(self.state, host_name, path)
