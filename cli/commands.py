"""Makes click commands of the operations in the OpenAPI document."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import quote

import click

from cli.columns import MAX_COLUMNS
from cli.completion import complete_names
from cli.document import Operation, Parameter, singular_of
from cli.downloads import FORCE, OUTPUT, STANDARD_OUTPUT, download_options, require_target, save
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.following import FOLLOW, show_followed
from cli.names import PAGE_LIMIT, group_of, resolve_id
from cli.profile import keep_rotated_token, without_token
from cli.render import is_about_many, open_console, print_list
from cli.secret_input import is_secret, read_secret, read_text, secret_option
from cli.session import Session, session_of
from cli.values import is_given, option_for, to_json
from cli.waiting import Patience, require_success, wait_for_jobs

DEFAULT_WAIT_SECONDS = 600.0
MAX_LIST_PAGES = 1000
DELETE_WORD = "delete"
"""What a command about many things may be told to do with each."""
ROTATING = ("step-up", "confirm-second-factor")
"""Their answers hold the session's new secret; the old one ended."""


def build_command(operation: Operation) -> click.Command:
    """One command: path parameters are arguments, the rest are options, plus the switches that fit."""
    arguments: list[click.Parameter] = [
        click.Argument(
            [item.key],
            metavar=_metavar(item, operation),
            shell_complete=complete_names(group_of(item, operation)),
        )
        for item in operation.list_parameters("path")
    ]
    options = [_option(item, operation) for place in ("query", "body") for item in operation.list_parameters(place)]
    taken = {flag for option in options for flag in option.opts}
    switches = [switch for switch in _switches(operation) if switch.opts[0] not in taken]

    def run(**values: Any) -> None:
        call(session_of(click.get_current_context()), operation, values)

    return click.Command(
        operation.command,
        params=[*arguments, *options, *switches],
        callback=run,
        help=operation.description,
        short_help=operation.summary,
        epilog=f"{operation.method} {operation.path} ({operation.operation_id})",
    )


def _metavar(parameter: Parameter, operation: Operation) -> str:
    name = singular_of(operation.group) if parameter.name == "id" else parameter.name.removesuffix("_id")
    return name.replace("-", "_").upper()


def _option(parameter: Parameter, operation: Operation) -> click.Option:
    if is_secret(parameter):
        return secret_option(parameter)
    option = option_for(parameter)
    group = group_of(parameter, operation)
    if group is not None and not option.multiple:
        option = click.Option(
            [*option.opts, option.name or ""],
            metavar=parameter.name.removesuffix("_id").upper(),
            help=option.help,
            shell_complete=complete_names(group),
        )
    return option


def _switches(operation: Operation) -> list[click.Option]:
    """Options that are not the API's. Their names in click start with `switch_`, as an API may use any other word."""
    found: list[click.Option] = []
    if operation.has_body:
        text = "The whole body as JSON, or @FILE, or @- for standard input; options win."
        found.append(click.Option(["--body", "switch_body"], metavar="JSON|@FILE", help=text))
    if operation.can_dry_run:
        found.append(click.Option(["--dry-run", "switch_dry_run"], is_flag=True, help="Show the plan; change nothing."))
    if operation.method != "GET":
        found.append(click.Option(["--wait", "switch_wait"], is_flag=True, help="Follow the job until it ends."))
        names = ["--wait-timeout", "switch_wait_timeout"]
        found.append(click.Option(names, type=float, default=DEFAULT_WAIT_SECONDS, show_default=True, help="Seconds."))
    if operation.method == "DELETE" or _may_delete(operation):
        found.append(click.Option(["--yes", "-y", "switch_yes"], is_flag=True, help="Do not ask."))
    if operation.is_download:
        found.extend(download_options(is_text=operation.is_text))
    if operation.is_paged:
        text = f"Columns to show, with commas between (default: the {MAX_COLUMNS} that say the most)."
        found.append(click.Option(["--all", "switch_all"], is_flag=True, help="Every page, not only one."))
        found.append(click.Option(["--columns", "switch_columns"], metavar="A,B,C", help=text))
    return found


