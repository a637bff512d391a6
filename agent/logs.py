"""How the agent's processes log: one JSON object per line, for the journal and whatever collects it.

A line about a job has `job_id` and `request_id` in `extra`: the same two that the controller's log has for it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

_IDS: Final = ("job_id", "request_id")


class JsonFormatter(logging.Formatter):
    """Same names for the same things as in the controller's log."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without a line feed in it."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: str(value) for name in _IDS if (value := getattr(record, name, None)) is not None})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(stream: TextIO) -> None:
    """Send everything from level info on to this stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
