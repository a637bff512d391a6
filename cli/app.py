"""The root command: global options, the groups that the API's document names, and the few commands of our own."""

from __future__ import annotations

from typing import Any

import click
from click.exceptions import NoSuchCommand

from cli import audit_log, events, logs, own_commands
from cli.commands import build_command
from cli.document import Operation
from cli.errors import CommandFailedError
from cli.session import session_of
from shared.version import __version__

EPILOG = (
    "Exit status: 0 done, 1 bug, 2 wrong command line, 3 invalid input, 4 not allowed, 5 not found, 6 conflict, "
    "7 the job failed, 8 unavailable, 9 waited too long, 130 interrupted."
)
NOT_LISTED = "wcp360.not_listed"


class NounGroup(click.Group):
    """All operations about one noun."""

    def __init__(self, name: str, operations: list[Operation], description: str) -> None:
        super().__init__(name, help=description, short_help=description)
        for operation in operations:
            self.add_command(build_command(operation))


class RootGroup(click.Group):
    """Knows its own commands at once; asks the controller's document only when a noun is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands, and the nouns when a controller answers."""
        own = super().list_commands(ctx)
        try:
            return sorted({*own, *session_of(ctx).document.groups()})
        except CommandFailedError as error:
            ctx.meta[NOT_LISTED] = error.message
            return own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of our own, else a noun of the API."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        session = session_of(ctx)
        operations = session.find_operations(cmd_name)
        return NounGroup(cmd_name, operations, session.document.group_description(cmd_name)) if operations else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a misspelt noun is compared with those of the API as well."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit statuses, and why the nouns are missing if they are."""
        if NOT_LISTED in ctx.meta:
            formatter.write_paragraph()
            formatter.write_text(f"The API's commands appear once a controller answers: {ctx.meta[NOT_LISTED]}.")
        super().format_epilog(ctx, formatter)


@click.group(cls=RootGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--profile",
    envvar="WCP360_PROFILE",
    shell_complete=own_commands.complete_profile,
    help="Which stored controller to use (default: the current one).",
)
@click.option("--controller", help="Base URL of the controller, instead of the profile's.")
@click.option(
    "--ca-file",
    type=click.Path(),
    help="PEM file of the controller's certificate authority, instead of the profile's.",
)
@click.option("--json", is_flag=True, help="Print the answer as JSON, for programs.")
@click.option("--verbose", "-v", is_flag=True, help="Show each request on standard error.")
@click.version_option(__version__, prog_name="wcp360")
def root(**_options: Any) -> None:
    """Command line of WCP360: every endpoint of the controller's API is a command.

    Names work where ids are asked for: `wcp360 accounts suspend alice --reason unpaid --wait`. The options below are
    accepted anywhere on the line.
    """


for command in (*own_commands.COMMANDS, events.follow_events, logs.logs, audit_log.audit):
    root.add_command(command)
