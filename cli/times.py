"""Moments as people write them: +2h, -30m, 2027-01-31, or a whole timestamp. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RELATIVE = re.compile(r"([+-])([0-9]{1,6})([smhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
EXAMPLES = "+2h, -7d, 2027-01-31 or 2027-01-31T12:00:00Z"


def parse_moment(text: str, now: datetime) -> str:
    """A timestamp in UTC; a date is its beginning, what is neither passes as it is, and the server judges it.

    Args:
        text: `+` is from now on, `-` before now; s, m, h, d and w are seconds, minutes, hours, days and weeks.
        now: With its zone.

    Raises:
        ValueError: It is farther away than there are years.
    """
    if _DATE.fullmatch(text):
        return f"{text}T00:00:00Z"
    found = _RELATIVE.fullmatch(text)
    if found is None:
        return text
    seconds = int(found.group(2)) * _SECONDS[found.group(3)]
    try:
        moment = now + timedelta(seconds=seconds if found.group(1) == "+" else -seconds)
    except OverflowError:
        raise ValueError(f"{text!r} is too far away") from None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
