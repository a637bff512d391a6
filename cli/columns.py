"""Which columns a table shows. Pure.

A hint only: a noun that is not named here, or whose fields change, still gets a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.names import name_of

MAX_COLUMNS = 8
# What an operator looks for first: by the noun for its list, by noun and verb where another command answers rows.
WANTED: Mapping[str, tuple[str, ...]] = {
    "accounts": (
        "name", "state", "client_id", "package_id", "node_id", "observed_status", "is_converged", "observed_message",
    ),
    "accounts bulk-change": ("account_id", "is_done", "error_code", "error_message", "job_ids"),
    "accounts bulk-change-package": ("account_id", "is_done", "error_code", "error_message", "job_ids"),
    "attention": ("id", "severity", "title", "node_name", "since", "is_muted", "dismissed_by"),
    "audit": ("at", "actor_name", "action", "target_name", "target"),
    "billing export-usage": (
        "account_name", "client_name", "package_id", "state", "created_at", "suspended_at", "deleted_at",
    ),
    "clients": ("name", "email", "accounts", "created_at"),
    "domains": ("name", "account_id", "is_automatic", "created_at"),
    "drift": ("id", "node_id", "subject", "key", "summary", "is_repaired", "ignored_until", "found_at"),
    "enrolment-tokens": ("id", "name", "state", "approval", "roles", "allowed_networks", "failures", "expires_at"),
    "jobs": ("id", "state", "label", "node_id", "attempts", "error", "created_at"),
    "nodes": ("name", "state", "is_connected", "roles", "is_cordoned", "observed_status", "last_seen_at"),
    "parked": ("id", "key", "node_id", "account_id", "code", "message", "since", "is_retrying"),
    "package-rollouts": ("id", "package_name", "version", "state", "wave", "blocked_by", "created_at", "finished_at"),
    "package-rollouts list-accounts": ("account_name", "wave", "state", "error_code", "note", "job_id", "sent_at"),
    "packages": ("name", "cpu_percent", "memory_bytes", "processes_max", "disk_bytes", "version", "accounts"),
    "packages diff-versions": ("field", "before", "after"),
    "packages judge-update": ("name", "node_id", "package_id", "over"),
    "packages list-fields": ("field", "value", "source", "package_name"),
    "packages list-versions": ("number", "created_at", "actor_name", "name", "note", "accounts"),
    "resellers": ("name", "email", "clients", "accounts", "packages", "over", "suspended_at"),
    "resellers rank": ("name", "fullest", "filled", "clients", "accounts", "packages", "over", "suspended_at"),
    "sites": ("domain", "account_id", "state", "php_version", "aliases", "document_root", "parked_message"),
    "ssh-keys": ("name", "state", "account_id", "fingerprint", "comment", "allowed_networks", "expires_at"),
    "tokens": ("name", "scopes", "created_at", "expires_at", "last_used_at", "parent_name"),
}  # fmt: skip
# Without a hint: what tells things apart comes first; technical fields are for --json and `show`.
PREFERRED = ("name", "domain", "username", "label", "state", "status", "role", "message")
HIDDEN = ("id", "created_at", "updated_at", "deleted_at", "request_id", "next_cursor")


def choose_columns(items: Sequence[Mapping[str, Any]], command: str = "") -> list[str]:
    """Fields that hold something in some row; without a hint the id too, where a row has no name in its place.

    Args:
        items: The rows.
        command: Noun and verb that they answer; a noun alone is its list.
    """
    filled = [name for name in _field_names(items) if any(not _is_empty(item.get(name)) for item in items)]
    columns = [name for name in WANTED.get(command.removesuffix(" list"), ()) if name in filled]
    if len(columns) < 2:
        plain = [name for name in filled if name not in HIDDEN and _is_plain(items, name)]
        columns = [name for name in PREFERRED if name in plain] + [name for name in plain if name not in PREFERRED]
        if "id" in filled and not all(name_of(item) for item in items):
            columns.insert(0, "id")
    return columns[:MAX_COLUMNS] or filled[:MAX_COLUMNS]


def _field_names(items: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for item in items:
        names.update(dict.fromkeys(item))
    return list(names)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _is_plain(items: Sequence[Mapping[str, Any]], name: str) -> bool:
    return not any(isinstance(item.get(name), dict) for item in items)
