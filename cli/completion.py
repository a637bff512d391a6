"""Shell completion: fast, and silent when there is no controller to ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, ShellComplete, get_completion_class

from cli.errors import CommandFailedError
from cli.names import list_items, name_of
from cli.session import session_of

COMPLETE_VARIABLE = "_WCP360_COMPLETE"
PROGRAM = "wcp360"
MAX_NAMES = 200
SHELLS = ("bash", "zsh", "fish")
_NEEDS_QUOTING = re.compile(r"([^\w@%+=:,./-])")


class QuotingBashComplete(BashComplete):
    """Click's, with names such as `Demo Ltd` quoted so that bash sees one word.

    Click's script reads without -r and splits unquoted, which would take the quoting away again.
    """

    source_template = BashComplete.source_template.replace("read type", "read -r type").replace(
        "COMPREPLY+=($value)", 'COMPREPLY+=("$value")'
    )

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Source: bash(1), QUOTING: a backslash keeps the next character literal."""
        quoted = _NEEDS_QUOTING.sub(r"\\\1", str(item.value))
        return f"{item.type},{quoted}"


def complete_names(
    group: str | None,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]] | None:
    """Completes the names of a noun, from one page of its list; None when the parameter is no reference."""
    if group is None:
        return None
    noun = group

    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            session = session_of(ctx)
            found = list_items(session.client, session.document, noun, search=incomplete, max_pages=1)
            items = list(islice(found or (), MAX_NAMES))
        except (CommandFailedError, KeyError, TypeError):
            return []
        names = sorted({name_of(item) or str(item.get("id", "")) for item in items})
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def render_source(shell: str, command: click.Command) -> str:
    """The script that the shell evaluates."""
    return _completer(shell, command).source()


def run_completion(command: click.Command, instruction: str, obj: Any = None) -> str:
    """What the shell's script reads, for an instruction such as `bash_complete`; empty when there is nothing to say."""
    shell, _, action = instruction.partition("_")
    if shell not in SHELLS:
        return ""
    completer = _completer(shell, command, obj)
    if action == "source":
        return completer.source()
    try:
        return completer.complete()
    except (CommandFailedError, click.ClickException, KeyError, ValueError):
        return ""  # an error message in the middle of a command line helps nobody


def _completer(shell: str, command: click.Command, obj: Any = None) -> ShellComplete:
    kind = QuotingBashComplete if shell == "bash" else get_completion_class(shell)
    assert kind is not None  # noqa: S101 - SHELLS are the ones click has
    return kind(command, {"obj": obj}, PROGRAM, COMPLETE_VARIABLE)
