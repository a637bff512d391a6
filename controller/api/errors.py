"""The one map from errors to answers: RFC 9457 problem details with a stable code."""

from __future__ import annotations

import http
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from controller.api import scopes
from controller.core.maintenance.gate import MaintenanceError
from shared import errors

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:wcp360:error:"
"""`type` is a name, not an address that may rot (RFC 9457 section 3.1.1); docs/errors.md explains each code."""

_log = structlog.get_logger("controller.api")

# First match wins, so subclasses stand before their base. Source of the choice of statuses: the house style, part 2.5.
_STATUS_OF: Final[Sequence[tuple[type[errors.FleetError], int]]] = (
    (errors.InvalidInputError, 400),
    (errors.ProtocolError, 400),
    (errors.UnauthenticatedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.QuotaExceededError, 409),
    (errors.RefusedError, 409),
    (errors.ModuleUnavailableError, 409),
    (errors.PlanError, 409),
    (errors.ConfigTestError, 409),
    (errors.UnavailableError, 503),
    (errors.FactError, 503),
    (errors.CommandError, 503),
    (errors.ApplyError, 503),
    (errors.VerifyError, 503),
    (errors.RollbackError, 503),
)

_CODE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_input",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "unavailable",
}

_HINT_OF_STATUS: Final[Mapping[int, str]] = {413: "A body may have 2 MiB at most; send several."}
_RETRY_AFTER_SECONDS: Final = 5
_OUTAGE_WORDS: Final = ("locked", "busy", "connect", "disk i/o error", "disk is full", "readonly", "unable to open")
"""In SQLite's messages. Source: https://www.sqlite.org/rescode.html, sqlite3_errstr."""
_OUTAGE_STATES: Final = frozenset({"25006", "53100", "53200", "53300", "57P01", "57P02", "57P03", "58030"})
"""read_only_sql_transaction, disk_full, out_of_memory, too_many_connections, admin_shutdown, crash_shutdown,
cannot_connect_now, io_error. Source: PostgreSQL manual, appendix A."""
_CONNECTION_CLASS: Final = "08"
"""Connection exceptions. Source: as above."""


class RateLimitedError(errors.UnavailableError):
    """The caller asked too often, or for too much at once; only the HTTP edge raises it."""

    code = "rate_limited"

    def __init__(
        self, message: str, *, retry_after_seconds: int, hint: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, hint=hint or f"Wait {retry_after_seconds} seconds.", code=code)
        self.retry_after_seconds = retry_after_seconds


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One field that is wrong."""

    field: str
    """Dotted path, for example `aliases.0`; empty when the whole body is meant."""
    message: str


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The limit that would be passed."""

    limit: str
    """Its key, as `list-limits` names it."""
    used: int
    allowed: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, for people and programs (RFC 9457)."""

    type: str
    """`urn:wcp360:error:CODE`."""
    title: str
    """The status in words."""
    status: int
    detail: str
    """One sentence about this very occurrence."""
    code: str
    """Stable; programs compare this one."""
    hint: str | None = None
    """What to do next."""
    errors: tuple[FieldError, ...] = ()
    quota: Quota | msgspec.UnsetType = msgspec.UNSET
    """Only with `quota_exceeded`, where the limit is one of a package."""
    request_id: str = ""
    """Quote it to support; every log line of the request has it."""


def problem_of(error: BaseException, request_id: str) -> tuple[Problem, dict[str, str]]:
    """The problem and the extra response headers for any error."""
    if isinstance(error, RateLimitedError):
        return _problem(429, error, request_id), {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, MaintenanceError):
        return _problem(503, error, request_id), {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, errors.FleetError):
        status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)
        return _problem(status, error, request_id), _headers_of(status)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _problem_of_http(error, request_id), dict(error.headers or {})
    if is_database_outage(error):
        unavailable = errors.UnavailableError("the database does not answer now", hint="Try again in a moment.")
        return _problem(503, unavailable, request_id), _headers_of(503)
    bug = errors.BugError("this is a mistake of the controller, not yours", hint="Report it with the request id.")
    return _problem(500, bug, request_id), {}


def is_database_outage(error: BaseException) -> bool:
    """True for a lost connection, a full disk or a lock that did not come; not for a wrong statement."""
    if isinstance(error, PoolTimeoutError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or isinstance(error.orig, OSError) or state in _OUTAGE_STATES:
        return True
    text = str(error.orig).lower()
    # A server that goes away while it is being connected to is a plain DBAPIError, with or without its state.
    if (state or "").startswith(_CONNECTION_CLASS) or "connection was closed" in text:
        return True
    return isinstance(error, OperationalError) and any(word in text for word in _OUTAGE_WORDS)


def render_problem(problem: Problem) -> bytes:
    """The body of the answer."""
    return msgspec.json.encode(problem)


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for every exception: a boundary, so it takes all of them."""
    request_id = scopes.request_id_of(request.scope)
    problem, headers = problem_of(error, request_id)
    log_problem(problem, error)
    return Response(render_problem(problem), status_code=problem.status, headers=headers, media_type=PROBLEM_MEDIA_TYPE)


