"""Periods of an account's life, as a bill needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core.billing.periods import Life, Period, Turn, list_periods

START = datetime(2026, 11, 1, tzinfo=UTC)
ACTIVE, SUSPENDED = "active", "suspended"


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def row(package: str, state: str = ACTIVE) -> dict[str, Any]:
    return {"package_id": package, "state": state}


def turn(at: float, before: dict[str, Any] | None, after: dict[str, Any]) -> Turn:
    return Turn(day(at), before, after)


def periods(life: Life, *turns: Turn, begin: float = 0, end: float = 30) -> list[Period]:
    return list_periods(life, turns, begins_at=day(begin), ends_at=day(end))


def test_list_periods_when_nothing_changed_is_the_whole_time() -> None:
    life = Life(day(-10), None, "small", ACTIVE)

    assert periods(life, turn(-10, None, row("small"))) == [Period(day(0), day(30), "small", ACTIVE)]


def test_list_periods_when_born_changed_and_deleted_inside_has_no_gaps() -> None:
    life = Life(day(2), day(20), "large", "deleted")
    found = periods(
        life,
        turn(2, None, row("small")),
        turn(5, row("small"), row("large")),
        turn(10, row("large"), row("large", SUSPENDED)),
        turn(15, row("large", SUSPENDED), row("large")),
        turn(19, row("large"), row("large", "deleting")),
    )

    assert found == [
        Period(day(2), day(5), "small", ACTIVE),
        Period(day(5), day(10), "large", ACTIVE),
        Period(day(10), day(15), "large", SUSPENDED),
        Period(day(15), day(19), "large", ACTIVE),
        Period(day(19), day(20), "large", "deleting"),
    ]


def test_list_periods_when_asked_for_the_past_does_not_know_the_present() -> None:
    life = Life(day(-10), None, "large", SUSPENDED)

    found = periods(
        life, turn(-10, None, row("small")), turn(40, row("small"), row("large")), turn(41, row("large"), row("large", SUSPENDED))
    )  # fmt: skip

    assert found == [Period(day(0), day(30), "small", ACTIVE)]


def test_list_periods_when_the_log_begins_later_takes_what_was_before_its_first_entry() -> None:
    life = Life(day(-300), None, "large", ACTIVE)

    found = periods(life, turn(10, row("small"), row("large")))

    assert found == [Period(day(0), day(10), "small", ACTIVE), Period(day(10), day(30), "large", ACTIVE)]


def test_list_periods_when_the_log_is_gone_is_what_the_row_says() -> None:
    assert periods(Life(day(-300), None, "large", ACTIVE)) == [Period(day(0), day(30), "large", ACTIVE)]


def test_list_periods_when_a_change_alters_neither_package_nor_state_is_one_period() -> None:
    life = Life(day(-10), None, "small", ACTIVE)

    assert len(periods(life, turn(-10, None, row("small")), turn(3, row("small"), row("small")))) == 1


def test_list_periods_when_the_account_was_not_there_is_empty() -> None:
    assert periods(Life(day(40), None, "small", ACTIVE), turn(40, None, row("small"))) == []
