"""People say `alice`, the API wants an id: look the name up in the list of that noun."""

from __future__ import annotations

import re
from typing import Any, Protocol

from cli.document import Document, Parameter, plural_of
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
NAME_FIELDS = ("name", "domain", "username", "email")
ID_SUFFIX = "_id"


class Requester(Protocol):
    """What is needed of the API client."""

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any: ...


def resolve_id(client: Requester, document: Document, parameter: Parameter, value: Any) -> Any:
    """The id for a parameter named `NOUN_id`, if the value is a name in that noun's list; else the value itself.

    Raises:
        CommandFailedError: Nothing, or more than one thing, has that name.
    """
    if not isinstance(value, str) or not parameter.name.endswith(ID_SUFFIX) or _UUID.fullmatch(value):
        return value
    group = plural_of(parameter.name.removesuffix(ID_SUFFIX).replace("_", "-"))
    listing = document.find(group, "list")
    if listing is None:
        return value
    query = {"search": value} if any(item.name == "search" for item in listing.parameters) else {}
    items = client.request("GET", listing.path, query={**query, "limit": 200})["items"]
    matches = [item["id"] for item in items if value in {item.get(name) for name in NAME_FIELDS}]
    if len(matches) != 1:
        noun = parameter.name.removesuffix(ID_SUFFIX).replace("_", " ")
        raise CommandFailedError(
            f"{len(matches) or 'no'} {noun}{'s are' if len(matches) > 1 else ' is'} called {value!r}",
            exit_code=ExitCode.NOT_FOUND,
            hint=f"`wcp360 {group} list` shows what there is.",
        )
    return matches[0]