def log_problem(problem: Problem, error: BaseException) -> None:
    """Log our own mistakes with their traceback, failed dependencies without; the caller's mistakes are no news."""
    if problem.status == 500:
        _log.error("request.bug", code=problem.code, exc_info=error)
    elif problem.status == 503:
        _log.warning(
            "request.unavailable", code=problem.code, detail=problem.detail, cause=repr(error.__cause__ or error)
        )


def _problem(status: int, error: errors.FleetError, request_id: str) -> Problem:
    is_ours = status == 500
    code = errors.BugError.code if is_ours and not isinstance(error, errors.BugError) else error.code
    return Problem(
        type=TYPE_PREFIX + code,
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=code,
        hint=error.hint,
        errors=tuple(_fields_of(error)),
        quota=_quota_of(error),
        request_id=request_id,
    )


def _fields_of(error: errors.FleetError) -> Iterator[FieldError]:
    if isinstance(error, errors.InvalidInputError):
        yield FieldError(field=error.field or "", message=error.message)


def _quota_of(error: errors.FleetError) -> Quota | msgspec.UnsetType:
    context = error.context
    if not isinstance(error, errors.QuotaExceededError) or "limit" not in context:
        return msgspec.UNSET
    return Quota(limit=context["limit"], used=context["used"], allowed=context["allowed"])


def _problem_of_http(error: HTTPException, request_id: str) -> Problem:
    status = error.status_code
    fields = tuple(_fields_of_extra(error.extra)) if status == 400 else ()
    code = _CODE_OF_STATUS.get(status, "invalid_input")
    return Problem(
        type=TYPE_PREFIX + code,
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=_sentence_of(error, fields),
        code=code,
        hint=_HINT_OF_STATUS.get(status),
        errors=fields,
        request_id=request_id,
    )


def _sentence_of(error: HTTPException, fields: Sequence[FieldError]) -> str:
    if fields:
        return "; ".join(f"{field.field}: {field.message}" if field.field else field.message for field in fields)
    known = {404: "there is nothing at this address", 405: "this address does not know the method"}
    return known.get(error.status_code, error.detail)


def _fields_of_extra(extra: Any) -> Iterator[FieldError]:
    """Field errors from Litestar's ValidationException: a list of {message, key, source}."""
    for entry in extra if isinstance(extra, list) else ():
        if isinstance(entry, Mapping):
            key = str(entry.get("key", ""))
            is_missing_body = key == "data"
            message = "a JSON body is required" if is_missing_body else str(entry.get("message", "is not valid"))
            yield FieldError(field="" if is_missing_body else key, message=message)


def _headers_of(status: int) -> dict[str, str]:
    if status == 401:
        return {"www-authenticate": 'Bearer realm="wcp360"'}  # RFC 9110 section 15.5.2: a 401 must say how
    return {"retry-after": str(_RETRY_AFTER_SECONDS)} if status == 503 else {}
