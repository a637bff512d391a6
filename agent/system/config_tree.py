"""Publishing configuration: many changes, one test and one reload, and only the guilty one fails.

One committer for each tree. It takes all publications that wait, stages them together over the live files, and asks the
service's validator once. A refusal is narrowed down by halving: what stands on what was accepted so far and is refused
gets the validator's words; the others go live. There is never more than one test or reload in flight for a tree (nginx
with 10,000 sites takes seconds for each). A validator that does not end is ended, and a batch has a time of its own, so
that what hangs stops nobody for longer than an undo may take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.actions import ConfigTree
from agent.contract.facts import Completed
from agent.system import faults, files
from agent.system.config_stage import Stage
from agent.system.recording import Recorder, current_recorder, not_recording
from agent.system.runner import TIMEOUT_EXIT_CODE, run
from agent.system.threads import in_thread
from agent.system.undo import PathKind
from shared.errors import CommandError, ConfigTestError, FleetError, InvalidInputError, UnavailableError
from shared.protocol.job import CommandPurpose

VALIDATOR_TIMEOUT_SECONDS: Final = 60.0
"""nginx with 10,000 sites needs some seconds."""
NARROWING_TIMEOUT_SECONDS: Final = 15.0
"""For each test that looks for the publication that the validator hangs at."""
BATCH_SECONDS: Final = 150.0
"""For all tests of one batch. Shorter than an undo may take (agent.core.transaction): one may have to wait for it."""
TIMEOUT_CODE: Final = "config_test_timeout"
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
    recorder: Recorder | None = None
    resource: str = ""
    """For whom the validator runs, for the explanation of the job."""
    is_abandoned: bool = False
    """Nobody waits for it any more, so it shall not go live behind the back of whoever undoes it."""


class _Tests(msgspec.Struct, kw_only=True):
    """What is left of one batch's time."""

    deadline: float
    """By the monotonic clock."""
    limit_seconds: float


