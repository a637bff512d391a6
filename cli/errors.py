"""What ends a command early."""

from __future__ import annotations

from typing import Any

from cli.exit_codes import ExitCode


class CommandFailedError(Exception):
    """Carries what the user is told and the exit status.

    Args:
        message: One sentence.
        exit_code: The status of the process.
        hint: What to do next.
        problem: The server's RFC 9457 body, for `--json`.
    """

    def __init__(
        self, message: str, *, exit_code: ExitCode, hint: str | None = None, problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.problem = problem
