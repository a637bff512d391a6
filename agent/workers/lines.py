"""From bytes of a log to records: lines, long ones cut, and no more of them in a second than an account may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from shared.protocol.grant import LogMark, LogRecord

MAX_LINE_BYTES: Final = 8 * 1024
"""nginx's own limit for a log line is its buffer; a request line has 8 KiB at most (large_client_header_buffers)."""
RATE_BYTES: Final = 512 * 1024
BURST_BYTES: Final = 2 * 1024 * 1024

_ENCODER = msgspec.json.Encoder()


def encode_record(record: LogRecord) -> bytes:
    """One line of JSON."""
    return _ENCODER.encode(record) + b"\n"


class LineCutter:
    """Cuts bytes into lines; holds at most one unfinished line, and of that no more than MAX_LINE_BYTES."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._skipped = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._begun) + self._skipped

    def feed(self, data: bytes) -> Iterator[tuple[str, bool, int]]:
        """Each finished line: its text, whether it was cut, and how many bytes it had in the file."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            yield self._finish(1)
            start = end + 1
        self._append(data[start:])

    def flush(self) -> Iterator[tuple[str, bool, int]]:
        """The last line, where the file ends without a line break."""
        if self.pending_bytes:
            yield self._finish(0)

    def _append(self, data: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._begun)
        self._begun += data[:room]
        self._skipped += max(0, len(data) - room)

    def _finish(self, break_bytes: int) -> tuple[str, bool, int]:
        text = bytes(self._begun).removesuffix(b"\r").decode("utf-8", "replace")
        found = (text, self._skipped > 0, self.pending_bytes + break_bytes)
        self._begun.clear()
        self._skipped = 0
        return found


class RateLimit:
    """A token bucket of bytes: a burst at once, then a steady rate; what is beyond is counted and left out."""

    def __init__(
        self, clock: Callable[[], float], *, rate_bytes: int = RATE_BYTES, burst_bytes: int = BURST_BYTES
    ) -> None:
        self._clock = clock
        self._rate_bytes = rate_bytes
        self._burst_bytes = burst_bytes
        self._tokens = float(burst_bytes)
        self._filled_at = clock()
        self.lost = 0
        """Lines left out since the last mark."""

    def admits(self, size_bytes: int) -> bool:
        """Whether a line of this size may pass; one that may not is counted."""
        now = self._clock()
        self._tokens = min(self._burst_bytes, self._tokens + (now - self._filled_at) * self._rate_bytes)
        self._filled_at = now
        if self._tokens < size_bytes:
            self.lost += 1
            return False
        self._tokens -= size_bytes
        return True

    def take_mark(self, cursor: str) -> LogRecord | None:
        """The record that says what was left out, once."""
        lost, self.lost = self.lost, 0
        return LogRecord(cursor=cursor, mark=LogMark.LOST, lost=lost) if lost else None
