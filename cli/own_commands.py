"""Commands that are not endpoints: signing in and out, profiles, completion."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cli.client import LOGIN_PATH, ApiClient
from cli.completion import SHELLS, render_source
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.profile import load_profiles
from cli.render import print_json
from cli.session import chosen_profile, is_json, open_client

LOGOUT_PATH = "/api/v1/auth/logout"
SECOND_FACTOR_REQUIRED = "second_factor_required"


def complete_profile(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The names of the stored profiles."""
    try:
        names = sorted(load_profiles().profiles)
    except CommandFailedError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@click.argument("controller", required=False)
@click.option("--username", "-u", default="admin", show_default=True)
@click.pass_context
def login(ctx: click.Context, controller: str | None, username: str) -> None:
    """Sign in to a controller and remember it in the profile.

    CONTROLLER is its address: https://panel.example.com:8360, or just panel.example.com. The password is asked for, or
    read from WCP360_PASSWORD, or from standard input when that is no terminal: it never appears on the command line.
    Whoever has a second factor is asked for the code next, or it is the next line of standard input.
    """
    options = ctx.find_root().params
    store = load_profiles()
    name = options.get("profile") or store.current
    ca_file = str(Path(options["ca_file"]).resolve()) if options.get("ca_file") else None
    profile = store.get(name, controller=controller or options.get("controller"), ca_file=ca_file)
    profile.token = ""
    client = open_client(ctx, profile)
    answer = _sign_in(client, {"username": username, "password": _read_password()})
    profile.token = answer["token"]
    store.profiles[name] = profile
    before, store.current = store.current, name
    store.save()
    if is_json(ctx):
        shown = {"profile": name, "controller": profile.controller, "expires_at": answer.get("expires_at")}
        print_json({**shown, "user": answer.get("user")})
    else:
        click.echo(f"Signed in to {profile.controller} as {username} (profile {name}).")
        if before != name and before in store.profiles:
            click.echo(f"This profile is used from now on; `wcp360 profile use {before}` goes back.")
    if (answer.get("user") or {}).get("must_change_password"):
        click.echo("This password must be changed: `wcp360 auth change-password`.", err=True)


def _sign_in(client: ApiClient, body: dict[str, str]) -> Any:
    """In two steps when the user has a second factor: the controller asks for the code once the password is right."""
    try:
        return client.request("POST", LOGIN_PATH, body=body)
    except CommandFailedError as error:
        if (error.problem or {}).get("code") != SECOND_FACTOR_REQUIRED:
            raise
    return client.request("POST", LOGIN_PATH, body={**body, "code": _read_code()})


def _read_code() -> str:
    if not sys.stdin.isatty():
        code = sys.stdin.readline().strip()
        if code:
            return code
        raise CommandFailedError(
            "the password is right, and a second factor is asked for",
            exit_code=ExitCode.NOT_ALLOWED,
            hint="Its code is the next line of standard input. Programs use a token: `wcp360 tokens create`.",
        )
    return str(click.prompt("Code (six digits of your device, or a recovery code)", err=True))


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
    store.require_known(ctx.find_root().params.get("profile"))
    profile = store.get(name)
    if profile.token:
        try:
            open_client(ctx, profile).request("POST", LOGOUT_PATH)
        except CommandFailedError as error:
            if error.exit_code is not ExitCode.NOT_ALLOWED:  # an expired token is as good as ended
                raise
    if name in store.profiles:
        store.profiles[name].token = ""
        store.save()
    click.echo("Signed out.", err=is_json(ctx))


@click.group()
def profile() -> None:
    """Controllers that this user knows."""


@profile.command("list")
@click.pass_context
def list_profiles(ctx: click.Context) -> None:
    """Show all profiles; the current one is marked."""
    store = load_profiles()
    if is_json(ctx):
        print_json({"items": [_view(store.current, name, item) for name, item in sorted(store.profiles.items())]})
        return
    for name, item in sorted(store.profiles.items()):
        mark = "*" if name == store.current else " "
        click.echo(f"{mark} {name}\t{item.controller}\t{'signed in' if item.token else 'signed out'}")


def _view(current: str, name: str, item: Any) -> dict[str, Any]:
    return {
        "name": name,
        "controller": item.controller,
        "ca_file": item.ca_file or None,
        "is_signed_in": bool(item.token),
        "is_current": name == current,
    }


@profile.command("show")
@click.pass_context
def show_profile(ctx: click.Context) -> None:
    """Show which controller and CA are used now (never the token)."""
    store = load_profiles()
    name = ctx.find_root().params.get("profile") or store.current
    used = chosen_profile(ctx)
    if is_json(ctx):
        print_json(_view(store.current, name, used))
        return
    signed_in = "yes" if used.token else "no"
    rows = (("profile", name), ("controller", used.controller or "-"), ("CA file", used.ca_file or "(system)"))
    for title, text in (*rows, ("signed in", signed_in)):
        click.echo(f"{title}\t{text}")


@profile.command("use")
@click.argument("name", shell_complete=complete_profile)
def use_profile(name: str) -> None:
    """Make a profile the current one."""
    store = load_profiles()
    store.require_known(name)
    store.current = name
    store.save()


@profile.command("delete")
@click.argument("name", shell_complete=complete_profile)
def delete_profile(name: str) -> None:
    """Forget a profile and its token (`wcp360 logout` also ends the session)."""
    store = load_profiles()
    store.require_known(name)
    del store.profiles[name]
    if store.current == name:
        store.current = min(store.profiles, default="default")
    store.save()


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script: eval "$(wcp360 completion bash)"."""
    click.echo(render_source(shell, ctx.find_root().command))


COMMANDS: tuple[click.Command, ...] = (login, logout, profile, completion)
