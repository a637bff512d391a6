r"""What the lines of an access log say of traffic. Pure.

A line ends with three fields that nginx itself writes: when the request ended (seconds and milliseconds), the bytes of
the answer and those of the request, heads included. What a visitor sends stands before them, and nginx writes control
characters and quotes of it as \xXX, so it can neither end a line nor stand at its end.

Source: nginx, ngx_http_log_module ($msec, $bytes_sent, $request_length; escape=default).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

LINE_BYTES_MAX: Final = 1_000_000_000_000_000
"""One line that says more than that (a petabyte) is no line of nginx."""
TAIL_BYTES: Final = 128
"""No end of a line that is counted is longer."""
_TAIL: Final = re.compile(rb" (\d{1,12})\.(\d{3}) (\d{1,16}) (\d{1,16})\n")


def month_of(at: float) -> str:
    """The calendar month (UTC) of a time in seconds since the epoch, as 202611."""
    return time.strftime("%Y%m", time.gmtime(at))


def month_begins_at(month: str) -> float:
    """Seconds since the epoch of a month's first moment."""
    return datetime(int(month[:4]), int(month[4:]), 1, tzinfo=UTC).timestamp()


@dataclass(slots=True)
class Tally:
    """What some lines said."""

    bytes_of_month: dict[str, int] = field(default_factory=dict)
    until: float = 0.0
    """The latest time in them, in seconds since the epoch; 0: nothing was counted."""


class LineCounter:
    """Adds lines up, at one moment of the node's clock."""

    def __init__(self, now: float) -> None:
        """`now`: seconds since the epoch. Lines of this month and the one before count in their own months.

        Lines of any other time were written while the clock was wrong; they count in this month, for they were served.
        """
        self._now = now
        self._this = month_of(now)
        self._begins = month_begins_at(self._this)
        self.previous = month_of(self._begins - 1)
        self._previous_begins = month_begins_at(self.previous)

    @property
    def months(self) -> tuple[str, str]:
        """The month before this one, and this one."""
        return self.previous, self._this

    def count(self, data: bytes, floor: float) -> Tally:
        """Add up the whole lines in `data` whose time is after `floor` (seconds since the epoch; 0: all of them)."""
        this = previous = 0
        until = 0.0
        for whole, part, sent, received in _TAIL.findall(data):
            amount = int(sent) + int(received)
            at = int(whole) + int(part) / 1000
            if at <= floor or amount > LINE_BYTES_MAX:
                continue
            until = max(until, at)
            if self._previous_begins <= at < self._begins:
                previous += amount
            else:
                this += amount
        found = ((self.previous, previous), (self._this, this))
        tally = Tally({month: amount for month, amount in found if amount})
        tally.until = min(until, self._now)  # a clock that was ahead must not hide what comes
        return tally


def cut_lines(data: bytes, *, is_full: bool) -> int:
    """How many bytes of `data` can be counted now: up to the last line break.

    `is_full`: more follows in the file. A line that is longer than the piece is passed over but for its end.
    """
    end = data.rfind(b"\n") + 1
    if end == 0 and is_full:
        return max(0, len(data) - TAIL_BYTES)
    return end
