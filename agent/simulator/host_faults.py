"""Faults that a simulated host can be told to have."""

from __future__ import annotations

import msgspec

from agent.contract.actions import Action, AnyAction


class SimulatedCrash(BaseException):
    """The executor dies here. Not an Exception: nothing that handles errors may go on after it."""


Where = type[Action] | int
"""A kind of action, or the number of the action (0 is the first that is applied or undone)."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    where: Where
    error: BaseException
    is_after: bool


class Faults:
    """Planned faults of one direction (apply or undo); each strikes once."""

    def __init__(self) -> None:
        self._planned: list[_Fault] = []
        self._count = 0

    def plan(self, where: Where, error: BaseException, *, is_after: bool) -> None:
        self._planned.append(_Fault(where=where, error=error, is_after=is_after))

    def next(self, action: AnyAction) -> tuple[BaseException | None, BaseException | None]:
        """What strikes before and what strikes after this action's effect."""
        number, self._count = self._count, self._count + 1
        found: list[BaseException | None] = [None, None]
        for fault in list(self._planned):
            is_meant = fault.where == number if isinstance(fault.where, int) else isinstance(action, fault.where)
            if is_meant and found[fault.is_after] is None:
                found[fault.is_after] = fault.error
                self._planned.remove(fault)
        return found[0], found[1]
