"""Where an exception becomes an ErrorBody: the executor's boundary, so that one tenant's fault stays its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from shared.errors import ApplyError, FleetError
from shared.protocol.job import ErrorBody

_log = logging.getLogger(__name__)


async def attempt(work: Awaitable[object], *, timeout_seconds: float | None = None) -> Exception | None:
    """Wait for the work and return how it failed; None when it did not. Cancellation passes through.

    Args:
        work: What is tried.
        timeout_seconds: None where the caller's own time limit counts.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            await work
    except Exception as error:  # noqa: BLE001 - the executor's boundary: hosts and modules may fail in any way
        return error
    return None


def error_body(error: Exception, *, step: str = "") -> ErrorBody:
    """Turn any exception into what crosses the wire; what is not ours is logged with its trace and called a bug.

    Args:
        error: What happened.
        step: The action it happened in, `type target`.
    """
    if isinstance(error, ApplyError) and isinstance(error.__cause__, Exception):
        return error_body(error.__cause__, step=error.step)
    where = {"step": step} if step else {}
    if isinstance(error, FleetError):
        return ErrorBody(code=error.code, message=error.message, hint=error.hint, context={**error.context, **where})
    if isinstance(error, TimeoutError):
        return ErrorBody(code="timeout", message="the host did not answer in time", context=where)
    if isinstance(error, OSError):
        return ErrorBody(code="host_error", message=str(error), context=where)
    _log.error("unexpected error in the executor", exc_info=error)
    return ErrorBody(code="bug", message=f"{type(error).__name__}: {error}", context=where)
