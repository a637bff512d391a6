"""How the quickstart talks: one line a step, with its time; one sentence when it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class QuickstartError(Exception):
    """Why the quickstart cannot go on, and what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def say(line: str) -> None:
    """One line, seen at once also through a pipe."""
    print(line, flush=True)


def failed(error: QuickstartError) -> None:
    """The last words."""
    print(f"\nIt did not work: {error.message}", file=sys.stderr, flush=True)
    if error.hint:
        print(error.hint, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    say(f"• {what} ...")
    began = time.monotonic()
    yield
    say(f"  done in {time.monotonic() - began:.1f} s")
