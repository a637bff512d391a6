"""Everything that a screen may ask a large hoster's controller: each GET of the OpenAPI document with each of its filters.

A new list is asked without a word here; what is none, or cannot be asked so, is in `UNASKED` with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

PREFIX: Final = "/api/v1"
UNASKED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("download-audit-archive", "export-audit", "export-reseller-usage", "fetch-logo", "download-reseller-logo", "fetch-agent-bundle",
         "fetch-release-bundle"), "a file that is streamed, as long as it is"
    ),
    "verify-audit": "reads the whole log; it has a bar of its own",
    **dict.fromkeys(("fetch-authority", "fetch-install-script", "fetch-trust-bundle"), "for machines; asks for one row"),
    **dict.fromkeys(("show-node-module", "read-site-log"), "the node is asked"),
    **dict.fromkeys(("show-health", "show-readiness"), "no list"),
    "list-token-usage": "of one's own tokens only: a few rows",
}  # fmt: skip
NO_ROW: Final = frozenset({
    "deletion-certificate", "archive_id", "delivery_id", "domain_id", "drain", "parked_id", "role_id", "site_id", "key_id",
    "task_id", "username", "notice_id", "policy", "number", "diff", "log",
})  # fmt: skip
"""Parts of paths of one row, found by its id; what is not made for it here is not asked for."""
PAGING: Final = frozenset({"limit", "cursor"})
NO_FILTER: Final = frozenset(
    {
        "before",
        "after",
        "format",
        "first",
        "last",
        "lines",
        "follow",
        "with_dismissed",
        "begins_on",
        "ends_on",
        "begins_at",
        "ends_at",
    }
)
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "search": ("777", "zzqx"),
    "label": ("plan=p77",),
    "key": ("disk_bytes",),
    "state": ("failed",),
    "list-accounts.state": ("suspended",),
    "list-nodes.state": ("active",),
    "kind": ("usage",),
    "list-parked.kind": ("site",),
    "is_ignored": ("false",),
    "is_parked": ("true",),
    "unusual": ("true",),
    "username": ("user77", "nobody"),
    "role": ("client",),
    "by": ("route",),
    "list-audit.by": ("user/7", "user/none"),
    "days": ("7",),
    "event": ("account.update",),
    "action": ("account.update", "site.create"),
    "target": ("account/account-77",),
    "address": ("192.0.2.1", "192.0.2.9"),
    "request_id": ("r77",),
    "since": ("2026-01-03T00:00:00Z",),
    "until": ("2026-01-03T01:00:00Z",),
    "security": ("true",),
    "unread": ("true",),
    "tier": ("client",),
    "is_suspended": ("true",),
    "list-notice-mails.state": ("dead",),
}
OF_THE_LOG: Final = {"account_id": "account-77", "client_id": "client-7"}
"""What the entries of tests.bench.audit name."""


@dataclass(frozen=True)
class Question:
    """One request."""

    operation: str
    path: str
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """As a row of a table says it; values that are ids are left out."""
        asked = ", ".join(name if len(value) == 36 else f"{name}={value}" for name, value in self.query)
        return f"{self.operation} {asked}".rstrip()


def list_questions(document: Mapping[str, Any], ids: Mapping[str, str]) -> list[Question]:
    """All of them."""
    return [
        question
        for path, item in sorted(document["paths"].items())
        if (operation := item.get("get")) is not None and operation["operationId"] not in UNASKED
        for question in _of_operation(path, operation, ids)
    ]


def _of_operation(path: str, operation: Mapping[str, Any], ids: Mapping[str, str]) -> Iterator[Question]:
    name = operation["operationId"]
    parameters = operation.get("parameters", [])
    if any(part.strip("{}") in NO_ROW for part in path.split("/")):
        return
    path = path.format_map(ids)
    required = tuple(
        (one["name"], _values(name, one["name"], ids)[0])
        for one in parameters
        if one["in"] == "query" and one.get("required")
    )
    yield Question(name, path, required)
    for one in parameters:
        if one["in"] != "query" or one["name"] in PAGING | NO_FILTER or one.get("required"):
            continue
        for value in _values(name, one["name"], ids):
            yield Question(name, path, (*required, (one["name"], value)))


def _values(operation: str, name: str, ids: Mapping[str, str]) -> tuple[str, ...]:
    """What to ask this filter for.

    Raises:
        KeyError: Nobody said yet.
    """
    if operation == "list-audit" and name in OF_THE_LOG:
        return (OF_THE_LOG[name],)
    if f"{operation}.{name}" in VALUES:
        return VALUES[f"{operation}.{name}"]
    return (ids[name],) if name in ids else VALUES[name]
