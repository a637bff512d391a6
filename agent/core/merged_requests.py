"""Looking around on request: one look at a time, and all that is asked for meanwhile becomes the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

MAX_SUBJECTS: Final = 1000
"""More at once are the same as all."""


class MergedRequests:
    """Whoever floods us with requests gets two looks at a time, not a million.

    Args:
        look: Looks at these subjects (none: all), repairs if it may, and reports.
        spawn: Begins the work beside everything else.
    """

    def __init__(
        self, look: Callable[[tuple[str, ...], bool], Awaitable[None]], spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self._look = look
        self._spawn = spawn
        self._next: set[str] | None = None
        """None: nobody asks; empty: for all."""
        self._may_repair = True
        self._is_running = False

    def add(self, subjects: Iterable[str] = (), *, may_repair: bool = True) -> None:
        """Have these subjects looked at; none named: all. Repairs only if everybody who asked lets it."""
        wanted = set(subjects)
        if self._next is not None:
            wanted = wanted | self._next if wanted and self._next else set()
        self._next = wanted if len(wanted) <= MAX_SUBJECTS else set()
        self._may_repair = self._may_repair and may_repair
        if not self._is_running:
            self._is_running = True
            self._spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._next is not None:
                subjects, may_repair = tuple(sorted(self._next)), self._may_repair
                self._next, self._may_repair = None, True
                await self._look(subjects, may_repair)
        finally:
            self._is_running = False
