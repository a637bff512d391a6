"""Entry point of `wcp360`: runs the command, shows a failure once, ends with its documented exit status."""

from __future__ import annotations

import os
import sys

import click
import httpx
from rich.console import Console

from cli.app import root
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.own_commands import COMPLETE_VARIABLE
from cli.render import print_failure, print_json


def main(argv: list[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: Words after the program's name; None reads the process's own.
        transport: Replaces the network in tests.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        with root.make_context("wcp360", list(words), obj=transport) as ctx:
            root.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        Console(stderr=True).print("Stopped.")
        return ExitCode.BUG
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandFailedError as error:
        if "--json" in words:
            print_json(error.problem or {"detail": error.message, "hint": error.hint})
        print_failure(Console(stderr=True), error)
        return error.exit_code
    except BrokenPipeError:
        return ExitCode.OK  # the reader (head, less) has seen enough
    return ExitCode.OK


def run() -> None:
    """Console script."""
    if COMPLETE_VARIABLE in os.environ:
        root.main(prog_name="wcp360", complete_var=COMPLETE_VARIABLE)
    sys.exit(main())


if __name__ == "__main__":
    run()
