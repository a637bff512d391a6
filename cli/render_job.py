"""A job with its explanation, as one would tell it: what, for whom, how it went, how to take it back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.render_plan import print_diff
from cli.text import format_value, visible

STATE_STYLES = {"succeeded": "green", "superseded": "green", "discarded": "dim", "cancelled": "dim"}
BAD_STATES = ("failed", "refused", "expired", "indeterminate", "stuck")
MAX_CAUSES = 10
MAX_OUTPUT_LINES = 10
SECTIONS = (
    ("files", "Files"),
    ("commands", "Commands"),
    ("reloads", "Reloads"),
    ("risks", "Risks"),
    ("undo", "To take it back"),
    ("irreversible", "Nothing can take back"),
)


def print_job(console: Console, job: Mapping[str, Any], label: Callable[[str, Any], Any]) -> None:
    """Show a job that carries its explanation."""
    told = job["explanation"]
    state = visible(job.get("state"))
    style = "red" if state in BAD_STATES else STATE_STYLES.get(state, "yellow")
    console.print(Text.assemble((visible(job.get("label") or job.get("action")), "bold"), "  ", (state, style)))
    for title, text in (
        ("job", job.get("id")),
        ("node", label("node_id", job.get("node_id"))),
        ("about", job.get("resource_key")),
        ("asked by", _asker(told)),
        ("request", told.get("request_id")),
        ("attempts", job.get("attempts")),
        ("waits for", told.get("waits_for")),
    ):
        if text:
            console.print(Text.assemble((f"  {title:<9}", "dim"), visible(text)), soft_wrap=True)
    if told.get("rule"):
        console.print(Text(f"  {visible(told['rule'])}"), soft_wrap=True)
    _print_cause(console, told.get("cause"))
    _print_error(console, job, told)
    _print_timeline(console, told.get("timeline", []))
    _print_resources(console, told.get("resources", []))
    for key, title in SECTIONS:
        if key == "undo":
            _print_commands(console, "Tests before anything was live", told.get("validators"))
            _print_commands(console, "Programs that ran", told.get("runs"))
        _print_section(console, title, told.get(key))
    _print_section(console, "Commands that take it back", told.get("undo_commands"))
    for change in told.get("changes", []):
        if change.get("diff") and change.get("kind") != "create":  # a new file's diff is the whole file: --json has it
            console.print(Text(f"\nDiff of {visible(change.get('target'))}", style="bold"), soft_wrap=True)
            print_diff(console, change["diff"])
    if told.get("next_step"):
        console.print(Text.assemble(("\nNext: ", "bold"), visible(told["next_step"])), soft_wrap=True)


def _print_error(console: Console, job: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    error = job.get("error")
    if error:
        code = f" [{visible(error.get('code'))}]"
        console.print(Text.assemble("\n", (visible(error.get("message")), "red"), (code, "dim")), soft_wrap=True)
        if error.get("hint"):
            console.print(Text(visible(error["hint"]), style="dim"), soft_wrap=True)
    if told.get("is_rolled_back"):
        console.print("Everything it had done on the node was undone.")


def _print_timeline(console: Console, steps: Sequence[Mapping[str, Any]]) -> None:
    if steps:
        console.print(Text("\nTimeline", style="bold"))
    for step in steps:
        when = format_value("step_at", step.get("at"))
        note = (f"  {visible(step.get('note') or '')}", "dim")
        console.print(Text.assemble((f"  {when}  ", "dim"), visible(step.get("to_state")), note), soft_wrap=True)


def _print_resources(console: Console, resources: Sequence[Mapping[str, Any]]) -> None:
    if resources:
        console.print(Text("\nResources", style="bold"))
    for item in resources:
        outcome = visible(item.get("outcome"))
        style = "red" if outcome == "parked" else ""
        words = item.get("error_message") or item.get("note") or ""
        text = Text.assemble(f"  {visible(item.get('key'))}  ", (outcome, style), (f"  {visible(words)}", "dim"))
        console.print(text, soft_wrap=True)


def _asker(told: Mapping[str, Any]) -> str:
    """`ada (user/ID) from ADDRESS`, as far as it is known."""
    asker = told.get("asker")
    if not asker:
        return str(told.get("asked_by") or "")
    words = str(asker.get("name") or asker.get("reference"))
    if asker.get("kind") == "token" and asker.get("user"):
        words = f"the token {words} of {asker['user']}"
    address = f" from {asker['address']}" if asker.get("address") else ""
    return f"{words} ({asker.get('reference')}){address}"


def _print_cause(console: Console, cause: Mapping[str, Any] | None) -> None:
    if not cause:
        return
    console.print(Text("\nWhy", style="bold"))
    lines = [str(cause.get("words") or "")]
    lines += [str(change) for change in cause.get("changes", [])[:MAX_CAUSES]]
    if cause.get("permission"):
        lines.append(f"allowed by the permission {cause['permission']}")
    lines += [str(limit) for limit in cause.get("limits", [])]
    for line in lines:
        console.print(Text(f"  {visible(line)}"), soft_wrap=True)


def _print_commands(console: Console, title: str, runs: Sequence[Mapping[str, Any]] | None) -> None:
    if not runs:
        return
    console.print(Text(f"\n{title}", style="bold"))
    for run in runs:
        words = visible(shlex.join(str(word) for word in run.get("argv", ())))
        code = run.get("exit_code", 0)
        took = (f"  {run.get('seconds', 0):.2f} s", "dim")
        ended = (f"  exit status {code}", "red" if code else "dim")
        console.print(Text.assemble(f"  {words}", took, ended), soft_wrap=True)
        if code and run.get("output"):
            for line in str(run["output"]).splitlines()[:MAX_OUTPUT_LINES]:
                console.print(Text(f"    {visible(line)}", style="dim"), soft_wrap=True)


def _print_section(console: Console, title: str, lines: Sequence[str] | None) -> None:
    if not lines:
        return
    console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        console.print(Text(f"  {visible(line)}"), soft_wrap=True)
