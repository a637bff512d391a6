"""Makes click commands of the operations in the OpenAPI document."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console

from cli.client import ApiClient
from cli.document import Document, Operation, Parameter
from cli.names import resolve_id
from cli.render import print_answer, print_json
from cli.values import is_given, option_for, to_json
from cli.waiting import wait_for_jobs

DEFAULT_WAIT_SECONDS = 600.0
SESSION_KEY = "wcp360.session"
"""Where click's context keeps the Session."""


@dataclass(slots=True)
class Session:
    """What every command of one call shares."""

    client: ApiClient
    document: Document
    is_json: bool


def build_command(operation: Operation) -> click.Command:
    """One command: path parameters are arguments, the rest are options, plus the switches that fit."""
    parameters: list[click.Parameter] = [
        click.Argument([item.name], metavar=item.name.removesuffix("_id").upper())
        for item in operation.list_parameters("path")
    ]
    parameters += [option_for(item) for item in operation.list_parameters("query")]
    parameters += [option_for(item) for item in operation.list_parameters("body")]
    parameters += _switches(operation)

    def run(**values: Any) -> None:
        call(click.get_current_context().meta[SESSION_KEY], operation, values)

    return click.Command(
        operation.command,
        params=parameters,
        callback=run,
        help=operation.description,
        short_help=operation.summary,
        epilog=f"{operation.method} {operation.path} ({operation.operation_id})",
    )


def _switches(operation: Operation) -> list[click.Parameter]:
    switches: list[click.Parameter] = []
    if operation.has_body:
        switches.append(
            click.Option(["--body"], help="The whole body as JSON, or @FILE, or @- for standard input; options win.")
        )
    if operation.can_dry_run:
        switches.append(click.Option(["--dry-run"], is_flag=True, help="Show the plan; change nothing."))
    if operation.method != "GET":
        switches.append(click.Option(["--wait"], is_flag=True, help="Follow the job until it ends."))
        switches.append(
            click.Option(
                ["--wait-timeout"], type=float, default=DEFAULT_WAIT_SECONDS, show_default=True, help="Seconds."
            )
        )
    return switches


def call(session: Session, operation: Operation, values: dict[str, Any]) -> None:
    """Send the request of one command and show the answer."""
    path = operation.path
    for parameter in operation.list_parameters("path"):
        value = resolve_id(session.client, session.document, _as_id(parameter, operation), values[parameter.name])
        path = path.replace("{" + parameter.name + "}", quote(str(value), safe=""))
    query = _collect(session, operation.list_parameters("query"), values)
    is_dry_run = bool(values.get("dry_run"))
    if is_dry_run:
        query["dry_run"] = "true"
    body = _body(session, operation, values) if operation.has_body else None
    answer = session.client.request(operation.method, path, query=query, body=body)
    if values.get("wait") and not is_dry_run and isinstance(answer, dict) and answer.get("jobs"):
        job_ids = [job["id"] for job in answer["jobs"]]
        answer["jobs"] = wait_for_jobs(session.client, job_ids, timeout_seconds=values["wait_timeout"])
    show(session, answer)


def show(session: Session, answer: Any) -> None:
    """As JSON for programs, else for people."""
    if session.is_json:
        print_json(answer)
    else:
        print_answer(Console(), answer)


def _as_id(parameter: Parameter, operation: Operation) -> Parameter:
    """A bare {id} means the group's own noun."""
    if parameter.name != "id":
        return parameter
    noun = operation.group.removesuffix("s").replace("-", "_")
    return Parameter(f"{noun}_id", parameter.place, parameter.schema, parameter.description, parameter.is_required)


def _collect(session: Session, parameters: list[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    return {
        item.name: resolve_id(session.client, session.document, item, to_json(item, values[item.name]))
        for item in parameters
        if is_given(values.get(item.name))
    }


def _body(session: Session, operation: Operation, values: dict[str, Any]) -> dict[str, Any] | None:
    parameters = operation.list_parameters("body")
    body = {**_read_body(values.get("body")), **_collect(session, parameters, values)}
    missing = [item for item in parameters if item.is_required and item.name not in body]
    if missing:
        flags = ", ".join("--" + item.name.replace("_", "-") for item in missing)
        raise click.UsageError(f"Missing {flags}.")
    return body if body or operation.body_is_required else None


def _read_body(raw: str | None) -> dict[str, Any]:
    if raw is None:
        return {}
    if raw.startswith("@"):
        raw = sys.stdin.read() if raw == "@-" else Path(raw[1:]).read_text()
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise click.BadParameter(f"--body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise click.BadParameter("--body must be a JSON object")
    return body
