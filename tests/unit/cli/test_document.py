from __future__ import annotations

from typing import Any

import pytest

from cli.document import Document, command_name, plural_of, singular_of
from tests.unit.cli.fake_api import DOCUMENT


def resolve(schema: dict[str, Any], **schemas: Any) -> dict[str, Any]:
    return Document({"paths": {}, "components": {"schemas": schemas}}).resolve(schema)


@pytest.mark.parametrize(
    ("operation_id", "group", "command"),
    [
        ("login", "auth", "login"),
        ("logout", "auth", "logout"),
        ("show-me", "auth", "show-me"),
        ("change-password", "auth", "change-password"),
        ("list-tokens", "tokens", "list"),
        ("create-token", "tokens", "create"),
        ("revoke-token", "tokens", "revoke"),
        *((f"{verb}-package", "packages", verb) for verb in ("create", "show", "update", "delete")),
        ("list-packages", "packages", "list"),
        ("list-clients", "clients", "list"),
        ("update-client", "clients", "update"),
        ("suspend-account", "accounts", "suspend"),
        ("unsuspend-account", "accounts", "unsuspend"),
        ("converge-account", "accounts", "converge"),
        ("show-account-manifest", "accounts", "show-manifest"),
        ("show-account-proofs", "accounts", "show-proofs"),
        ("check-account-drift", "accounts", "check-drift"),
        ("list-account-drift", "accounts", "list-drift"),
        ("create-domain", "domains", "create"),
        ("retry-site", "sites", "retry"),
        ("discard-site-change", "sites", "discard-change"),
        ("approve-node", "nodes", "approve"),
        ("reject-node", "nodes", "reject"),
        ("revoke-node", "nodes", "revoke"),
        ("ping-node", "nodes", "ping"),
        ("check-node-drift", "nodes", "check-drift"),
        ("list-node-modules", "nodes", "list-modules"),
        ("set-node-module", "nodes", "set-module"),
        *((f"{verb}-node-module", "nodes", f"{verb}-module") for verb in ("install", "enable", "disable", "remove")),
        ("show-node-module-status", "nodes", "show-module-status"),
        ("list-enrolment-tokens", "enrolment-tokens", "list"),
        ("create-enrolment-token", "enrolment-tokens", "create"),
        ("delete-enrolment-token", "enrolment-tokens", "delete"),
        ("enrol", "enrol", "enrol"),
        ("show-job", "jobs", "show"),
        ("cancel-job", "jobs", "cancel"),
        ("list-drift", "drift", "list"),
        ("repair-drift", "drift", "repair"),
        ("list-audit", "audit", "list"),
        ("verify-audit", "audit", "verify"),
        ("list-modules", "modules", "list"),
        ("create_policy", "policies", "create"),
    ],
)
def test_command_name_when_noun_is_in_the_id_leaves_it_out(operation_id: str, group: str, command: str) -> None:
    assert command_name(operation_id, group) == command


@pytest.mark.parametrize("noun", ["account", "policy", "package", "enrolment-token"])
def test_plural_of_when_reversed_gives_the_noun(noun: str) -> None:
    assert singular_of(plural_of(noun)) == noun


def test_resolve_when_reference_has_siblings_keeps_them() -> None:
    resolved = resolve(
        {"$ref": "#/components/schemas/Name", "description": "here"}, Name={"type": "string", "description": "there"}
    )

    assert resolved == {"type": "string", "description": "here"}


def test_resolve_when_reference_points_to_reference_follows_both() -> None:
    schemas = {"A": {"$ref": "#/components/schemas/B"}, "B": {"type": "integer"}}

    assert resolve({"$ref": "#/components/schemas/A"}, **schemas) == {"type": "integer"}


def test_resolve_when_reference_points_to_itself_ends() -> None:
    assert resolve({"$ref": "#/components/schemas/A"}, A={"$ref": "#/components/schemas/A"}) == {}