def call(session: Session, operation: Operation, values: dict[str, Any]) -> None:
    """Send the request of one command and show the answer."""
    is_dry_run = bool(values.get("switch_dry_run"))
    query = _collect(session, operation, operation.list_parameters("query"), values)
    body = _body(session, operation, values) if operation.has_body else None
    if _deletes(operation, body) and not is_dry_run and not values.get("switch_yes"):
        _ask(operation, values)
    path = _path(session, operation, values)
    if is_dry_run:
        query["dry_run"] = "true"
    if values.get("switch_all") and operation.find_parameter("limit"):
        query.setdefault("limit", PAGE_LIMIT)
    if query.get(FOLLOW):
        show_followed(session, path, query)
        return
    if operation.is_download:
        _download(session, operation, values, (path, query))
        return
    answer = session.client.request(operation.method, path, query=query, body=body)
    if operation.operation_id in ROTATING:
        is_kept = keep_rotated_token(session.client.profile.token, answer)
        answer = without_token(answer) if is_kept and not session.is_json else answer
    if values.get("switch_all"):
        answer = _rest_of(session, path, query, answer)
    is_waiting = bool(values.get("switch_wait")) and not is_dry_run
    if is_waiting:
        answer = _wait(session, operation, answer, values["switch_wait_timeout"])
    _show(session, operation, answer, columns=values.get("switch_columns") or "")
    if is_waiting and is_about_many(answer):
        require_success(answer.get("jobs", []))


def _show(session: Session, operation: Operation, answer: Any, *, columns: str) -> None:
    if columns and not session.is_json:
        wanted = [name.strip().replace("-", "_") for name in columns.split(",")]
        _require_columns(wanted, answer)
        print_list(open_console(), answer, columns=wanted, label=session.labels.label)
    else:
        session.show(answer, f"{operation.group} {operation.command}")


def _download(
    session: Session, operation: Operation, values: dict[str, Any], wanted: tuple[str, dict[str, Any]]
) -> None:
    output, is_forced = values.get(OUTPUT), bool(values.get(FORCE))
    require_target(output, is_text=operation.is_text, is_forced=is_forced)
    path, query = wanted
    size_bytes = save(session.client.download(path, query=query), output, is_forced=is_forced)
    if output not in (None, STANDARD_OUTPUT):
        click.echo(f"Written to {output}: {size_bytes} bytes.", err=True)


def _path(session: Session, operation: Operation, values: dict[str, Any]) -> str:
    path = operation.path
    for parameter in operation.list_parameters("path"):
        word = values[parameter.key]
        if word in ("", ".", ".."):  # these would name another endpoint (RFC 3986 section 5.2.4)
            raise click.BadParameter(f"{word!r} is no name", param_hint=_metavar(parameter, operation))
        value = resolve_id(session.client, session.document, group_of(parameter, operation), word)
        path = path.replace("{" + parameter.name + "}", quote(str(value), safe=""))
    return path


def _collect(
    session: Session, operation: Operation, parameters: list[Parameter], values: dict[str, Any]
) -> dict[str, Any]:
    collected: dict[str, Any] = {}
    for item in parameters:
        given = values.get(item.key)
        if is_secret(item):
            given = read_secret(item, given)
        if is_given(given):
            value = given if is_secret(item) else to_json(item, given)
            collected[item.name] = _resolve(session, item, operation, value)
    return collected


def _resolve(session: Session, parameter: Parameter, operation: Operation, value: Any) -> Any:
    """Names to ids; in an object, too, of those of its keys that refer to something."""
    if isinstance(value, dict) and "properties" in parameter.schema:
        groups = {key: group_of(Parameter(key, parameter.place, {})) for key in value}
        return {key: resolve_id(session.client, session.document, groups[key], item) for key, item in value.items()}
    return resolve_id(session.client, session.document, group_of(parameter, operation), value)


