"""The root command: global options, the groups that the API's document names, and the few commands of our own."""

from __future__ import annotations

from typing import Any

import click

from cli import own_commands
from cli.client import ApiClient
from cli.commands import SESSION_KEY, Session, build_command
from cli.document import Operation
from cli.errors import CommandFailedError
from cli.profile import load_profiles
from shared.version import __version__

EPILOG = (
    "Exit status: 0 done, 1 bug, 2 wrong command line, 3 invalid input, 4 not allowed, 5 not found, 6 conflict, "
    "7 the job failed, 8 unavailable, 9 waited too long."
)


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
            return sorted({*own, *_session(ctx).document.groups()})
        except CommandFailedError as error:
            ctx.meta["listing_error"] = error.message
            return own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of our own, else a noun of the API."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        document = _session(ctx).document
        operations = document.groups().get(cmd_name)
        return NounGroup(cmd_name, operations, document.group_description(cmd_name)) if operations else None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit statuses, and why the nouns are missing if they are."""
        if "listing_error" in ctx.meta:
            formatter.write_paragraph()
            formatter.write_text(f"The API's commands appear once a controller answers: {ctx.meta['listing_error']}.")
        super().format_epilog(ctx, formatter)


def _session(ctx: click.Context) -> Session:
    """The one of this call, made on first use and shared by all nested contexts."""
    session: Session | None = ctx.meta.get(SESSION_KEY)
    if session is None:
        options = ctx.find_root().params
        profile = load_profiles().get(options.get("profile"))
        profile.controller = (options.get("controller") or profile.controller).rstrip("/")
        profile.ca_file = options.get("ca_file") or profile.ca_file
        client = ApiClient(profile, is_verbose=bool(options.get("verbose")), transport=ctx.find_root().obj)
        session = Session(client=client, document=client.load_document(), is_json=bool(options.get("json")))
        ctx.meta[SESSION_KEY] = session
    return session


@click.group(cls=RootGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", help="Which stored controller to use (default: the current one).")
@click.option("--controller", help="Base URL of the controller, instead of the profile's.")
@click.option("--ca-file", help="PEM file of the controller's certificate authority, instead of the profile's.")
@click.option("--json", is_flag=True, help="Print the answer as JSON, for programs.")
@click.option("--verbose", "-v", is_flag=True, help="Show each request and answer on standard error.")
@click.version_option(__version__, prog_name="wcp360")
def root(**_options: Any) -> None:
    """Command line of WCP360: every endpoint of the controller's API is a command.

    Names work where ids are asked for: `wcp360 accounts suspend alice --reason unpaid --wait`.
    """


for command in own_commands.COMMANDS:
    root.add_command(command)
