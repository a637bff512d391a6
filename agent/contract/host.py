"""A host as core sees it: a probe that also applies and undoes actions.

Real in agent.system, in memory in agent.simulator.
"""

from __future__ import annotations

from typing import Protocol

from agent.contract.actions import AnyAction, PublishConfig
from agent.contract.facts import Probe

UndoRecord = bytes
"""What was there before, in the host's own encoding (msgpack); kept in the journal."""


class Host(Probe, Protocol):
    """Applies actions one at a time; core decides which, in which order, and when to undo."""

    async def capture(self, action: AnyAction) -> UndoRecord:
        """Read what undo will need, before anything is touched. Changes nothing but its own checkpoint folder."""
        ...

    async def apply(self, action: AnyAction) -> None:
        """Make it true. Idempotent.

        Raises:
            CommandError: A system tool failed.
            ConfigTestError: A validator refused the staged files; nothing went live.
            FactError, UnavailableError: The host did not answer.
        """
        ...

    async def undo(self, action: AnyAction, record: UndoRecord) -> None:
        """Bring back what `capture` saw. Idempotent, also when `apply` never ran or ran half.

        Raises:
            CommandError, ConfigTestError, FactError: It could not be brought back; the host needs an operator.
        """
        ...

    async def find_refusal(self, action: PublishConfig) -> str | None:
        """What the service's validator would say against a publication now; None: nothing. Changes nothing live."""
        ...

    async def diff(self, action: AnyAction, *, is_whole: bool = False) -> str:
        """Unified diff of what the action would change in text files; empty for the rest. Changes nothing.

        Args:
            action: What would be done.
            is_whole: Show the whole files around the changes instead of a few lines.
        """
        ...
