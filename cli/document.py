"""The OpenAPI document as the command line needs it: groups of operations with their parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

API_PREFIX = "/api/v1/"
METHODS = ("get", "post", "put", "patch", "delete")
DRY_RUN = "dry_run"
JSON_TYPE = "application/json"
MAX_DEPTH = 16
"""Schemas nest less than this; a schema that contains itself ends here instead of never."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input of an operation."""

    name: str
    place: str
    """path, query or body."""
    schema: dict[str, Any]
    description: str = ""
    is_required: bool = False

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """Where click keeps its value; the place is part of it, because a path and a body may both have a `name`."""
        return f"{self.place}_{self.name}".replace("-", "_")


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint, as one command."""

    operation_id: str
    group: str
    command: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    body_is_required: bool = False
    has_body: bool = False
    media_type: str = JSON_TYPE
    """Of the answer when all is well; anything but JSON is a file."""

    @property
    def can_dry_run(self) -> bool:
        """Whether the server can answer with a plan instead."""
        return any(parameter.name == DRY_RUN for parameter in self.parameters)

    @property
    def is_download(self) -> bool:
        """Whether the answer is a file, for a file."""
        return self.method == "GET" and self.media_type != JSON_TYPE

    @property
    def is_text(self) -> bool:
        """Whether the answer may be shown on a terminal."""
        return self.media_type in (JSON_TYPE, "application/x-ndjson") or self.media_type.startswith("text/")

    @property
    def is_paged(self) -> bool:
        """Whether it is a list that comes in pages."""
        return self.method == "GET" and any(item.name == "cursor" for item in self.list_parameters("query"))

    def list_parameters(self, place: str) -> list[Parameter]:
        """Parameters of one place, in the document's order, without dry_run (it is a switch of every command)."""
        return [item for item in self.parameters if item.place == place and item.name != DRY_RUN]

    def find_parameter(self, name: str) -> Parameter | None:
        """The parameter of that name in any place."""
        return next((item for item in self.parameters if item.name == name), None)


