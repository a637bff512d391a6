"""The language of conditions: what may be asked, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.events.catalogue import CORE_EVENTS
from controller.core.rules.conditions import CONDITIONS_MAX, Condition, Operator, all_hold, judge, require_conditions
from shared.errors import InvalidInputError

EVENTS = {event.name: event for event in CORE_EVENTS}
DATA = {
    "id": "1",
    "before": {"package_id": "p1", "labels": {"plan": "gold"}, "uid": 5},
    "after": {"package_id": "p2", "labels": {"plan": "gold", "a.b/c": "x"}, "uid": 5},
    "is_shortened": False,
}


def ask(field: str, operator: str, value: Any, event: str = "account.update") -> list[dict[str, Any]]:
    condition = Condition(field=field, operator=Operator(operator), value=value)
    return require_conditions([condition], [EVENTS[event]])


@pytest.mark.parametrize(
    ("field", "operator", "value", "holds"),
    [
        ("after.package_id", "equals", "p2", True),
        ("after.package_id", "not_equals", "p2", False),
        ("after.package_id", "in", ("p1", "p2"), True),
        ("after.package_id", "not_in", ("p1", "p2"), False),
        ("after.package_id", "changed", True, True),
        ("after.labels.plan", "changed", True, False),
        ("after.labels.plan", "changed", False, True),
        ("after.labels.plan", "contains", "ol", True),
        ("after.labels.a.b/c", "starts_with", "x", True),
        ("after.labels.none", "exists", False, True),
        ("after.labels.none", "equals", "x", False),
        ("after.uid", "greater", 4, True),
        ("after.uid", "less", 4.5, False),
        ("is_shortened", "equals", False, True),
    ],
)
def test_judge_when_asked_says_whether_it_holds(field: str, operator: str, value: Any, holds: bool) -> None:
    assert all_hold(judge(ask(field, operator, value), DATA)) is holds


def test_judge_when_the_event_has_nothing_of_the_kind_does_not_raise() -> None:
    conditions = [*ask("after.uid", "greater", 4), *ask("after.labels.plan", "contains", "x")]

    for data in ({}, {"after": None}, {"after": {"uid": "text", "labels": 5}}, {"after": {"uid": True, "labels": []}}):
        assert [result.holds for result in judge(conditions, data)] == [False, False]


def test_judge_when_a_flag_is_compared_with_a_number_takes_them_for_different() -> None:
    (condition,) = ask("is_shortened", "equals", False)
    assert not all_hold(judge([{**condition, "value": 0}], DATA))


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("after.no_such_field", "equals", "x"),
        ("after.package_id.deeper", "equals", "x"),
        ("after..package_id", "equals", "x"),
        ("after" + ".a" * 20, "equals", "x"),
        ("after.package_id", "equals", 5),
        ("after.package_id", "greater", 5),
        ("after.uid", "contains", "5"),
        ("after.uid", "equals", "5"),
        ("after.package_id", "in", ()),
        ("after.package_id", "in", "p1"),
        ("after.package_id", "equals", ("p1",)),
        ("after.package_id", "exists", "yes"),
        ("before.package_id", "changed", True),
        ("after.package_id", "contains", ""),
    ],
)
def test_require_conditions_when_it_could_never_be_asked_refuses(field: str, operator: str, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        ask(field, operator, value)


def test_require_conditions_when_one_of_the_events_has_not_the_field_refuses() -> None:
    condition = Condition(field="after.package_id", operator=Operator.EXISTS, value=True)
    with pytest.raises(InvalidInputError, match=r"client\.update has no field"):
        require_conditions([condition], [EVENTS["account.update"], EVENTS["client.update"]])


def test_require_conditions_when_there_are_very_many_refuses() -> None:
    condition = Condition(field="id", operator=Operator.EQUALS, value="1")
    with pytest.raises(InvalidInputError, match="at most"):
        require_conditions([condition] * (CONDITIONS_MAX + 1), [EVENTS["account.update"]])