def _body(session: Session, operation: Operation, values: dict[str, Any]) -> dict[str, Any] | None:
    base = _read_body(values.get("switch_body"))
    parameters = operation.list_parameters("body")
    wanted = [item for item in parameters if item.name not in base or is_given(values.get(item.key))]
    missing = [
        item for item in wanted if item.is_required and not is_secret(item) and not is_given(values.get(item.key))
    ]
    if missing:
        raise click.UsageError(f"Missing {', '.join(item.flag for item in missing)}.", click.get_current_context())
    body = {**base, **_collect(session, operation, wanted, values)}
    unsaid = [item.flag for item in parameters if item.is_required and item.name not in body]
    if unsaid:
        raise click.UsageError(f"Missing {', '.join(unsaid)} (- for standard input, or @FILE).")
    return body if body or operation.body_is_required else None


def _read_body(raw: str | None) -> dict[str, Any]:
    if raw is None:
        return {}
    if raw.startswith("@"):
        raw = sys.stdin.read() if raw == "@-" else read_text(raw[1:], "--body")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="'--body'") from error
    if not isinstance(body, dict):
        raise click.BadParameter("it must be a JSON object", param_hint="'--body'")
    return body


def _may_delete(operation: Operation) -> bool:
    action = operation.find_parameter("action")
    return action is not None and action.place == "body" and DELETE_WORD in action.schema.get("enum", ())


def _deletes(operation: Operation, body: dict[str, Any] | None) -> bool:
    return operation.method == "DELETE" or (_may_delete(operation) and (body or {}).get("action") == DELETE_WORD)


def _ask(operation: Operation, values: dict[str, Any]) -> None:
    """A person is asked before something is deleted; a program is not."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    names = " ".join(str(values[item.key]) for item in operation.list_parameters("path")) or DELETE_WORD
    if not click.confirm(f"{operation.summary or operation.operation_id}: {names}?", err=True):
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(ExitCode.INTERRUPTED)


def _rest_of(session: Session, path: str, query: dict[str, Any], page: dict[str, Any]) -> dict[str, Any]:
    items = list(page["items"])
    for _ in range(MAX_LIST_PAGES):
        if not page.get("next_cursor"):
            break
        page = session.client.request("GET", path, query={**query, "cursor": page["next_cursor"]})
        items += page["items"]
    return {**page, "items": items}


def _wait(session: Session, operation: Operation, answer: Any, timeout_seconds: float) -> Any:
    """The answer with its jobs as they ended, and the resource as it is now.

    Raises:
        CommandFailedError: It was about one thing and did not succeed. Of many, the others' results count too.
    """
    if not isinstance(answer, dict) or not answer.get("jobs"):
        return answer
    jobs = wait_for_jobs(session.client, [job["id"] for job in answer["jobs"]], Patience(timeout_seconds))
    if not is_about_many(answer):
        require_success(jobs)
    resource = answer.get("resource")
    show = session.document.find(operation.group, "show")
    if show is not None and isinstance(resource, dict) and isinstance(resource.get("id"), str):
        resource = _read_again(session, show, resource)
    return {**answer, "resource": resource, "jobs": jobs}


def _read_again(session: Session, show: Operation, resource: dict[str, Any]) -> Any:
    parameters = show.list_parameters("path")
    if len(parameters) != 1:
        return resource
    path = show.path.replace("{" + parameters[0].name + "}", quote(resource["id"], safe=""))
    try:
        return session.client.request("GET", path)
    except CommandFailedError as error:
        if error.exit_code is not ExitCode.NOT_FOUND:  # what was deleted is gone now
            raise
        return resource


def _require_columns(columns: list[str], page: Any) -> None:
    known = {name for item in page["items"] for name in item}
    unknown = [name for name in columns if known and name not in known]
    if unknown:
        hint = ", ".join(sorted(known))
        raise click.BadParameter(f"there is no {', '.join(unknown)}; there are {hint}", param_hint="'--columns'")