def test_resolve_when_list_contains_itself_ends() -> None:
    tree = {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}

    assert resolve({"$ref": "#/components/schemas/Tree"}, Tree=tree)["type"] == "array"


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"$ref": "#/components/schemas/Level"}, {"type": "string", "enum": ["low", "high"]}),
        (
            {"type": "array", "items": {"$ref": "#/components/schemas/Level"}},
            {"type": "array", "items": {"type": "string", "enum": ["low", "high"]}},
        ),
        ({"type": "object", "additionalProperties": True}, {"type": "object", "additionalProperties": True}),
        ({"oneOf": [{"type": "number"}, {"type": "null"}]}, {"type": "number"}),
    ],
)
def test_resolve_when_alternative_is_null_marks_the_other_as_nullable(
    keyword: str, other: dict[str, Any], expected: dict[str, Any]
) -> None:
    resolved = resolve(
        {keyword: [other, {"type": "null"}], "description": "d"}, Level={"type": "string", "enum": ["low", "high"]}
    )

    assert resolved == {**expected, "x-nullable": True, "description": "d"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"]}, {"type": "string", "x-nullable": True}),
        ({"enum": ["a", None]}, {"enum": ["a"], "x-nullable": True}),
        ({"const": "only"}, {"const": "only", "enum": ["only"]}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string", "x-mixed": True}),
        ({"anyOf": [{"type": "array"}, {"type": "string"}]}, {"type": "string", "x-mixed": True}),
        ({"type": ["string", "integer", "null"]}, {"type": "string", "x-mixed": True, "x-nullable": True}),
        ({"anyOf": [{"enum": ["a"]}, {"const": "b"}]}, {"enum": ["a", "b"]}),
        ({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}, {"type": "string"}),
    ],
)
def test_resolve_when_written_in_another_way_gives_the_one_form(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert resolve(schema) == expected


def test_resolve_when_parts_are_combined_merges_their_properties() -> None:
    resolved = resolve(
        {
            "allOf": [
                {"$ref": "#/components/schemas/Base"},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
            ]
        },
        Base={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    )

    assert (set(resolved["properties"]), resolved["required"]) == ({"a", "b"}, ["a", "b"])


def test_document_when_read_has_groups_with_sorted_commands() -> None:
    groups = Document(DOCUMENT).groups()

    assert list(groups) == ["accounts", "auth", "jobs", "packages"]
    assert [item.command for item in groups["packages"]] == ["create", "delete", "list", "show", "update"]


def test_document_when_path_is_outside_the_api_leaves_it_out() -> None:
    assert not any(item.operation_id == "show-health" for item in Document(DOCUMENT).operations)


def test_group_description_when_tag_has_lines_is_the_first() -> None:
    document = Document(DOCUMENT)

    assert document.group_description("accounts") == "One unix user."
    assert document.group_description("jobs") == "Jobs: list, show."


def test_operation_when_dry_run_is_a_parameter_is_a_switch_and_no_option() -> None:
    operation = Document(DOCUMENT).find("packages", "create")

    assert operation is not None
    assert operation.can_dry_run
    assert operation.list_parameters("query") == []


def test_parameter_when_path_and_body_share_a_name_has_two_keys() -> None:
    paths = {
        "/api/v1/nodes/{name}": {
            "parameters": [{"name": "name", "in": "path", "schema": {}}],
            "put": {
                "operationId": "set-node",
                "requestBody": {"content": {"application/json": {"schema": {"properties": {"name": {}}}}}},
            },
        }
    }

    keys = [item.key for item in Document({"paths": paths}).operations[0].parameters]

    assert keys == ["path_name", "body_name"]


@pytest.mark.parametrize("raw", [None, [], {}, {"paths": []}, "text"])
def test_document_when_it_is_none_says_so(raw: Any) -> None:
    with pytest.raises(ValueError, match="not an OpenAPI document"):
        Document(raw)
