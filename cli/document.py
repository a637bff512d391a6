"""The OpenAPI document as the command line needs it: groups of operations with their parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

API_PREFIX = "/api/v1/"
METHODS = ("get", "post", "put", "patch", "delete")
DRY_RUN = "dry_run"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input of an operation."""

    name: str
    place: str
    """path, query or body."""
    schema: dict[str, Any]
    description: str
    is_required: bool


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

    @property
    def can_dry_run(self) -> bool:
        """Whether the server can answer with a plan instead."""
        return any(parameter.name == DRY_RUN for parameter in self.parameters)

    def list_parameters(self, place: str) -> list[Parameter]:
        """Parameters of one place, in the document's order, without dry_run (it is a switch of every command)."""
        return [item for item in self.parameters if item.place == place and item.name != DRY_RUN]


class Document:
    """An OpenAPI 3.1 document."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
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
        """What the document's tag of that name says."""
        tags = {tag["name"]: tag.get("description", "") for tag in self._raw.get("tags", [])}
        text: str = tags.get(group, "")
        return text.strip().split("\n", maxsplit=1)[0] or f"Commands about {group.replace('-', ' ')}."

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Follow $ref, and reduce `oneOf`/`anyOf` with null to the other one marked `x-nullable`."""
        while "$ref" in schema:
            node: Any = self._raw
            for part in schema["$ref"].removeprefix("#/").split("/"):
                node = node[part]
            schema = node
        for keyword in ("oneOf", "anyOf"):
            options = schema.get(keyword)
            if options:
                others = [self.resolve(option) for option in options if option.get("type") != "null"]
                is_nullable = len(others) < len(options)
                first = others[0] if len(others) == 1 else {"type": others[0].get("type", "string"), "x-mixed": True}
                rest = {key: value for key, value in schema.items() if key != keyword}
                schema = {**first, **rest, **({"x-nullable": True} if is_nullable else {})}
        return schema

    def _read_operations(self) -> Iterator[Operation]:
        for path, item in self._raw.get("paths", {}).items():
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
        )

    def _read_parameter(self, raw: dict[str, Any]) -> Parameter:
        return Parameter(
            name=raw["name"],
            place=raw["in"],
            schema=self.resolve(raw.get("schema", {})),
            description=raw.get("description", "") or raw.get("schema", {}).get("description", ""),
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
                description=property_schema.get("description", resolved.get("description", "")),
                is_required=name in required,
            )


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
