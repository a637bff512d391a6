from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from cli.document import Parameter
from cli.sizes import parse_size
from cli.times import parse_moment
from cli.values import kind_of, option_for, to_json

INTEGER, NULLABLE_INTEGER = {"type": "integer"}, {"type": "integer", "x-nullable": True}
STRINGS = {"type": "array", "items": {"type": "string"}}
LEVEL = {"type": "string", "enum": ["low", "high"]}


def parameter(schema: dict[str, Any], name: str = "field") -> Parameter:
    return Parameter(name, "body", schema)


def parse(schema: dict[str, Any], *words: str, name: str = "field") -> Any:
    """What click and we make of the words of one option, or `unsaid`."""
    item = parameter(schema, name)
    command = click.Command("x", params=[option_for(item)], callback=lambda **values: values[item.key])
    value = command.main([part for word in words for part in (item.flag, word)], standalone_mode=False)
    return to_json(item, value) if value not in (None, ()) else "unsaid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1048576", 1048576),
        ("0", 0),
        ("-5", -5),
        ("512MiB", 512 * 1024**2),
        ("512 MiB", 512 * 1024**2),
        ("512M", 512 * 1024**2),
        ("1g", 1024**3),
        ("1.5GiB", 1536 * 1024**2),
        ("1GB", 10**9),
        ("2TiB", 2 * 1024**4),
        ("0.1KiB", 102),
        ("7B", 7),
    ],
)
def test_parse_size_when_it_has_a_unit_gives_bytes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "12 apples", "1..5G", "1GiBB", "1e9", "five", "1,5G", "9" * 30 + "G"])
def test_parse_size_when_it_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write for example 512MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("schema", "words", "expected"),
    [
        ({"type": "string"}, ("none",), "none"),
        ({"type": "string", "x-nullable": True}, ("none",), None),
        (INTEGER, ("12",), 12),
        (NULLABLE_INTEGER, ("12",), 12),
        (NULLABLE_INTEGER, ("none",), None),
        ({"type": "number"}, ("1.5",), 1.5),
        (LEVEL, ("low",), "low"),
        ({**LEVEL, "x-nullable": True}, ("none",), None),
        ({"enum": [1, 2]}, ("2",), 2),
        ({"enum": ["none", "all"], "x-nullable": True}, ("none",), "none"),
        (STRINGS, ("a", "b,c"), ["a", "b,c"]),
        (STRINGS, ("none",), []),
        ({**STRINGS, "x-nullable": True}, ("none",), None),
        ({"type": "array", "items": INTEGER, "x-nullable": True}, ("none",), None),
        ({"type": "array", "items": INTEGER}, ("1", "2"), [1, 2]),
        ({"type": "array", "items": LEVEL}, ("low", "high"), ["low", "high"]),
        ({"type": "array", "items": {"type": "object"}}, ('{"a": 1}',), [{"a": 1}]),
        ({"type": "object"}, ("a=1", "b=x=y"), {"a": 1, "b": "x=y"}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, ("a=1",), {"a": "1"}),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            ("disk_bytes=2G", "sites=3", "inodes=null"),
            {"disk_bytes": 2 * 1024**3, "sites": 3, "inodes": None},
        ),
        ({"type": "object"}, ('{"a": {"b": 2}}',), {"a": {"b": 2}}),
        ({"type": "object"}, ("none",), {}),
        ({"type": "object", "x-nullable": True}, ("none",), None),
        ({"type": "string", "x-mixed": True}, ("8",), 8),
        ({"type": "string", "x-mixed": True}, ("8.2.1",), "8.2.1"),
        (STRINGS, (), "unsaid"),
        (INTEGER, (), "unsaid"),
    ],
)
def test_to_json_when_words_fit_gives_the_value_of_the_schema(
    schema: dict[str, Any], words: tuple[str, ...], expected: Any
) -> None:
    assert parse(schema, *words) == expected


