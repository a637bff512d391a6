"""People say `alice`, the API wants an id: look the name up in the list of that noun, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cli.document import API_PREFIX, Document, Operation, Parameter, plural_of
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
ME = f"{API_PREFIX}auth/me"
NAME_FIELDS = ("name", "domain", "username", "email")
ID_SUFFIX = "_id"
REFERRED = ("user", "token")
"""Who may have done something, in a value such as `user/ID`."""
PAGE_LIMIT = 200
MAX_PAGES = 50
"""Ten thousand things; whoever has more says ids, or the list can search."""


class Requester(Protocol):
    """What is needed of the API client."""

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any: ...


def name_of(item: Mapping[str, Any]) -> str:
    """What people may call the thing in place of its id; empty when it has no name."""
    return next((str(item[name]) for name in NAME_FIELDS if item.get(name)), "")


def group_of(parameter: Parameter, operation: Operation | None = None) -> str | None:
    """The noun whose names the parameter takes; None when it is no reference."""
    if operation is not None and parameter.place == "path":
        after_noun = operation.path.removeprefix(f"{API_PREFIX}{operation.group}/").split("/")[0]
        if after_noun == "{" + parameter.name + "}":
            return operation.group if parameter.name == "id" or parameter.name.endswith(ID_SUFFIX) else None
    if parameter.name == "ids" and operation is not None and parameter.place == "body":
        return operation.group
    if parameter.name.endswith("_ids"):
        return plural_of(parameter.name.removesuffix("_ids").replace("_", "-"))
    if not parameter.name.endswith(ID_SUFFIX):
        return None
    return plural_of(parameter.name.removesuffix(ID_SUFFIX).replace("_", "-"))


def list_items(
    client: Requester, document: Document, group: str, *, search: str = "", max_pages: int = MAX_PAGES
) -> Iterator[dict[str, Any]] | None:
    """Everything in the list of a noun, page by page; None when there is no list that needs no more input."""
    listing = document.find(group, "list")
    if listing is None or "{" in listing.path or any(item.is_required for item in listing.parameters):
        return None
    query: dict[str, Any] = {}
    if listing.find_parameter("limit"):
        query["limit"] = PAGE_LIMIT
    if search and listing.find_parameter("search"):
        query["search"] = search
    return _pages(client, listing.path, query, max_pages)


def _pages(client: Requester, path: str, query: dict[str, Any], max_pages: int) -> Iterator[dict[str, Any]]:
    for _ in range(max_pages):
        page = client.request("GET", path, query=query)
        yield from page["items"]
        if not page.get("next_cursor"):
            return
        query = {**query, "cursor": page["next_cursor"]}


def resolve_id(client: Requester, document: Document, group: str | None, value: Any) -> Any:
    """The id of the thing that has this name in that noun's list; an id, and what is in no list, passes as it is.

    Raises:
        CommandFailedError: Nothing, or more than one thing, has that name.
    """
    if group is not None and isinstance(value, list):
        return [resolve_id(client, document, group, item) for item in value]
    if group is None or not isinstance(value, str) or _UUID.fullmatch(value):
        return value
    items = list_items(client, document, group, search=value)
    if items is None:
        return value
    matches = [item["id"] for item in items if value in {item.get(name) for name in NAME_FIELDS} and "id" in item]
    if len(matches) == 1:
        return matches[0]
    noun = group.replace("-", " ")
    raise CommandFailedError(
        f"{len(matches)} {noun} are called {value!r}" if matches else f"none of the {noun} is called {value!r}",
        exit_code=ExitCode.NOT_FOUND,
        hint=f"Use the id: `wcp360 {group} list --json`." if matches else f"`wcp360 {group} list` shows what there is.",
    )


@dataclass(slots=True)
class Labels:
    """Id to name, for tables that people read: each noun is asked for once, a refusal leaves the id in place."""

    client: Requester
    document: Document
    _known: dict[str, dict[str, str]] = field(default_factory=dict)
    _held: frozenset[str] | None = None
    """What one may do; None: not asked yet."""

    def label(self, column: str, value: Any) -> Any:
        """The name of what a column such as `node_id` (or a plan's `node`) refers to, else the value itself."""
        if not isinstance(value, str):
            return value
        kind, slash, named = value.rpartition("/")
        if slash and column.endswith("_by") and kind in REFERRED and _UUID.fullmatch(named):
            return self._name(plural_of(kind), named, value)
        if not _UUID.fullmatch(value) or not (column.endswith(ID_SUFFIX) or column == "node"):
            return value
        return self._name(plural_of(column.removesuffix(ID_SUFFIX).replace("_", "-")), value, value)

    def _name(self, group: str, thing: str, unknown: str) -> str:
        if group not in self._known:
            self._known[group] = self._read(group)
        return self._known[group].get(thing, unknown)

    def _may_read(self, group: str) -> bool:
        """Whether it is worth asking: a refusal is a line of the audit log, and nobody asked for it."""
        if self._held is None:
            is_told = any(item.path == ME for item in self.document.operations)
            answer = self.client.request("GET", ME) if is_told else {}
            self._held = frozenset(answer.get("permissions") or ())
        return not self._held or f"{group}:read" in self._held

    def _read(self, group: str) -> dict[str, str]:
        try:
            if not self._may_read(group):
                return {}
            items = list_items(self.client, self.document, group, max_pages=5)
            return {item["id"]: name_of(item) for item in items or () if item.get("id") and name_of(item)}
        except CommandFailedError:
            return {}