class Document:
    """An OpenAPI 3.1 document.

    Raises:
        ValueError: It is no such document.
    """

    def __init__(self, raw: Any) -> None:
        if not isinstance(raw, dict) or not isinstance(raw.get("paths"), dict):
            raise ValueError("not an OpenAPI document")  # noqa: TRY004 - the same to a caller as text that is no JSON
        self._raw: dict[str, Any] = raw
        self.operations = tuple(self._read_operations())

    def find(self, group: str, command: str) -> Operation | None:
        """The operation behind `wcp360 GROUP COMMAND`."""
        return next((item for item in self.operations if (item.group, item.command) == (group, command)), None)

    def groups(self) -> dict[str, list[Operation]]:
        """Group name to its operations, both sorted."""
        result: dict[str, list[Operation]] = {}
        for operation in sorted(self.operations, key=lambda item: (item.group, item.command)):
            result.setdefault(operation.group, []).append(operation)
        return result

    def group_description(self, group: str) -> str:
        """What the document's tag of that name says, else what its commands do."""
        tags = {tag["name"]: tag.get("description", "") for tag in self._raw.get("tags", [])}
        text: str = tags.get(group, "")
        if text.strip():
            return text.strip().split("\n", maxsplit=1)[0]
        own = self.groups().get(group, [])
        if len(own) == 1:
            return f"{own[0].summary.rstrip('.')}."
        return f"{group.replace('-', ' ').capitalize()}: {', '.join(item.command for item in own)}."

    def resolve(self, schema: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """The schema without $ref, allOf, anyOf and oneOf on its own level and that of its items.

        An alternative to null is marked `x-nullable`; alternatives of different types become `x-mixed`.
        """
        if depth > MAX_DEPTH:
            return {}
        schema = self._merge_all(self._follow(schema), depth)
        for keyword in ("oneOf", "anyOf"):
            if schema.get(keyword):
                rest = {key: value for key, value in schema.items() if key != keyword}
                schema = {**_unite([self.resolve(item, depth + 1) for item in schema[keyword]]), **rest}
        schema = _plain_null(schema)
        if isinstance(schema.get("items"), dict):
            schema = {**schema, "items": self.resolve(schema["items"], depth + 1)}
        return schema

    def _follow(self, schema: dict[str, Any]) -> dict[str, Any]:
        for _ in range(MAX_DEPTH):
            if "$ref" not in schema:
                return schema
            node: Any = self._raw
            for part in schema["$ref"].removeprefix("#/").split("/"):
                node = node[part.replace("~1", "/").replace("~0", "~")]
            schema = {**node, **{key: value for key, value in schema.items() if key != "$ref"}}
        return {}

    def _merge_all(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        if "allOf" not in schema:
            return schema
        merged: dict[str, Any] = {}
        for part in [*schema["allOf"], {key: value for key, value in schema.items() if key != "allOf"}]:
            resolved = self.resolve(part, depth + 1)
            properties = {**merged.get("properties", {}), **resolved.get("properties", {})}
            required = [*merged.get("required", []), *resolved.get("required", [])]
            merged = {**merged, **resolved, "properties": properties, "required": required}
        return {key: value for key, value in merged.items() if value not in ({}, [])}

    def _read_operations(self) -> Iterator[Operation]:
        for path, item in self._raw["paths"].items():
            for method in METHODS:
                if method in item and path.startswith(API_PREFIX):
                    yield self._read_operation(path, method, item[method], item.get("parameters", []))

    def _read_operation(
        self, path: str, method: str, raw: dict[str, Any], shared_parameters: list[dict[str, Any]]
    ) -> Operation:
        group = path.removeprefix(API_PREFIX).split("/")[0]
        body = raw.get("requestBody", {})
        return Operation(
            operation_id=raw["operationId"],
            group=group,
            command=command_name(raw["operationId"], group),
            method=method.upper(),
            path=path,
            summary=raw.get("summary", ""),
            description=raw.get("description", "") or raw.get("summary", ""),
            parameters=(
                *(self._read_parameter(item) for item in [*shared_parameters, *raw.get("parameters", [])]),
                *self._read_body(body),
            ),
            body_is_required=bool(body.get("required")),
            has_body=bool(body),
            media_type=_media_type_of(raw.get("responses", {})),
        )

    def _read_parameter(self, raw: dict[str, Any]) -> Parameter:
        schema = self.resolve(raw.get("schema", {}))
        return Parameter(
            name=raw["name"],
            place=raw["in"],
            schema=schema,
            description=raw.get("description") or schema.get("description", ""),
            is_required=bool(raw.get("required")),
        )

    def _read_body(self, raw: dict[str, Any]) -> Iterator[Parameter]:
        schema = self.resolve(raw.get("content", {}).get("application/json", {}).get("schema", {}))
        required = set(schema.get("required", []))
        for name, property_schema in schema.get("properties", {}).items():
            resolved = self.resolve(property_schema)
            yield Parameter(
                name=name,
                place="body",
                schema=resolved,
                description=property_schema.get("description") or resolved.get("description", ""),
                is_required=name in required,
            )


def _media_type_of(responses: dict[str, Any]) -> str:
    """Of the first answer that is a success and has a body; JSON where nothing else is said."""
    kinds = [
        kind for status in sorted(responses) if status.startswith("2") for kind in responses[status].get("content", {})
    ]
    return next(iter(kinds), JSON_TYPE).partition(";")[0].strip() or JSON_TYPE


def _unite(options: list[dict[str, Any]]) -> dict[str, Any]:
    """One schema that stands for all alternatives, as far as a command line can say them."""
    others = [item for item in options if item.get("type") != "null"]
    is_nullable = len(others) < len(options) or any(item.get("x-nullable") for item in others)
    if not others:
        united: dict[str, Any] = {"type": "null"}
    elif len(others) == 1:
        united = others[0]
    elif all("enum" in item for item in others):
        united = {**others[0], "enum": [value for item in others for value in item["enum"]]}
    elif len({str(item.get("type")) for item in others}) == 1 and others[0].get("type") not in ("object", "array"):
        united = {"type": others[0].get("type", "string")}
    else:
        united = {"type": "string", "x-mixed": True}
    return {**united, "x-nullable": True} if is_nullable else united


def _plain_null(schema: dict[str, Any]) -> dict[str, Any]:
    """`type: [X, null]`, null in an enum, and const, all in the one form that the rest knows."""
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    kind = schema.get("type")
    is_nullable = bool(schema.get("x-nullable"))
    if isinstance(kind, list):
        others = [item for item in kind if item != "null"]
        is_nullable = is_nullable or len(others) < len(kind)
        mixed = {"type": "string", "x-mixed": True}
        schema = {**schema, **({"type": others[0]} if len(others) == 1 else mixed)}
    if None in schema.get("enum", []):
        schema = {**schema, "enum": [item for item in schema["enum"] if item is not None]}
        is_nullable = True
    return {**schema, "x-nullable": True} if is_nullable else schema


def command_name(operation_id: str, group: str) -> str:
    """`list-node-modules` in the group nodes is `list-modules`; `suspend-account` in accounts is `suspend`."""
    plural = group.split("-")
    singular = [*plural[:-1], singular_of(plural[-1])]
    words = operation_id.replace("_", "-").split("-")
    for noun in (plural, singular):
        for start in range(len(words) - len(noun) + 1):
            if words[start : start + len(noun)] == noun:
                rest = words[:start] + words[start + len(noun) :]
                return "-".join(rest) or operation_id
    return operation_id


def singular_of(noun: str) -> str:
    """The singular of a noun of the API: accounts gives account, policies gives policy."""
    if noun.endswith("ies"):
        return noun.removesuffix("ies") + "y"
    return noun.removesuffix("s")


def plural_of(noun: str) -> str:
    """The plural of a noun of the API: account gives accounts, policy gives policies."""
    return noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
