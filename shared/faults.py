"""Places where a process may be made to die, so that tests can sweep every crash. Without the variable: nothing.

`WCP360_FAULT=step.after_apply:3` ends the process without any clean-up when that place is reached for the third time;
with `:3:stop` it stops there (SIGSTOP) until somebody lets it go on, or cuts the power, or fills the disk meanwhile.
(The idea is the failpoint of databases; docs/faults.md.)
"""

from __future__ import annotations

import os
import signal
from typing import Final

from shared.errors import BugError

VARIABLE: Final = "WCP360_FAULT"
STOP: Final = "stop"
EXIT_STATUS: Final = 137
"""What a shell reports for a process that was killed with SIGKILL."""

_hits: dict[str, int] = {}


class FaultPoints:
    """The places of one part of the program; each part lists its own, so that a sweep can reach every one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._known = frozenset(names)

    def at(self, name: str) -> None:
        """Die here if the environment says so.

        Raises:
            BugError: The place is not listed.
        """
        if name not in self._known:
            raise BugError(f"fault point {name!r} is not listed")
        wanted = os.environ.get(VARIABLE)
        if not wanted:
            return
        wanted_name, _, rest = wanted.partition(":")
        if wanted_name != name:
            return
        count, _, manner = rest.partition(":")
        _hits[name] = _hits.get(name, 0) + 1
        if manner == STOP and _hits[name] == int(count):
            os.kill(os.getpid(), signal.SIGSTOP)
        elif manner != STOP and _hits[name] >= int(count or "1"):
            os._exit(EXIT_STATUS)


def forget_hits() -> None:
    """Count from the beginning again: a forked test must not inherit its parent's count."""
    _hits.clear()
