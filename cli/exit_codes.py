"""How a program learns what went wrong. Documented in docs/cli.md; never renumbered."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit statuses of every command."""

    OK = 0
    BUG = 1
    """The controller or this program has a bug (also any status that fits nowhere else)."""
    USAGE = 2
    """The command line itself is wrong. Source: click's convention."""
    INVALID_INPUT = 3
    NOT_ALLOWED = 4
    """Not signed in, or not permitted."""
    NOT_FOUND = 5
    CONFLICT = 6
    """It exists already, a limit is reached, or its state does not allow the change."""
    JOB_FAILED = 7
    UNAVAILABLE = 8
    """The controller or the node cannot be reached now."""
    WAIT_TIMEOUT = 9
    """--wait ended before the job did; the job goes on."""
    INTERRUPTED = 130
    """Ctrl-C, or a question was answered with no. Source: bash(1), 128 + SIGINT."""


_BY_STATUS = {
    400: ExitCode.INVALID_INPUT,
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.UNAVAILABLE,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    413: ExitCode.INVALID_INPUT,
    415: ExitCode.INVALID_INPUT,
    422: ExitCode.INVALID_INPUT,
    429: ExitCode.UNAVAILABLE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}


def exit_code_of_status(status: int) -> ExitCode:
    """The exit status for an HTTP status of 400 and up."""
    return _BY_STATUS.get(status, ExitCode.BUG)
