"""A plan for people: rows, then node by node each action with its reason and diff, reloads and risks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.text import format_in_line, visible

KIND_STYLES = {"create": "green", "update": "yellow", "delete": "red", "run": "cyan"}
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
SILENT_FIELDS = ("updated_at", "created_at", "id")


def print_plan(console: Console, plan: Mapping[str, Any], label: Callable[[str, Any], Any]) -> None:
    """Show the answer to a dry run."""
    console.print(Text.assemble(("Plan", "bold"), " (nothing was changed)"))
    for change in plan["changes"]:
        _print_row(console, change, label)
    for node in plan["nodes"]:
        _print_node(console, node, label)
    unplanned = plan.get("unplanned") or 0
    if unplanned:
        more = " more" if plan["nodes"] else ""
        accounts = "1 account" if unplanned == 1 else f"{unplanned} accounts"
        console.print(f"\n{accounts}{more} would follow in groups; their nodes were not asked.", style="dim")
    elif not plan["nodes"]:
        console.print("No node has anything to do.", style="dim")


def _print_row(console: Console, change: Mapping[str, Any], label: Callable[[str, Any], Any]) -> None:
    name = visible(change.get("target_name") or change.get("target") or "")
    console.print(Text.assemble(f"  {visible(change['action'])} ", (name, "dim")), soft_wrap=True)
    before, after = change.get("before") or {}, change.get("after") or {}
    if not before or not after:
        return
    for field in after:
        if field not in SILENT_FIELDS and before.get(field) != after[field]:
            old, new = (visible(format_in_line(field, label(field, side.get(field)))) for side in (before, after))
            console.print(Text(f"    {visible(field.replace('_', ' '))}: {old} -> {new}"), soft_wrap=True)


def _print_node(console: Console, node: Mapping[str, Any], label: Callable[[str, Any], Any]) -> None:
    name = node.get("node_name") or label("node", node.get("node"))
    console.print(Text.assemble("\n", (visible(name), "bold"), (f"  {visible(node.get('subject') or '')}", "dim")))
    error = node.get("error")
    for action in node.get("changes", []):
        _print_action(console, action)
    if not node.get("changes") and not error:
        console.print("  nothing to do")
    for resource in node.get("resources", []):
        if resource.get("error"):
            console.print(Text(f"  {visible(resource['key'])}: {visible(resource['error'])}", style="red"))
    print_words(console, "reloads", node.get("reloads"))
    print_words(console, "risks", node.get("risks"))
    if error:
        hint = f" {visible(error['hint'])}" if error.get("hint") else ""
        console.print(Text.assemble((f"  {visible(error['message'])}", "red"), (hint, "dim")), soft_wrap=True)


def _print_action(console: Console, action: Mapping[str, Any]) -> None:
    kind = visible(action["kind"])
    line = Text.assemble(
        "  ",
        (kind.ljust(6), KIND_STYLES.get(kind, "")),
        f" {visible(action['action'])} {visible(action['target'])}",
        (" (cannot be undone)" if action.get("is_irreversible") else "", "red"),
        (f"  {visible(action.get('reason', ''))}", "dim"),
    )
    console.print(line, soft_wrap=True)
    print_diff(console, action.get("diff", ""))


def print_diff(console: Console, diff: str) -> None:
    """A unified diff, indented."""
    for line in visible(diff).splitlines():
        console.print(Text(f"         {line}", style=DIFF_STYLES.get(line[:1], "dim")), soft_wrap=True)


def print_words(console: Console, title: str, words: Sequence[str] | None) -> None:
    """A title and what belongs to it, if anything."""
    if words:
        joined = ", ".join(visible(word) for word in words)
        console.print(Text.assemble("  ", (title, "bold"), f" {joined}"), soft_wrap=True)
