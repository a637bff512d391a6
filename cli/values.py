"""From words of a command line to JSON values, guided by the schema. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from cli.document import Parameter
from cli.sizes import EXAMPLES, parse_size
from cli.times import EXAMPLES as MOMENTS
from cli.times import parse_moment

NULL_WORD = "none"
_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "object": "KEY=VALUE", "mixed": "JSON|TEXT"}


def kind_of(schema: dict[str, Any]) -> str:
    """boolean, integer, number, array, object, mixed or string."""
    if schema.get("x-mixed"):
        return "mixed"
    kind = str(schema.get("type", "object" if "properties" in schema else "string"))
    return kind if kind in ("boolean", "integer", "number", "array", "object") else "string"


def is_moment(schema: dict[str, Any]) -> bool:
    """Whether it is a point in time."""
    return schema.get("format") == "date-time"


def option_for(parameter: Parameter) -> click.Option:
    """The option of one query or body parameter; the server judges ranges and patterns: one set of rules."""
    schema = parameter.schema
    kind = kind_of(schema)
    names = [parameter.flag, parameter.key]
    if kind == "boolean":
        flags = f"{parameter.flag}/--no-{parameter.flag.removeprefix('--')}"
        return click.Option([flags, parameter.key], default=None, help=_help(parameter))
    if kind not in ("array", "object"):
        return click.Option(names, type=_word_type(schema), metavar=_metavar(parameter), help=_help(parameter))
    item = schema.get("items", {}) if kind == "array" else {}
    return click.Option(
        names,
        multiple=True,
        type=_word_type(item, can_be_null=bool(schema.get("x-nullable"))),
        metavar=None if "enum" in item else _METAVARS.get(kind if kind == "object" else kind_of(item), "TEXT"),
        help=f"{_help(parameter)} (repeat for more)".strip(),
    )


def to_json(parameter: Parameter, value: Any) -> Any:
    """The JSON value of what click parsed: a string, a tuple of strings or a boolean.

    Raises:
        click.BadParameter: The words do not fit the type; the message names the option.
    """
    schema = parameter.schema
    try:
        if isinstance(value, tuple):
            return _many(schema, value)
        return _one(schema, value, parameter.name) if isinstance(value, str) else value
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"'{parameter.flag}'") from error


def is_given(value: Any) -> bool:
    """Whether the user said anything about it."""
    return value is not None and value != ()


def _word_type(schema: dict[str, Any], *, can_be_null: bool = False) -> click.ParamType[Any]:
    if "enum" not in schema:
        return click.STRING
    words = [_word(item) for item in schema["enum"]]
    if (can_be_null or schema.get("x-nullable")) and NULL_WORD not in words:
        words.append(NULL_WORD)
    return click.Choice(words)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _one(schema: dict[str, Any], word: str, name: str = "") -> Any:
    if "enum" in schema:
        by_word = {_word(item): item for item in schema["enum"]}
        if word in by_word:
            return by_word[word]
    if schema.get("x-nullable") and word == NULL_WORD:
        return None
    kind = kind_of(schema)
    if kind == "integer" and name.endswith("_bytes"):
        return parse_size(word)
    if kind in ("integer", "number"):
        return _number(word, kind, is_nullable=bool(schema.get("x-nullable")))
    if kind in ("object", "array"):
        return _json(word)
    return _text(schema, kind, word)


def _text(schema: dict[str, Any], kind: str, word: str) -> Any:
    if kind == "mixed":
        return _json_or_text(word)
    return parse_moment(word, datetime.now(UTC)) if is_moment(schema) else word


def _number(word: str, kind: str, *, is_nullable: bool) -> int | float:
    try:
        return int(word) if kind == "integer" else float(word)
    except ValueError:
        wanted = "a whole number" if kind == "integer" else "a number"
        raise ValueError(f"{word!r} is not {wanted}" + (f" (or `{NULL_WORD}`)" if is_nullable else "")) from None


def _many(schema: dict[str, Any], words: tuple[str, ...]) -> Any:
    is_object = kind_of(schema) == "object"
    item = schema.get("items", {})
    if words == (NULL_WORD,) and NULL_WORD not in item.get("enum", ()):
        empty: Any = {} if is_object else []
        return None if schema.get("x-nullable") else empty
    if not is_object:
        return [_one(item, word) for word in words]
    merged: dict[str, Any] = {}
    for word in words:
        merged.update(_pairs(schema, word))
    return merged


def _pairs(schema: dict[str, Any], word: str) -> dict[str, Any]:
    if word.lstrip().startswith("{"):
        value = _json(word)
        if isinstance(value, dict):
            return value
    key, equals, text = word.partition("=")
    if not key or not equals:
        raise ValueError(f"{word!r} is neither KEY=VALUE nor a JSON object")
    others = schema.get("additionalProperties")
    is_text = isinstance(others, dict) and others.get("type") == "string"
    if is_text:
        return {key: text}
    value = _json_or_text(text)
    is_size = isinstance(value, str) and key.endswith("_bytes") and isinstance(others, dict)
    return {key: parse_size(value) if is_size else value}


def _json(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        raise ValueError(f"{word!r} is not JSON") from None


def _json_or_text(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _metavar(parameter: Parameter) -> str | None:
    if "enum" in parameter.schema:
        return None
    if is_moment(parameter.schema):
        return "TIME"
    kind = kind_of(parameter.schema)
    return "SIZE" if kind == "integer" and parameter.name.endswith("_bytes") else _METAVARS.get(kind, "TEXT")


def _help(parameter: Parameter) -> str:
    text = parameter.description.strip().split("\n\n", maxsplit=1)[0].replace("\n", " ")
    if keys := parameter.schema.get("properties"):
        text = f"{text} Keys: {', '.join(keys)}.".strip()
    if _metavar(parameter) == "SIZE":
        text = f"{text} For example {EXAMPLES}.".strip()
    if is_moment(parameter.schema):
        text = f"{text} {MOMENTS}.".strip()
    if parameter.is_required:
        text = f"{text} [required]".strip()
    if parameter.schema.get("x-nullable"):
        text = f"{text} (`{NULL_WORD}` clears it)".strip()
    return text
