"""Numbers that more than one file of the fleet needs."""

from __future__ import annotations

from typing import Final

FAILURES_MAX: Final = 5
"""After so many wrong uses an enrolment token is worthless."""
