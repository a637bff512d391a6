"""Commands that are not endpoints: signing in and out, profiles, completion."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cli.client import ApiClient
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.profile import Profile, load_profiles

LOGIN_PATH = "/api/v1/auth/login"
LOGOUT_PATH = "/api/v1/auth/logout"
COMPLETE_VARIABLE = "_WCP360_COMPLETE"


@click.command()
@click.argument("controller", required=False)
@click.option("--username", "-u", default="admin", show_default=True)
@click.pass_context
def login(ctx: click.Context, controller: str | None, username: str) -> None:
    """Sign in to a controller and remember it in the profile.

    The password is asked for, or read from WCP360_PASSWORD, or from standard input when that is no terminal: it never
    appears on the command line.
    """
    options = ctx.find_root().params
    store = load_profiles()
    name = options.get("profile") or store.current
    profile = store.get(name)
    profile.controller = (controller or options.get("controller") or profile.controller).rstrip("/")
    profile.ca_file = str(Path(options["ca_file"]).resolve()) if options.get("ca_file") else profile.ca_file
    profile.token = ""
    client = ApiClient(profile, is_verbose=bool(options.get("verbose")), transport=ctx.find_root().obj)
    answer = client.request("POST", LOGIN_PATH, body={"username": username, "password": _read_password()})
    profile.token = answer["token"]
    store.profiles[name] = profile
    store.current = name
    store.save()
    click.echo(f"Signed in to {profile.controller} as {username} (profile {name}).")


def _read_password() -> str:
    if "WCP360_PASSWORD" in os.environ:
        return os.environ["WCP360_PASSWORD"]
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, err=True))


@click.command()
@click.pass_context
def logout(ctx: click.Context) -> None:
    """End the session and forget its token."""
    store = load_profiles()
    name = ctx.find_root().params.get("profile") or store.current
    profile = store.get(name)
    if profile.token:
        try:
            ApiClient(profile, transport=ctx.find_root().obj).request("POST", LOGOUT_PATH)
        except CommandFailedError as error:
            if error.exit_code is not ExitCode.NOT_ALLOWED:  # an expired token is as good as ended
                raise
    if name in store.profiles:
        store.profiles[name].token = ""
        store.save()
    click.echo("Signed out.")


@click.group()
def profile() -> None:
    """Controllers that this user knows."""


@profile.command("list")
def list_profiles() -> None:
    """Show all profiles; the current one is marked."""
    store = load_profiles()
    for name, item in sorted(store.profiles.items()):
        mark = "*" if name == store.current else " "
        click.echo(f"{mark} {name}\t{item.controller}\t{'signed in' if item.token else 'signed out'}")


@profile.command("show")
@click.pass_context
def show_profile(ctx: click.Context) -> None:
    """Show which controller and CA are used now (never the token)."""
    store = load_profiles()
    name = ctx.find_root().params.get("profile") or store.current
    used: Profile = store.get(name)
    click.echo(f"profile\t{name}\ncontroller\t{used.controller or '-'}\nCA file\t{used.ca_file or '(system)'}")


@profile.command("use")
@click.argument("name")
def use_profile(name: str) -> None:
    """Make a profile the current one."""
    store = load_profiles()
    if name not in store.profiles:
        known = ", ".join(sorted(store.profiles)) or "none"
        raise CommandFailedError(f"there is no profile {name!r} (known: {known})", exit_code=ExitCode.NOT_FOUND)
    store.current = name
    store.save()


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script: eval "$(wcp360 completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandFailedError(f"{shell} is not supported", exit_code=ExitCode.USAGE)
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "wcp360", COMPLETE_VARIABLE).source())


COMMANDS: tuple[click.Command, ...] = (login, logout, profile, completion)
