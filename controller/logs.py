"""One stream of logs for everything in the process: ours and the libraries', as JSON lines or as text for a person.

Request and job ids come from context variables (structlog.contextvars): every line of a request or job carries them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog

_QUIET: Final = {
    "uvicorn.error": logging.WARNING,  # controller.serve says what matters of its life
    "uvicorn.access": logging.WARNING,  # the API's edge writes the access log
    "websockets.server": logging.WARNING,
    "sqlalchemy.engine": logging.WARNING,
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
}

_FIRST_FIELDS: Final = ("timestamp", "level", "logger", "message", "request_id", "job_id", "actor")

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(
    level: Literal["debug", "info", "warning", "error"], form: Literal["json", "text"], stream: TextIO | None = None
) -> None:
    """Send structlog and the standard library's logging to one stream (default: standard error). May run again."""
    shared_steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[*shared_steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared_steps, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_last_steps(form)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name, quiet_level in _QUIET.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(quiet_level, _LEVELS[level]))


def _last_steps(form: Literal["json", "text"]) -> list[Any]:
    if form == "text":
        # Plain on purpose: the pretty traceback prints local variables, and with them tokens and passwords.
        return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.EventRenamer("message"), _render_json]


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    first = {name: event[name] for name in _FIRST_FIELDS if name in event}
    return msgspec.json.encode({**first, **event}, enc_hook=repr).decode()
