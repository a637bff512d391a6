"""The error hierarchy of the product. Every error has a stable code that docs/errors.md explains to an operator.

A class of its own exists only where some caller treats it differently. The message is for people, the context for
support; an error never embeds its cause: use `raise ... from error` and log the chain once, at the
boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FleetError(Exception):
    """Base of every error this product raises on purpose.

    Args:
        message: One sentence for a person: what went wrong.
        hint: What to do next; shown beside the message.
        context: Facts for support (never secrets).
        code: Overrides the class's stable code where one class serves several codes.
    """

    code: str = "error"
    is_retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        context: Mapping[str, Any] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context: dict[str, Any] = dict(context or {})
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


# --- the caller's fault -------------------------------------------------------------------------------------------


class InvalidInputError(FleetError, ValueError):
    """A value is outside its rules. `field` is the dotted path of the field, or None when the whole input is meant."""

    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None, **options: Any) -> None:
        super().__init__(message, **options)
        self.field = field


class UnauthenticatedError(FleetError):
    """Nobody we know is asking."""

    code = "unauthenticated"


class ForbiddenError(FleetError):
    """We know who asks, and they may not."""

    code = "forbidden"


class NotFoundError(FleetError, LookupError):
    """There is no such thing, or it belongs to another tenant (the two look the same on purpose)."""

    code = "not_found"


class ConflictError(FleetError):
    """The thing exists already, or is in a state that does not allow the change."""

    code = "conflict"


class StaleGenerationError(ConflictError):
    """The change was made against an older generation than the one that is stored."""

    code = "stale_generation"


class QuotaExceededError(FleetError):
    """A limit of the package, the reseller or the node would be passed."""

    code = "quota_exceeded"


# --- the environment ----------------------------------------------------------------------------------------------


class UnavailableError(FleetError):
    """Something we depend on does not answer now; the same call may succeed later."""

    code = "unavailable"
    is_retryable = True


class AgentOfflineError(UnavailableError):
    """The node's agent is not connected."""

    code = "agent_offline"


class BugError(FleetError):
    """Our own mistake: a state that cannot happen did."""

    code = "bug"


# --- the protocol -------------------------------------------------------------------------------------------------


class ProtocolError(FleetError):
    """The other side sent something that the wire does not allow."""

    code = "protocol_error"


class RefusedError(FleetError):
    """A signed job did not pass the node's own checks. `code` says which one (docs/errors.md, refusals)."""

    code = "refused"


# --- the agent ----------------------------------------------------------------------------------------------------


class ModuleUnavailableError(FleetError):
    """The module that this needs is not installed or not enabled on the node."""

    code = "module_unavailable"


class FactError(FleetError):
    """A fact of the host could not be read."""

    code = "fact_unreadable"
    is_retryable = True


class PlanError(FleetError):
    """The desired state cannot be turned into a plan on this host."""

    code = "plan_impossible"


class CommandError(FleetError):
    """A system command failed. argv holds no secrets by rule; stderr is its last 4 KiB."""

    code = "command_failed"

    def __init__(self, argv: tuple[str, ...], exit_code: int, stderr_tail: str, *, hint: str | None = None) -> None:
        last_line = stderr_tail.strip().splitlines()[-1] if stderr_tail.strip() else "no output"
        super().__init__(
            f"{argv[0]} failed with exit status {exit_code}: {last_line}",
            hint=hint,
            context={"argv": list(argv), "exit_code": exit_code, "stderr": stderr_tail},
        )
        self.argv = argv
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


class ConfigTestError(FleetError):
    """A service's own validator refused the staged configuration. `message` is the validator's own words."""

    code = "config_refused"


class ApplyError(FleetError):
    """A step of a plan failed. `is_rolled_back` says whether everything before it was undone."""

    code = "apply_failed"

    def __init__(self, message: str, *, step: str, is_rolled_back: bool, **options: Any) -> None:
        super().__init__(message, **options)
        self.step = step
        self.is_rolled_back = is_rolled_back


class VerifyError(FleetError):
    """The plan was applied, and the promise to the user does not hold."""

    code = "verify_failed"


class RollbackError(FleetError):
    """An undo failed: the host is in a state nobody planned. It takes no jobs until an operator looked."""

    code = "rollback_failed"
