"""From words of a command line to JSON values, guided by the schema. Pure."""

from __future__ import annotations

import json
from typing import Any

import click

from cli.document import Parameter

NULL_WORD = "none"


class JsonType(click.ParamType[Any]):
    """Anything JSON; for the rare field that is an object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            self.fail(f"{value!r} is not JSON", param, ctx)


def click_type(schema: dict[str, Any]) -> click.ParamType[Any]:
    """The click type of one schema; the server judges ranges and patterns, so that there is one set of rules."""
    if "enum" in schema:
        return click.Choice([str(item) for item in schema["enum"] if item is not None])
    kind = _type_name(schema)
    if schema.get("x-nullable") and kind in ("integer", "number"):
        return click.STRING  # the word none must pass; `to_json` converts the rest
    if kind == "integer":
        return click.INT
    if kind == "number":
        return click.FLOAT
    if kind == "object":
        return JsonType()
    return click.STRING


def option_for(parameter: Parameter) -> click.Option:
    """The option of one query or body parameter."""
    flag = "--" + parameter.name.replace("_", "-")
    schema = parameter.schema
    help_text = _help(parameter)
    if _type_name(schema) == "boolean":
        return click.Option([f"{flag}/--no-{flag.removeprefix('--')}", parameter.name], default=None, help=help_text)
    if _type_name(schema) == "array":
        items = schema.get("items", {})
        return click.Option(
            [flag, parameter.name],
            multiple=True,
            type=click_type(items if "$ref" not in items else {}),
            required=parameter.is_required,
            help=f"{help_text} (repeat for more)".strip(),
        )
    return click.Option([flag, parameter.name], type=click_type(schema), required=False, help=help_text)


def to_json(parameter: Parameter, value: Any) -> Any:
    """The JSON value of what click parsed.

    Raises:
        click.BadParameter: A number was needed.
    """
    schema = parameter.schema
    if isinstance(value, tuple):
        return [] if value == (NULL_WORD,) else list(value)
    if schema.get("x-nullable") and value == NULL_WORD:
        return None
    kind = _type_name(schema)
    if isinstance(value, str) and kind in ("integer", "number"):
        try:
            return int(value) if kind == "integer" else float(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is neither a number nor `{NULL_WORD}`") from error
    return value


def is_given(value: Any) -> bool:
    """Whether the user said anything about it."""
    return value is not None and value != ()


def _type_name(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        return next((item for item in kind if item != "null"), "string")
    return str(kind)


def _help(parameter: Parameter) -> str:
    text = parameter.description.strip().split("\n\n", maxsplit=1)[0].replace("\n", " ")
    if parameter.is_required:
        text = f"{text} [required]".strip()
    if parameter.schema.get("x-nullable"):
        text = f"{text} (`{NULL_WORD}` clears it)".strip()
    return text
