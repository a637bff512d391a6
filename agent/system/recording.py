"""Which programs were run for a job, for its explanation: what, how long, how it ended, what it said last.

Invariant: bounded, whatever runs; argument lists hold no secrets by rule (agent.system.runner), and output is cut.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Final

from shared.protocol.job import CommandPurpose, CommandRun

RUNS_MAX: Final = 200
OUTPUT_MAX_CHARACTERS: Final = 2000
OUTPUTS_MAX_CHARACTERS: Final = 64 * 1024
"""Of one job together."""
ARGUMENT_MAX_CHARACTERS: Final = 500
ARGUMENTS_MAX: Final = 100


class Recorder:
    """Of one job."""

    def __init__(self) -> None:
        self.runs: list[CommandRun] = []
        self.dropped_count = 0
        self.resource = ""
        """Key of the resource that is worked on now."""
        self._output_characters = 0

    def note(
        self,
        argv: Sequence[str],
        *,
        exit_code: int,
        seconds: float,
        output: str,
        purpose: CommandPurpose = CommandPurpose.COMMAND,
        resource: str | None = None,
    ) -> None:
        """Keep one run, or only count it when there are too many."""
        if len(self.runs) >= RUNS_MAX:
            self.dropped_count += 1
            return
        room = max(0, min(OUTPUT_MAX_CHARACTERS, OUTPUTS_MAX_CHARACTERS - self._output_characters))
        said = output.strip()[-room:] if room else ""
        self._output_characters += len(said)
        run = CommandRun(
            resource=self.resource if resource is None else resource,
            purpose=purpose,
            argv=tuple(word[:ARGUMENT_MAX_CHARACTERS] for word in argv[:ARGUMENTS_MAX]),
            exit_code=exit_code,
            seconds=round(seconds, 3),
            output=said,
        )
        self.runs.append(run)


_CURRENT: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("recorder", default=None)


def current_recorder() -> Recorder | None:
    """The recorder of the job that this task works for; None outside of one."""
    return _CURRENT.get()


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Record what runs inside the block, tasks that it starts included."""
    recorder = Recorder()
    token = _CURRENT.set(recorder)
    try:
        yield recorder
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def not_recording() -> Iterator[None]:
    """Inside the block nothing is recorded: for tasks that work for many jobs at once."""
    token = _CURRENT.set(None)
    try:
        yield
    finally:
        _CURRENT.reset(token)
