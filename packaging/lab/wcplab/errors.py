"""What can go wrong in a lab, each with what the reader can do about it."""

from __future__ import annotations


class LabError(Exception):
    """A lab command failed; `hint` says what to do next."""

    exit_code: int = 1
    """What the command line returns for this error."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class CannotBootError(LabError):
    """This machine cannot boot nodes at all; callers may fall back to something else."""

    exit_code = 3


class UsageError(LabError):
    """The command line asks for something that makes no sense."""

    exit_code = 2
