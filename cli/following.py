"""Answers that go on for as long as somebody reads: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.render import open_console
from cli.session import Session
from cli.text import visible

FOLLOW = "follow"
"""The query parameter with which an operation answers line by line."""
_EXIT_CODES = {"agent_offline": ExitCode.UNAVAILABLE, "stream_refused": ExitCode.CONFLICT}
_MARKS = {
    "rotated": "a new file was begun",
    "truncated": "the file was emptied",
    "gap": "something is missing: the log went on without us",
    "lost": "{lost} lines came too fast and were left out",
}


def follow_records(session: Session, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records as they come, for ever: an answer that ended in order is asked for again from where it ended.

    Raises:
        CommandFailedError: It cannot be followed, or broke off.
    """
    cursor = ""
    while True:
        wanted = {**query, FOLLOW: "true", **({"after": cursor} if cursor else {})}
        for record in session.client.stream("GET", path, query=wanted):
            if "code" in record and "detail" in record:
                raise _broken(record, cursor)
            cursor = record.get("cursor") or cursor
            yield record
        if not cursor:
            return


def _broken(record: dict[str, Any], cursor: str) -> CommandFailedError:
    return CommandFailedError(
        str(record["detail"]),
        exit_code=_EXIT_CODES.get(record["code"], ExitCode.UNAVAILABLE),
        hint=f"Go on with --after {cursor}" if cursor else None,
        problem=record,
    )


def show_followed(session: Session, path: str, query: dict[str, Any]) -> None:
    """Print the records of an answer until it ends or Ctrl-C."""
    console = open_console()
    for record in follow_records(session, path, query):
        if session.is_json:
            click.echo(json.dumps(record, ensure_ascii=True))
        else:
            print_record(console, record)


def print_record(console: Console, record: dict[str, Any]) -> None:
    """One line of a log as it stands there, but for what a terminal would obey; marks are set apart."""
    line = record.get("line")
    if line is None:
        words = _MARKS.get(record.get("mark") or "", "something happened").format(lost=record.get("lost", 0))
        console.print(Text(f"--- {words} ---", style="dim"), soft_wrap=True)
        return
    text = Text(visible(line).replace("\n", "\\x0a"))
    if record.get("is_cut"):
        text.append(" ... (cut)", style="dim")
    console.print(text, soft_wrap=True)
