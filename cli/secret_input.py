"""Passwords: from a prompt, standard input or a file; never from the command line, which everybody can read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cli.document import Parameter


def is_secret(parameter: Parameter) -> bool:
    """Whether the value must not stand on a command line."""
    schema = parameter.schema
    if schema.get("type") in ("integer", "number", "boolean"):
        return False  # a rule about passwords, for example how long they must be
    return "password" in parameter.name or schema.get("format") == "password" or bool(schema.get("writeOnly"))


def secret_option(parameter: Parameter) -> click.Option:
    """The option that says where the secret comes from."""
    text = f"{parameter.description} Read from @FILE, or - for standard input; asked for when left out.".strip()
    return click.Option([parameter.flag, parameter.key], metavar="-|@FILE", help=text)


def read_secret(parameter: Parameter, source: str | None) -> str | None:
    """The secret; None when nothing was said and there is nobody to ask, or no need to.

    Raises:
        click.BadParameter: The source is the secret itself, or cannot be read.
    """
    if source is None:
        if not parameter.is_required or not sys.stdin.isatty():
            return None
        return str(click.prompt(parameter.name.replace("_", " ").capitalize(), hide_input=True, err=True))
    if source == "-":
        return sys.stdin.readline().rstrip("\n")
    if not source.startswith("@"):
        raise click.BadParameter(
            "others on this machine can read a command line; write - for standard input, or @FILE",
            param_hint=f"'{parameter.flag}'",
        )
    return read_text(source[1:], parameter.flag).split("\n", maxsplit=1)[0]


def read_text(path: str, flag: str) -> str:
    """The text of a file that an option names.

    Raises:
        click.BadParameter: It cannot be read.
    """
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise click.BadParameter(f"{path} cannot be read: {reason}", param_hint=f"'{flag}'") from error
