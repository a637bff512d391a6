"""Answers for people: tables and things in detail. `--json` passes all this by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.columns import choose_columns
from cli.errors import CommandFailedError
from cli.render_job import print_job
from cli.render_plan import print_plan
from cli.text import format_cell, format_line, format_value, is_rows, measure_of, render_json, visible
from cli.waiting import list_failed

PIPE_WIDTH = 100_000
"""Columns where no terminal sets a limit: a program that reads a table must get whole values."""
MIN_WIDTH_FOR_IDS = 100
"""Below this an id may break over two lines, so that the other columns keep some room."""
MAX_JOB_LINES = 20
SHOWN_ONCE = "recovery_codes"
UNBROKEN = ("id", "name", "state")

Labeller = Callable[[str, Any], Any]
"""Column and value to what people read."""


class PipeConsole(Console):
    """A console that leaves it to the caller what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Tell the caller; rich itself would end the process as failed."""
        raise BrokenPipeError


def open_console(file: TextIO | None = None) -> Console:
    """A console on standard output, as wide as the terminal, or unlimited where there is none. NO_COLOR is honoured."""
    target = file or sys.stdout
    return PipeConsole(
        file=target, width=None if target.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False
    )


def print_json(value: Any, file: TextIO | None = None) -> None:
    """One JSON document, for programs."""
    print(render_json(value), file=file or sys.stdout)


def _same(_column: str, value: Any) -> Any:
    return value


def print_answer(console: Console, value: Any, *, command: str = "", label: Labeller = _same) -> None:
    """Show any answer of the API in the shape that suits it."""
    if value is None:
        console.print("Done.")
    elif not isinstance(value, dict):
        console.print(visible(value), soft_wrap=True)
    elif is_about_many(value):
        if not value["items"] and command.partition(" ")[2].startswith("judge-"):
            console.print("Nothing is in the way.")
            return
        print_list(console, value, columns=choose_columns(value["items"], command), label=label)
        _print_failed(console, list_failed(value.get("jobs", [])))
    elif "resource" in value and "jobs" in value:
        if isinstance(value["resource"], dict):
            print_detail(console, value["resource"], label=label)
        _print_jobs(console, value["jobs"])
    elif "nodes" in value and "changes" in value:
        print_plan(console, value, label)
    elif isinstance(value.get("explanation"), dict):
        print_job(console, value, label)
    else:
        print_detail(console, value, label=label)


def is_about_many(answer: Any) -> bool:
    """A page of a list, or what became of each of many things."""
    return isinstance(answer, dict) and isinstance(answer.get("items"), list)


def print_list(console: Console, page: Mapping[str, Any], *, columns: Sequence[str], label: Labeller = _same) -> None:
    """A table of one page; the last line says how to see more."""
    items = page["items"]
    if not items:
        console.print("Nothing here yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    is_wide = console.width >= MIN_WIDTH_FOR_IDS
    for column in columns:
        table.add_column(Text(title_of(column)), overflow="fold", no_wrap=is_wide and column in UNBROKEN)
    for item in items:
        table.add_row(*(Text(format_cell(measure_of(item, name), label(name, item.get(name)))) for name in columns))
    _print_table(console, table)
    if isinstance(page.get("done"), int) and isinstance(page.get("failed"), int):
        words = "would be done" if any(item.get("plan") for item in items) else "done"
        console.print(f"{page['done']} {words}, {page['failed']} not.", style="dim")
    if page.get("next_cursor"):
        console.print(f"More: --cursor {visible(page['next_cursor'])} (or --all)", style="dim", soft_wrap=True)


def _print_table(console: Console, table: Table) -> None:
    """Print it; without the blanks at the ends of lines where a program reads it."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), soft_wrap=True)


def title_of(column: str) -> str:
    """node_id is headed `node`."""
    return visible(column.removesuffix("_id").replace("_", " "))


def print_detail(console: Console, item: Mapping[str, Any], *, label: Labeller = _same, indent: int = 0) -> None:
    """Field and value, one a line, never cut or broken, so that a long value can be copied as a whole."""
    width = max((len(name) for name in item), default=0)
    for name, value in item.items():
        title = " " * indent + visible(name.replace("_", " ")).ljust(width)
        if isinstance(value, dict) and value:
            console.print(Text(title.rstrip(), style="dim"))
            print_detail(console, value, label=label, indent=indent + 2)
            continue
        if name == SHOWN_ONCE and isinstance(value, list):
            console.print(Text(f"{title.rstrip()}, shown this once; each lets its owner in one time:", style="dim"))
            console.print(Text("\n".join(" " * (indent + 2) + visible(word) for word in value)), soft_wrap=True)
            continue
        if is_rows(value):
            console.print(Text(title.rstrip(), style="dim"))
            for row in value:
                console.print(Text(" " * (indent + 2) + format_line(row)), soft_wrap=True)
            continue
        text = format_value(measure_of(item, name), value)
        name_there = label(name, value)
        if isinstance(value, str) and name_there != value:
            text = f"{visible(name_there)} ({text})"
        text = text.replace("\n", "\n" + " " * (indent + width + 2))
        console.print(Text.assemble((title, "dim"), "  ", text), soft_wrap=True)


def _print_jobs(console: Console, jobs: Sequence[Mapping[str, Any]]) -> None:
    for job in jobs[:MAX_JOB_LINES]:
        words = (("job ", "dim"), visible(job.get("id")), (f" {visible(job.get('state', ''))}", "dim"))
        console.print(Text.assemble(*words), soft_wrap=True)
    _print_rest(console, jobs)


def _print_failed(console: Console, jobs: Sequence[Mapping[str, Any]]) -> None:
    for job in jobs[:MAX_JOB_LINES]:
        reason = visible((job.get("error") or {}).get("message") or "no reason was given")
        words = (
            visible(job.get("label")),
            f" {visible(job.get('state'))}: ",
            reason,
            (f"  job {job.get('id')}", "dim"),
        )
        console.print(Text.assemble(*words), soft_wrap=True)
    _print_rest(console, jobs)


def _print_rest(console: Console, jobs: Sequence[Mapping[str, Any]]) -> None:
    if len(jobs) > MAX_JOB_LINES:
        console.print(f"and {len(jobs) - MAX_JOB_LINES} jobs more: `wcp360 jobs list`", style="dim")


def print_failure(console: Console, error: CommandFailedError) -> None:
    """One line what, one line what next."""
    console.print(Text.assemble(("Error:", "red"), f" {visible(error.message)}"), soft_wrap=True)
    if error.hint:
        console.print(Text(visible(error.hint), style="dim"), soft_wrap=True)
