"""An account's life in periods of one package and one state, out of its entries in the audit log; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

ACTIONS: Final = (
    "account.create",
    "account.clone",
    "account.update",
    "account.transfer",
    "account.suspend",
    "account.unsuspend",
    "account.trash",
    "account.restore",
    "account.delete",
)
"""Entries that begin a period."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One entry of the audit log about the account."""

    at: datetime
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which nothing changed that a bill would show."""

    begins_at: datetime
    ends_at: datetime
    package_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Life:
    """What the account's row says: it is right about the present, whatever is left of the log."""

    created_at: datetime
    ended_at: datetime | None
    package_id: str
    state: str


def list_periods(life: Life, turns: Sequence[Turn], *, begins_at: datetime, ends_at: datetime) -> list[Period]:
    """The periods between the two times, in order, without gaps; none outside of the account's life.

    Args:
        life: The account now.
        turns: Its entries, oldest first. What was before the oldest is taken from what that one says was before it.
        begins_at: Of the export.
        ends_at: Of the export; not part of it.
    """
    first, last = max(begins_at, life.created_at), min(ends_at, life.ended_at or ends_at)
    found: list[Period] = []
    at, (package_id, state) = life.created_at, _before(life, turns)
    for turn in turns:
        _append(found, Period(max(at, first), min(turn.at, last), package_id, state))
        at, (package_id, state) = turn.at, _known(turn.after, (package_id, state))
    _append(found, Period(max(at, first), last, package_id, state))
    return found


def _before(life: Life, turns: Sequence[Turn]) -> tuple[str, str]:
    if not turns:
        return life.package_id, life.state
    return _known(turns[0].before or turns[0].after, (life.package_id, life.state))


def _known(row: dict[str, Any] | None, otherwise: tuple[str, str]) -> tuple[str, str]:
    if row is None:
        return otherwise
    return str(row.get("package_id", otherwise[0])), str(row.get("state", otherwise[1]))


def _append(found: list[Period], period: Period) -> None:
    if period.begins_at >= period.ends_at:
        return
    last = found[-1] if found else None
    if last is not None and (last.package_id, last.state) == (period.package_id, period.state):
        found[-1] = Period(last.begins_at, period.ends_at, period.package_id, period.state)
    else:
        found.append(period)
