from __future__ import annotations

from typing import Any

import pytest

from cli.document import Document, Operation, Parameter
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.names import Labels, group_of, list_items, resolve_id
from tests.unit.cli.fake_api import DOCUMENT

ALICE, BOB = "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d", "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9e"
DOC = Document(DOCUMENT)


class FakeClient:
    """Answers every list with the same pages, or refuses."""

    def __init__(self, *pages: list[dict[str, Any]], refusal: ExitCode | None = None) -> None:
        self._pages = pages
        self._refusal = refusal
        self.queries: list[dict[str, Any]] = []

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        assert (method, body) == ("GET", None)
        if self._refusal is not None:
            raise CommandFailedError("no", exit_code=self._refusal)
        self.queries.append(query or {})
        index = int((query or {}).get("cursor", 0))
        following = str(index + 1) if index + 1 < len(self._pages) else None
        return {"items": self._pages[index], "next_cursor": following}


def operation(path: str, group: str) -> Operation:
    return Operation("x", group, "x", "GET", path, "", "", ())


@pytest.mark.parametrize(
    ("name", "path", "group", "expected"),
    [
        ("id", "/api/v1/accounts/{id}/suspend", "accounts", "accounts"),
        ("account_id", "/api/v1/accounts/{account_id}", "accounts", "accounts"),
        ("token_id", "/api/v1/enrolment-tokens/{token_id}", "enrolment-tokens", "enrolment-tokens"),
        ("name", "/api/v1/nodes/{id}/modules/{name}", "nodes", None),
        ("site_id", "/api/v1/accounts/{id}/sites/{site_id}", "accounts", "sites"),
        ("name", "/api/v1/modules/{name}", "modules", None),
    ],
)
def test_group_of_when_in_the_path_is_the_noun_before_it(
    name: str, path: str, group: str, expected: str | None
) -> None:
    assert group_of(Parameter(name, "path", {}), operation(path, group)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("package_id", "packages"), ("enrolment_token_id", "enrolment-tokens"), ("name", None), ("id", None)],
)
def test_group_of_when_in_the_body_follows_the_field_name(name: str, expected: str | None) -> None:
    assert group_of(Parameter(name, "body", {})) == expected


def test_resolve_id_when_it_is_an_id_asks_nobody() -> None:
    client = FakeClient()

    assert resolve_id(client, DOC, "accounts", ALICE) == ALICE
    assert client.queries == []


def test_resolve_id_when_name_is_on_a_later_page_finds_it() -> None:
    client = FakeClient([{"id": BOB, "name": "bob"}], [{"id": ALICE, "name": "alice"}])

    assert resolve_id(client, DOC, "accounts", "alice") == ALICE
    assert client.queries == [{"limit": 200}, {"limit": 200, "cursor": "1"}]


def test_resolve_id_when_nothing_has_the_name_is_not_found() -> None:
    with pytest.raises(CommandFailedError, match="none of the accounts is called 'carol'") as raised:
        resolve_id(FakeClient([{"id": BOB, "name": "bob"}]), DOC, "accounts", "carol")

    assert raised.value.exit_code is ExitCode.NOT_FOUND
    assert raised.value.hint == "`wcp360 accounts list` shows what there is."


def test_resolve_id_when_two_have_the_name_asks_for_the_id() -> None:
    client = FakeClient([{"id": BOB, "name": "x"}, {"id": ALICE, "name": "x"}])

    with pytest.raises(CommandFailedError, match="2 accounts are called 'x'"):
        resolve_id(client, DOC, "accounts", "x")


def test_resolve_id_when_noun_has_no_list_passes_the_value() -> None:
    assert resolve_id(FakeClient(), DOC, "users", "ann") == "ann"
    assert resolve_id(FakeClient(), DOC, None, "ann") == "ann"


def test_list_items_when_list_can_search_searches() -> None:
    parameters = [{"name": "search", "in": "query", "schema": {"type": "string"}}]
    document = Document({"paths": {"/api/v1/nodes": {"get": {"operationId": "list-nodes", "parameters": parameters}}}})
    client = FakeClient([{"id": BOB, "name": "n1"}])

    found = list_items(client, document, "nodes", search="n1")

    assert [item["name"] for item in found or ()] == ["n1"]
    assert client.queries == [{"search": "n1"}]


def test_list_items_when_list_needs_input_is_none() -> None:
    parameters = [{"name": "account_id", "in": "query", "required": True, "schema": {"type": "string"}}]
    document = Document({"paths": {"/api/v1/sites": {"get": {"operationId": "list-sites", "parameters": parameters}}}})

    assert list_items(FakeClient(), document, "sites") is None


def test_labels_when_asked_twice_read_the_list_once() -> None:
    client = FakeClient([{"id": ALICE, "name": "alice"}])
    labels = Labels(client, DOC)

    assert [labels.label("account_id", item) for item in (ALICE, BOB, None, "plain")] == ["alice", BOB, None, "plain"]
    assert labels.label("name", ALICE) == ALICE
    assert len(client.queries) == 1


def test_labels_when_list_is_refused_leave_the_id() -> None:
    assert Labels(FakeClient(refusal=ExitCode.NOT_ALLOWED), DOC).label("account_id", ALICE) == ALICE


def test_resolve_id_when_there_are_many_names_finds_each() -> None:
    client = FakeClient([{"id": BOB, "name": "bob"}, {"id": ALICE, "name": "alice"}])

    assert resolve_id(client, DOC, "accounts", ["alice", BOB]) == [ALICE, BOB]


def test_group_of_when_a_body_has_many_ids_is_what_they_are_ids_of() -> None:
    assert group_of(Parameter("account_ids", "body", {})) == "accounts"
    assert group_of(Parameter("ids", "body", {}), operation("/api/v1/accounts/bulk", "accounts")) == "accounts"
    assert group_of(Parameter("ids", "query", {}), operation("/api/v1/accounts", "accounts")) is None


USERS = Document(
    {
        "paths": {
            "/api/v1/users": {"get": {"operationId": "list-users", "parameters": []}},
            "/api/v1/auth/me": {"get": {"operationId": "show-me", "parameters": []}},
        }
    }
)


class Person(FakeClient):
    """Somebody with these permissions."""

    def __init__(self, *permissions: str) -> None:
        super().__init__([{"id": ALICE, "username": "alice"}])
        self._permissions = list(permissions)
        self.paths: list[str] = []

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        self.paths.append(path)
        if path.endswith("/auth/me"):
            return {"permissions": self._permissions}
        return super().request(method, path, query=query, body=body)


def test_labels_when_somebody_did_it_is_their_name() -> None:
    labels = Labels(Person("users:read"), USERS)

    assert labels.label("suspended_by", f"user/{ALICE}") == "alice"
    assert labels.label("target", f"user/{ALICE}") == f"user/{ALICE}"
    assert labels.label("suspended_by", "system/controller") == "system/controller"


def test_labels_of_what_one_may_not_read_are_not_asked_for() -> None:
    person = Person("accounts:read")

    assert Labels(person, USERS).label("user_id", ALICE) == ALICE
    assert person.paths == ["/api/v1/auth/me"]