class Committer:
    """Publishes into one tree."""

    def __init__(
        self,
        tree: ConfigTree,
        *,
        stage_root: Path,
        reload_unit: Reload,
        validator_seconds: float = VALIDATOR_TIMEOUT_SECONDS,
    ) -> None:
        self.tree = tree
        self._validator_seconds = validator_seconds
        self._stage = Stage(tree, stage_root)
        self._reload_unit = reload_unit
        self._is_loaded: bool | None = None
        """Whether the service has read what we wrote. None: a predecessor may have died before it had; recovery, which
        comes before anything else, undoes what that one began, and so loads it."""
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def publish(self, publication: Publication, *, is_undo: bool = False) -> None:
        """Have these files live, judged and loaded. `is_undo`: they were so before.

        Raises:
            ConfigTestError: The validator refused them; none of them is live.
            CommandError: The validator cannot be run, or the reload failed; they are live.
            UnavailableError: A file could not be written; some may be live.
        """
        for path in publication:
            if str(Path(path).parent) != self.tree.live_dir:
                raise InvalidInputError(f"{path} does not lie in {self.tree.live_dir}", field="files")
        if self._is_loaded is None and not is_undo:
            self._is_loaded = True
        recorder = current_recorder()
        waiting = _Waiting(
            publication=publication,
            outcome=asyncio.get_running_loop().create_future(),
            recorder=recorder,
            resource=recorder.resource if recorder is not None else "",
        )
        self._waiting.append(waiting)
        if self._worker is None:
            with not_recording():  # it works for many jobs; each is told of its own tests
                self._worker = asyncio.create_task(self._work())
        try:
            # Who stops waiting does not stop the batch: others are in it.
            await asyncio.shield(waiting.outcome)
        except asyncio.CancelledError:
            waiting.is_abandoned = True
            raise

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
        # What is live already needs no test (a repetition, the undo of what was refused), nor does it wait for others'.
        unchanged = [waiting for waiting in batch if not await asyncio.to_thread(_differs, waiting.publication)]
        changes = [waiting for waiting in batch if waiting not in unchanged]
        await self._load(unchanged, is_written=False)
        tests = _Tests(deadline=time.monotonic() + BATCH_SECONDS, limit_seconds=self._validator_seconds)
        try:
            accepted = await self._settle(tests, [], changes)
        finally:
            await in_thread(self._stage.remove)
        for waiting in batch:
            if waiting.refusal is not None:
                _fail(waiting, waiting.refusal)
        faults.at("config.before_live")
        await self._load([waiting for waiting in accepted if await self._go_live(waiting)])

    async def _load(self, live: Sequence[_Waiting], *, is_written: bool = True) -> None:
        """Have the service read what is live now, if it has not yet, and tell those who wait for it."""
        if not live:
            return
        if is_written:
            self._is_loaded = False
        if self.tree.reload_unit is not None and not self._is_loaded:
            faults.at("config.before_reload")
            await self._reload_unit(self.tree.reload_unit)
            faults.at("config.after_reload")
        self._is_loaded = True
        for waiting in live:
            if not waiting.outcome.done():
                waiting.outcome.set_result(None)

    async def _settle(self, tests: _Tests, accepted: list[_Waiting], candidates: Sequence[_Waiting]) -> list[_Waiting]:
        """Test candidates on top of what is accepted; the accepted afterwards. The refused know why."""
        if not candidates:
            return accepted
        together = [*accepted, *candidates]
        try:
            await self._test(tests, together, candidates)
        except (ConfigTestError, CommandError) as error:
            if error.code == TIMEOUT_CODE:
                tests.limit_seconds = min(tests.limit_seconds, NARROWING_TIMEOUT_SECONDS)
            if len(candidates) == 1:
                candidates[0].refusal = error
                return accepted
            middle = len(candidates) // 2
            accepted = await self._settle(tests, accepted, candidates[:middle])
            return await self._settle(tests, accepted, candidates[middle:])
        return together

    async def _test(self, tests: _Tests, together: Sequence[_Waiting], candidates: Sequence[_Waiting]) -> None:
        overlay: dict[str, bytes | None] = {}
        for waiting in together:
            for path, file in waiting.publication.items():
                overlay[Path(path).name] = None if file is None else file.content
        await in_thread(partial(self._stage.build, overlay))
        faults.at("config.after_stage")
        # A file that stands alone and passed before need not be tested again.
        new = {Path(path).name for waiting in candidates for path in waiting.publication}
        names = tuple(sorted(name for name in new if overlay[name] is not None))
        for argv in self._stage.commands(names):
            began_at = time.monotonic()
            completed = await self._judge(tests, argv)
            said = self._stage.translate(completed.stderr.strip() or completed.stdout)
            _note_test(candidates, argv, completed.exit_code, time.monotonic() - began_at, said)
            if completed.exit_code != 0:
                raise ConfigTestError(
                    said[:MAX_WORDS_CHARACTERS] or f"{argv[0]} refused it without a word",
                    context={"tree": self.tree.name, "exit_code": completed.exit_code},
                )

        faults.at("config.after_test")

    async def _judge(self, tests: _Tests, argv: tuple[str, ...]) -> Completed:
        """Run the validator.

        Raises:
            ConfigTestError: It did not end in time (`config_test_timeout`), and was ended.
            CommandError: It cannot be run.
        """
        seconds = min(tests.limit_seconds, tests.deadline - time.monotonic())
        if seconds > 0:
            try:
                return await run(argv, timeout_seconds=seconds, accepted_codes=range(256))
            except CommandError as error:
                if error.exit_code != TIMEOUT_EXIT_CODE:
                    raise
        raise ConfigTestError(
            f"{argv[0]} did not end in its time and was ended: nobody knows what it thinks of the change",
            hint="Look what it waits for: run it by hand on the node.",
            code=TIMEOUT_CODE,
            context={"tree": self.tree.name},
        )

    async def _go_live(self, waiting: _Waiting) -> bool:
        if waiting.is_abandoned:
            _fail(waiting, UnavailableError("nobody waited for it any more"))
            return False
        self._is_loaded = False
        try:
            await in_thread(partial(_write_live, waiting.publication))
        except FleetError as error:
            _fail(waiting, error)
            return False
        return True


def _note_test(
    candidates: Sequence[_Waiting], argv: tuple[str, ...], exit_code: int, seconds: float, said: str
) -> None:
    for waiting in candidates:
        if waiting.recorder is not None:
            waiting.recorder.note(
                argv,
                exit_code=exit_code,
                seconds=seconds,
                output=said,
                purpose=CommandPurpose.VALIDATOR,
                resource=waiting.resource,
            )


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
        faults.at("config.after_file")


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.outcome.done():
        waiting.outcome.set_exception(error if isinstance(error, FleetError) else UnavailableError(str(error)))
        if waiting.is_abandoned:
            waiting.outcome.exception()  # seen: asyncio need not say that nobody did
