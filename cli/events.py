"""`wcp360 events`: the controller's news as they come, one a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cli.render import open_console
from cli.session import chosen_profile, is_json
from cli.text import visible

TOPICS = ("jobs", "nodes", "accounts", "sites", "drift", "metrics", "audit")
DEFAULT_TOPICS = ("jobs", "nodes", "accounts", "sites", "drift")


@click.command("events")
@click.argument("topics", nargs=-1, type=click.Choice(TOPICS))
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@click.pass_context
def follow_events(ctx: click.Context, topics: tuple[str, ...], count: int | None) -> None:
    """Follow the controller's events until Ctrl-C; with --json, one JSON object a line.

    Without TOPICS: jobs, nodes, accounts, sites and drift.
    """
    from cli.event_stream import stream  # noqa: PLC0415 - only this command pays for loading a WebSocket client

    console = open_console()
    for seen, notice in enumerate(stream(chosen_profile(ctx), topics or DEFAULT_TOPICS), start=1):
        if is_json(ctx):
            click.echo(json.dumps(notice))
        else:
            print_notice(console, notice)
        if seen == count:
            return


def print_notice(console: Console, notice: Mapping[str, Any]) -> None:
    """One event on one line: what happened, to what, and how it stands."""
    data = notice.get("data") or {}
    what = data.get("label") or data.get("name") or data.get("id") or ""
    error = (data.get("error") or {}).get("message", "") if isinstance(data.get("error"), dict) else ""
    line = Text.assemble(
        (f"{visible(notice['topic']):<9}", "dim"),
        (f"{visible(notice.get('event', '')):<24}", "bold"),
        f" {visible(what)}",
        (f"  {visible(data.get('state') or '')}", "dim"),
        (f"  {visible(error)}", "red"),
    )
    line.rstrip()
    console.print(line, soft_wrap=True)
