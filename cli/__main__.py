"""Entry point of `wcp360`: runs the command, shows a failure once, ends with its documented exit status."""

from __future__ import annotations

import os
import sys

import click
import httpx

from cli.app import root
from cli.completion import COMPLETE_VARIABLE, PROGRAM, run_completion
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.global_options import hoist
from cli.render import open_console, print_failure, print_json


def main(argv: list[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: Words after the program's name; None reads the process's own.
        transport: Replaces the network in tests.
    """
    words = hoist(sys.argv[1:] if argv is None else argv)
    is_json = "--json" in words[: words.index("--")] if "--" in words else "--json" in words
    try:
        with root.make_context(PROGRAM, list(words), obj=transport) as ctx:
            root.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return _show_usage(error, is_json=is_json)
    except CommandFailedError as error:
        if is_json:  # on standard error: a program finds on standard output what it asked for, or nothing
            problem = error.problem or {"code": error.exit_code.name.lower(), "detail": error.message}
            print_json({**problem, "hint": error.hint or problem.get("hint")}, file=sys.stderr)
        else:
            print_failure(open_console(sys.stderr), error)
        return error.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.OK  # the reader (head, less) has seen enough
    return ExitCode.OK


def _show_usage(error: click.ClickException, *, is_json: bool) -> int:
    if is_json:
        print_json({"code": "usage", "detail": error.format_message(), "hint": None}, file=sys.stderr)
    else:
        error.show()
    return error.exit_code


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere. Source: Python's docs of signal, note on SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """Console script."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction is not None:
        sys.stdout.write(run_completion(root, instruction))
        sys.exit(0)
    status = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    sys.exit(status)


if __name__ == "__main__":
    run()
