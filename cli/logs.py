"""`wcp360 logs tail`: a site's log on the terminal. The same endpoint as `sites read-log`, in the words of tail(1)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from cli.completion import complete_names
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.following import print_record, show_followed
from cli.names import resolve_id
from cli.render import open_console, print_json
from cli.session import Session, session_of

GROUP, COMMAND = "sites", "read-log"


@click.group()
def logs() -> None:
    """Logs of sites."""


@logs.command("tail")
@click.argument("site", shell_complete=complete_names(GROUP))
@click.option("--error", "is_error", is_flag=True, help="The error log instead of the access log.")
@click.option("--follow", "-f", "is_following", is_flag=True, help="Show new lines as they come, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0, 1000), default=10, show_default=True, help="The last so many.")
@click.option("--after", metavar="CURSOR", help="Only what came after a line's cursor.")
@click.pass_context
def tail(ctx: click.Context, *, site: str, is_error: bool, is_following: bool, lines: int, after: str | None) -> None:
    """Show the end of a site's access log, as it is on the site's node."""
    session = session_of(ctx)
    path = _path(session, site, "error" if is_error else "access")
    query: dict[str, Any] = {"lines": lines, **({"after": after} if after else {})}
    if is_following:
        show_followed(session, path, query)
        return
    page = session.client.request("GET", path, query=query)
    if session.is_json:
        print_json(page)
        return
    console = open_console()
    for item in page["items"]:
        print_record(console, item)


def _path(session: Session, site: str, log: str) -> str:
    operation = session.document.find(GROUP, COMMAND)
    if operation is None:
        raise CommandFailedError(
            "this controller has no logs of sites", exit_code=ExitCode.USAGE, hint="It is of an older release."
        )
    site_id = str(resolve_id(session.client, session.document, GROUP, site))
    return operation.path.replace("{site_id}", quote(site_id, safe="")).replace("{log}", log)
