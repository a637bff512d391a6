"""The language of conditions: a field of the event, an operator, a value. Pure; no patterns, no code, bounded work.

Fields are judged by the schema that the event publishes, so a condition that could never be asked is refused when the
rule is written, and not found out when it is too late.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from controller.core.events.catalogue import EventType
from shared.errors import InvalidInputError

CONDITIONS_MAX: Final = 20
_DEPTH_MAX: Final = 8
_ANYTHING: Final = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
_NUMBERS: Final = frozenset({"integer", "number"})

Scalar = bool | int | float | Annotated[str, Meta(max_length=500)] | None


class Operator(enum.Enum):
    """How field and value are compared."""

    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    CONTAINS = "contains"
    """A text holds a text; upper and lower case differ."""
    STARTS_WITH = "starts_with"
    GREATER = "greater"
    LESS = "less"
    EXISTS = "exists"
    """true: the field is there and not null."""
    CHANGED = "changed"
    """true: the field of `after` is not what it was in `before`."""


_LISTS: Final = frozenset({Operator.IN, Operator.NOT_IN})
_TEXTS: Final = frozenset({Operator.CONTAINS, Operator.STARTS_WITH})
_ORDERS: Final = frozenset({Operator.GREATER, Operator.LESS})
_SWITCHES: Final = frozenset({Operator.EXISTS, Operator.CHANGED})


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One condition."""

    field: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            pattern=r"^[A-Za-z0-9_./-]+$",
            description="Of the event's data, with dots: wcp360 event-types list shows each schema.",
            examples=["after.package_id"],
        ),
    ]
    operator: Operator
    value: Annotated[
        Scalar | Annotated[tuple[Scalar, ...], Meta(max_length=100)],
        Meta(description="A list for in and not_in, true or false for exists and changed, else one value."),
    ]


class ConditionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A condition, asked about one event."""

    field: str
    operator: Operator
    value: Any
    found: Annotated[Any, Meta(description="What the event has there; null: nothing.")]
    holds: bool


def require_conditions(conditions: Iterable[Condition], events: Iterable[EventType]) -> list[dict[str, Any]]:
    """The conditions as plain values, when each could be asked about each of these events.

    Raises:
        InvalidInputError: A field is in no schema, or operator and value do not fit it.
    """
    wanted = list(conditions)
    schemas = [(event.name, _schema_of(event)) for event in events]
    if len(wanted) > CONDITIONS_MAX:
        raise InvalidInputError(f"a rule has at most {CONDITIONS_MAX} conditions", field="conditions")
    for position, condition in enumerate(wanted):
        where = f"conditions.{position}"
        _require_shape(condition, where)
        for name, schema in schemas:
            kinds = _kinds_at(schema, condition.field)
            if not kinds:
                raise InvalidInputError(
                    f"the event {name} has no field {condition.field!r}",
                    field=f"{where}.field",
                    hint="A field must be in every event that the rule follows: wcp360 event-types list",
                )
            _require_fit(condition, kinds, where)
    return [msgspec.to_builtins(condition) for condition in wanted]


def judge(conditions: Iterable[Mapping[str, Any]], data: Mapping[str, Any]) -> list[ConditionResult]:
    """Each condition with what was found. None ever raises: what cannot be compared does not hold."""
    return [_judge_one(msgspec.convert(one, Condition), data) for one in conditions]


def all_hold(results: Iterable[ConditionResult]) -> bool:
    """Whether the rule applies."""
    return all(result.holds for result in results)


def _judge_one(condition: Condition, data: Mapping[str, Any]) -> ConditionResult:
    found = _read(data, condition.field)
    if condition.operator is Operator.CHANGED:
        before = _read(data, "before." + condition.field.partition(".")[2])
        holds = (not _same(found, before)) is condition.value
    else:
        holds = _holds(condition.operator, found, condition.value)
    shown = found if not isinstance(found, (dict, list)) else msgspec.json.encode(found).decode()[:200]
    return ConditionResult(
        field=condition.field, operator=condition.operator, value=condition.value, found=shown, holds=holds
    )


def _holds(operator: Operator, found: Any, value: Any) -> bool:
    if operator in _TEXTS:
        return isinstance(found, str) and (value in found if operator is Operator.CONTAINS else found.startswith(value))
    if operator in _ORDERS:
        return _is_number(found) and (found > value if operator is Operator.GREATER else found < value)
    if operator is Operator.EXISTS:
        return (found is not None) is value
    values = value if operator in _LISTS else (value,)
    is_there = any(_same(found, one) for one in values)
    return is_there is (operator in (Operator.EQUALS, Operator.IN))


def _same(found: Any, value: Any) -> bool:
    """True is not 1."""
    return isinstance(found, bool) is isinstance(value, bool) and bool(found == value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read(data: Any, path: str) -> Any:
    """What is there; None: nothing. A key of labels may hold dots itself."""
    if not path:
        return data
    if not isinstance(data, Mapping):
        return None
    if path in data:
        return data[path]
    head, dot, rest = path.partition(".")
    return _read(data.get(head), rest) if dot else None


def _require_shape(condition: Condition, where: str) -> None:
    operator, value = condition.operator, condition.value
    if operator in _LISTS:
        fits = isinstance(value, (tuple, list)) and len(value) > 0
    elif operator in _SWITCHES:
        fits = isinstance(value, bool)
    elif operator in _TEXTS:
        fits = isinstance(value, str) and value != ""
    elif operator in _ORDERS:
        fits = _is_number(value)
    else:
        fits = not isinstance(value, (tuple, list))
    if not fits:
        needs = {**dict.fromkeys(_LISTS, "a list"), **dict.fromkeys(_SWITCHES, "true or false")}
        needs |= {**dict.fromkeys(_TEXTS, "a text"), **dict.fromkeys(_ORDERS, "a number")}
        raise InvalidInputError(f"{operator.value} needs {needs.get(operator, 'one value')}", field=f"{where}.value")
    if operator is Operator.CHANGED and not condition.field.startswith("after."):
        raise InvalidInputError("changed is asked of a field of after, for example after.package_id", field=where)


def _require_fit(condition: Condition, kinds: frozenset[str], where: str) -> None:
    operator = condition.operator
    if operator in _SWITCHES:
        return
    if operator in _TEXTS | _ORDERS and not kinds & (_NUMBERS if operator in _ORDERS else {"string"}):
        words = "a number" if operator in _ORDERS else "a text"
        raise InvalidInputError(f"{condition.field} is not {words}", field=f"{where}.operator")
    values = condition.value if isinstance(condition.value, (tuple, list)) else (condition.value,)
    for value in values:
        if not _kinds_of(value) & kinds:
            raise InvalidInputError(
                f"{condition.field} is never {value!r:.80}: it is {' or '.join(sorted(kinds))}", field=f"{where}.value"
            )


def _kinds_of(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    return frozenset({"string"}) if isinstance(value, str) else _NUMBERS


def _schema_of(event: EventType) -> dict[str, Any]:
    return msgspec.json.schema(event.data)


def _kinds_at(schema: dict[str, Any], path: str) -> frozenset[str]:
    """JSON types that the field can have by the published schema; none: there is no such field."""
    parts = path.split(".")
    if len(parts) > _DEPTH_MAX or "" in parts:
        return frozenset()
    return _walk(schema, schema.get("$defs", {}), parts)


def _walk(node: Any, definitions: Mapping[str, Any], parts: list[str]) -> frozenset[str]:
    if node is True or node == {}:
        return _ANYTHING
    if "$ref" in node:
        return _walk(definitions.get(node["$ref"].rpartition("/")[2], {}), definitions, parts)
    if "anyOf" in node:
        return frozenset().union(*(_walk(one, definitions, parts) for one in node["anyOf"]))
    if not parts:
        return _types_of(node)
    return _walk_into(node, definitions, parts)


def _walk_into(node: Mapping[str, Any], definitions: Mapping[str, Any], parts: list[str]) -> frozenset[str]:
    properties = node.get("properties", {})
    if parts[0] in properties:
        return _walk(properties[parts[0]], definitions, parts[1:])
    if node.get("additionalProperties", False) is not False:
        return _walk(node["additionalProperties"], definitions, [])  # its keys are free, and may hold dots
    return _ANYTHING if node.get("type") == "object" and not properties else frozenset()


def _types_of(node: Mapping[str, Any]) -> frozenset[str]:
    if "enum" in node:
        return frozenset().union(*(_kinds_of(value) for value in node["enum"]))
    kind = node.get("type")
    if kind is None:
        return _ANYTHING
    return frozenset([kind] if isinstance(kind, str) else kind)
