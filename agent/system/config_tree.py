"""Publishing configuration: many changes, one test and one reload, and only the guilty one fails.

One committer for each tree. It takes all publications that wait, stages them together over the live files, and asks the
service's validator once. A refusal is narrowed down by halving: what stands on what was accepted so far and is refused
gets the validator's words; the others go live. There is never more than one test or reload in flight for a tree (nginx
with 10,000 sites takes seconds for each).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.actions import ConfigTree
from agent.system import files
from agent.system.config_stage import Stage
from agent.system.runner import run
from agent.system.undo import PathKind
from shared.errors import CommandError, ConfigTestError, FleetError, InvalidInputError, UnavailableError

VALIDATOR_TIMEOUT_SECONDS: Final = 120.0
MAX_WORDS_CHARACTERS: Final = 4000


class LiveFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it shall be live."""

    content: bytes
    uid: int
    gid: int
    mode: int


Publication = dict[str, LiveFile | None]
"""Path to the wanted file; None: no such file. Every path lies directly in the tree's live folder."""
Reload = Callable[[str], Awaitable[None]]


class _Waiting(msgspec.Struct, kw_only=True, eq=False):
    publication: Publication
    outcome: asyncio.Future[None]
    refusal: FleetError | None = None


class Committer:
    """Publishes into one tree."""

    def __init__(self, tree: ConfigTree, *, stage_root: Path, reload_unit: Reload) -> None:
        self.tree = tree
        self._stage = Stage(tree, stage_root)
        self._reload_unit = reload_unit
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def publish(self, publication: Publication) -> None:
        """Have these files live, judged and loaded.

        Raises:
            ConfigTestError: The validator refused them; none of them is live.
            CommandError: The validator cannot be run, or the reload failed; they are live.
            UnavailableError: A file could not be written; some may be live.
        """
        for path in publication:
            if str(Path(path).parent) != self.tree.live_dir:
                raise InvalidInputError(f"{path} does not lie in {self.tree.live_dir}", field="files")
        waiting = _Waiting(publication=publication, outcome=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        # Who stops waiting does not stop the batch: others are in it.
        await asyncio.shield(waiting.outcome)

    async def _work(self) -> None:
        try:
            while self._waiting:
                # Whoever is ready to publish now joins this batch.
                await asyncio.sleep(0)
                batch, self._waiting = self._waiting, []
                try:
                    await self._commit(batch)
                except BaseException as error:  # an outcome for everybody, whatever happened; the worker goes on
                    for waiting in batch:
                        _fail(waiting, error)
                    if not isinstance(error, FleetError):
                        raise
        finally:
            self._worker = None
            for waiting in self._waiting:
                _fail(waiting, UnavailableError(f"publishing into {self.tree.name} was interrupted"))
            self._waiting = []

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        # What is live already needs no test (a repetition, the undo of what was refused); it is loaded with the rest.
        unchanged = [waiting for waiting in batch if not await asyncio.to_thread(_differs, waiting.publication)]
        changes = [waiting for waiting in batch if waiting not in unchanged]
        try:
            accepted = unchanged + await self._settle([], changes)
        finally:
            await asyncio.to_thread(self._stage.remove)
        for waiting in batch:
            if waiting.refusal is not None:
                _fail(waiting, waiting.refusal)
        live = [waiting for waiting in accepted if await self._go_live(waiting)]
        if not live:
            return
        if self.tree.reload_unit is not None:
            await self._reload_unit(self.tree.reload_unit)
        for waiting in live:
            if not waiting.outcome.done():
                waiting.outcome.set_result(None)

    async def _settle(self, accepted: list[_Waiting], candidates: Sequence[_Waiting]) -> list[_Waiting]:
        """Test candidates on top of what is accepted; the accepted afterwards. The refused know why."""
        if not candidates:
            return accepted
        together = [*accepted, *candidates]
        try:
            await self._test(together, candidates)
        except (ConfigTestError, CommandError) as error:
            if len(candidates) == 1:
                candidates[0].refusal = error
                return accepted
            middle = len(candidates) // 2
            accepted = await self._settle(accepted, candidates[:middle])
            return await self._settle(accepted, candidates[middle:])
        return together

    async def _test(self, together: Sequence[_Waiting], candidates: Sequence[_Waiting]) -> None:
        overlay: dict[str, bytes | None] = {}
        for waiting in together:
            for path, file in waiting.publication.items():
                overlay[Path(path).name] = None if file is None else file.content
        await asyncio.to_thread(self._stage.build, overlay)
        # A file that stands alone and passed before need not be tested again.
        new = {Path(path).name for waiting in candidates for path in waiting.publication}
        names = tuple(sorted(name for name in new if overlay[name] is not None))
        for argv in self._stage.commands(names):
            completed = await run(argv, timeout_seconds=VALIDATOR_TIMEOUT_SECONDS, accepted_codes=range(256))
            if completed.exit_code != 0:
                said = self._stage.translate(completed.stderr.strip() or completed.stdout)
                raise ConfigTestError(
                    said[:MAX_WORDS_CHARACTERS] or f"{argv[0]} refused it without a word",
                    context={"tree": self.tree.name, "exit_code": completed.exit_code},
                )

    async def _go_live(self, waiting: _Waiting) -> bool:
        try:
            await asyncio.to_thread(_write_live, waiting.publication)
        except FleetError as error:
            _fail(waiting, error)
            return False
        return True


def _differs(publication: Publication) -> bool:
    for path, file in publication.items():
        state, content = files.capture_path(path)
        if file is None:
            if state.kind is not PathKind.ABSENT:
                return True
        elif (content, state.uid, state.gid, state.mode) != (file.content, file.uid, file.gid, file.mode):
            return True
    return False


def _write_live(publication: Publication) -> None:
    for path, file in publication.items():
        if file is None:
            files.remove_file(path)
        else:
            files.write_file(path, file.content, uid=file.uid, gid=file.gid, mode=file.mode)


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error if isinstance(error, FleetError) else UnavailableError(str(error)))