@pytest.mark.parametrize(
    ("schema", "word", "message"),
    [
        (INTEGER, "many", "'many' is not a whole number"),
        (INTEGER, "1.5", "'1.5' is not a whole number"),
        (NULLABLE_INTEGER, "many", r"is not a whole number \(or `none`\)"),
        ({"type": "number"}, "many", "is not a number"),
        ({"type": "array", "items": INTEGER}, "x", "'x' is not a whole number"),
        ({"type": "object"}, "x", "neither KEY=VALUE nor a JSON object"),
        ({"type": "object"}, "{x", "is not JSON"),
        ({"type": "array", "items": {"type": "object"}}, "{x", "is not JSON"),
    ],
)
def test_to_json_when_words_do_not_fit_names_the_option(schema: dict[str, Any], word: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message) as raised:
        parse(schema, word)

    assert "'--field'" in raised.value.format_message()


def test_to_json_when_field_ends_in_bytes_takes_sizes() -> None:
    assert parse(NULLABLE_INTEGER, "512MiB", name="memory_bytes") == 512 * 1024**2
    assert parse(NULLABLE_INTEGER, "none", name="memory_bytes") is None


def test_to_json_when_size_is_wrong_shows_examples() -> None:
    with pytest.raises(click.BadParameter, match=r"512MiB, 1\.5GiB or 1048576"):
        parse(INTEGER, "lots", name="memory_bytes")


def test_option_when_enum_is_unknown_lists_the_words() -> None:
    with pytest.raises(click.BadParameter, match="'low', 'high', 'none'"):
        parse({**LEVEL, "x-nullable": True}, "medium")


@pytest.mark.parametrize(("flag", "expected"), [("--is-default", True), ("--no-is-default", False)])
def test_option_when_boolean_has_both_flags(flag: str, expected: bool) -> None:
    item = parameter({"type": "boolean"}, "is_default")
    command = click.Command("x", params=[option_for(item)], callback=lambda **values: values[item.key])

    assert command.main([flag], standalone_mode=False) is expected


def test_option_when_shown_tells_size_null_and_need() -> None:
    item = Parameter("memory_bytes", "body", NULLABLE_INTEGER, "Memory.", is_required=True)

    text = option_for(item).get_help_record(click.Context(click.Command("x")))

    assert text == (
        "--memory-bytes SIZE",
        "Memory. For example 512MiB, 1.5GiB or 1048576. [required] (`none` clears it)",
    )


@pytest.mark.parametrize(
    ("schema", "kind"), [({}, "string"), ({"properties": {}}, "object"), ({"type": "null"}, "string")]
)
def test_kind_of_when_type_is_missing_is_the_likely_one(schema: dict[str, Any], kind: str) -> None:
    assert kind_of(schema) == kind


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+2h", "2026-11-23T14:00:00Z"),
        ("-7d", "2026-11-16T12:00:00Z"),
        ("+90s", "2026-11-23T12:01:30Z"),
        ("+1w", "2026-11-30T12:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T12:00:00+02:00"),
        ("2h", "2h"),
        ("tomorrow", "tomorrow"),
    ],
)
def test_moment_when_relative_or_a_date_is_a_timestamp_and_else_left_to_the_server(text: str, expected: str) -> None:
    assert parse_moment(text, NOW) == expected


def test_moment_when_farther_than_there_are_years_is_refused() -> None:
    with pytest.raises(ValueError, match="too far away"):
        parse_moment("+999999w", NOW)


def test_option_for_a_moment_takes_one_that_is_before_now() -> None:
    schema = {"type": "string", "format": "date-time", "x-nullable": True}
    value = parse(schema, "-2h")

    assert timedelta(hours=1) < datetime.now(UTC) - datetime.fromisoformat(value) < timedelta(hours=3)
    assert parse(schema, "none") is None
    assert option_for(parameter(schema)).metavar == "TIME"
