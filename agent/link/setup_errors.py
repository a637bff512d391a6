"""What can be wrong when a machine becomes a node: one exit code for each, so that programs can tell them apart."""

from __future__ import annotations

import enum
from typing import Any

from shared.errors import FleetError


class ExitCode(enum.IntEnum):
    """Exit codes of `install`, `enrol`, `uninstall` and of install.sh (docs/operations, one-shot install)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_ROOT = 10
    UNSUPPORTED_SYSTEM = 11
    PACKAGES = 12
    """apt-get could not install what install.sh needs."""
    DOWNLOAD = 13
    """The bundle could not be downloaded or is not what the controller announced."""
    TOKEN_MALFORMED = 20
    TOKEN_UNKNOWN = 21
    TOKEN_EXPIRED = 22
    TOKEN_USED = 23
    WRONG_NETWORK = 24
    REJECTED = 25
    """An administrator said no."""
    OTHER_CLUSTER = 26
    """The machine belongs to another controller."""
    APPROVAL_TIMEOUT = 27
    """Nobody approved it in time; the same command goes on waiting."""
    NOT_PRESTAGED = 28
    """The token is for another machine's certificate request."""
    CONTROLLER_UNREACHABLE = 30
    WRONG_PIN = 31
    CLOCK_OFF = 32
    GATEWAY_UNREACHABLE = 33
    BAD_ANSWER = 34
    WRONG_NAME = 35
    """The controller's certificate does not hold the name in the URL."""
    NO_WELCOME = 40
    """Everything is installed, and the agent did not get through within the time."""
    SERVICE_FAILED = 41


class SetupError(FleetError):
    """An installation or enrolment cannot go on; `exit_code` is what the process ends with."""

    code = "setup_failed"

    def __init__(self, exit_code: ExitCode, message: str, **options: Any) -> None:
        super().__init__(message, **{"code": exit_code.name.lower(), **options})
        self.exit_code = exit_code
