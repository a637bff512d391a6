"""Answers for people: tables, one thing in detail, plans with their diffs. `--json` passes all this by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.errors import CommandFailedError

MAX_COLUMNS = 8
# Columns that tell things apart come first; long ids and technical columns are for --json.
PREFERRED = ("name", "domain", "username", "label", "state", "status", "role", "client_name", "node_name", "message")
HIDDEN = ("id", "created_at", "updated_at", "request_id")
BYTE_STEP = 1024
KIND_STYLES = {"create": "green", "update": "yellow", "delete": "red", "run": "cyan"}


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_answer(console: Console, value: Any) -> None:
    """Show any answer of the API in the shape that suits it."""
    if value is None:
        console.print("Done.")
    elif isinstance(value, dict) and "items" in value:
        print_list(console, value)
    elif isinstance(value, dict) and "resource" in value and "jobs" in value:
        print_detail(console, value["resource"])
        for job in value["jobs"]:
            console.print(f"[dim]job[/dim] {job['id']} [dim]{escape(str(job.get('state', '')))}[/dim]")
    elif isinstance(value, dict) and "nodes" in value and "changes" in value:
        print_plan(console, value)
    elif isinstance(value, dict):
        print_detail(console, value)
    else:
        console.print(escape(str(value)))


def print_list(console: Console, page: Mapping[str, Any]) -> None:
    """A table of one page; the last line says how to see more."""
    items = page["items"]
    if not items:
        console.print("Nothing here yet.")
        return
    columns = choose_columns(items)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for item in items:
        table.add_row(*(Text(format_value(column, item.get(column))) for column in columns))
    console.print(table)
    if page.get("next_cursor"):
        console.print(f"[dim]More: --cursor {page['next_cursor']}[/dim]")


def choose_columns(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """At most MAX_COLUMNS columns that hold plain values in at least one row; the preferred ones first."""
    names: dict[str, None] = {}
    for item in items:
        for name, value in item.items():
            if name not in HIDDEN and value not in (None, "", [], {}) and not isinstance(value, dict):
                names.setdefault(name)
    plain = [name for name in names if not name.endswith("_id")]
    ordered = [name for name in PREFERRED if name in plain] + [name for name in plain if name not in PREFERRED]
    return ordered[:MAX_COLUMNS] or ["id"]


def print_detail(console: Console, item: Mapping[str, Any]) -> None:
    """Field and value, one a line; nested things as indented JSON."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in item.items():
        table.add_row(name.replace("_", " "), Text(format_value(name, value)))
    console.print(table)


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """What would happen: rows, then node by node each action with its reason and diff, reloads and risks."""
    console.print("[bold]Plan[/bold] (nothing was changed)")
    for change in plan["changes"]:
        console.print(f"  {escape(change['action'])} [dim]{escape(str(change.get('target_name', '')))}[/dim]")
    for node in plan["nodes"]:
        console.print(f"\n[bold]{escape(str(node.get('node_name') or node.get('node')))}[/bold]")
        for action in node.get("changes", []):
            _print_action(console, action)
        if not node.get("changes"):
            console.print("  nothing to do")
        _print_words(console, "reloads", node.get("reloads"))
        _print_words(console, "risks", node.get("risks"))
        if node.get("error"):
            console.print(f"  [red]{escape(node['error']['message'])}[/red]")


def _print_action(console: Console, action: Mapping[str, Any]) -> None:
    style = KIND_STYLES.get(action["kind"], "default")
    mark = " [red](cannot be undone)[/red]" if action.get("is_irreversible") else ""
    head = f"{escape(action['action'])} {escape(action['target'])}"
    console.print(f"  [{style}]{action['kind']:<6}[/{style}] {head}{mark}  [dim]{escape(action['reason'])}[/dim]")
    for line in action.get("diff", "").splitlines():
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        console.print(f"         [{color}]{escape(line)}[/{color}]")


def _print_words(console: Console, title: str, words: Sequence[str] | None) -> None:
    if words:
        console.print(f"  [bold]{title}[/bold] {escape(', '.join(words))}")


def format_value(name: str, value: Any) -> str:
    """A value as people read it: sizes with their unit, times to the second, lists with commas."""
    if isinstance(value, (dict, list)):
        is_plain = isinstance(value, list) and all(not isinstance(item, (dict, list)) for item in value)
        return ", ".join(map(str, value)) or "-" if is_plain else json.dumps(value, indent=2, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, str) and name.endswith("_at"):
        return value[:19].replace("T", " ")
    return "-" if value is None else str(value)


def format_bytes(count: int) -> str:
    """1536 is 1.5 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < BYTE_STEP or unit == "TiB":
            return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= BYTE_STEP
    raise AssertionError("unreachable")


def print_failure(console: Console, error: CommandFailedError) -> None:
    """One line what, one line what next."""
    console.print(f"[red]Error:[/red] {escape(error.message)}")
    if error.hint:
        console.print(f"[dim]{escape(error.hint)}[/dim]")
