"""When to dial again: full jitter from one second to five minutes, for ever.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter"): it spreads a fleet that lost
its controller all at once better than a fixed or a merely randomised step.
"""

from __future__ import annotations

from typing import Final

import msgspec

FIRST_CEILING_SECONDS: Final = 1.0
LAST_CEILING_SECONDS: Final = 300.0
FLOOR_SECONDS: Final = 0.1
"""Jitter may draw zero; nobody may dial in a tight loop."""
HEALTHY_SECONDS: Final = 60.0
"""A session that held this long proves that the way is good, so the next wait starts small again."""
WELCOME_FAILURES: Final = 3
"""Counted at most after a session that was welcome and short: the way is open, so a controller that was started twice
within a minute has its fleet back in seconds."""
REVOKED_SECONDS: Final = 900.0
"""A revoked node asks rarely: only an administrator can change the answer."""
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""What a controller may ask for; a wrong number there must not switch a node off for a year."""
_SPREAD: Final = 0.2


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts in a row have failed."""

    failures: int = 0

    @property
    def ceiling_seconds(self) -> float:
        """The longest that the next wait can be."""
        # 2**9 is past the last ceiling already; without the bound a node that is cut off for months would overflow.
        return min(LAST_CEILING_SECONDS, FIRST_CEILING_SECONDS * 2.0 ** min(self.failures, 16))

    def delay_seconds(self, chance: float) -> float:
        """How long to wait now. `chance` is uniform in [0, 1)."""
        return max(FLOOR_SECONDS, chance * self.ceiling_seconds)

    def after_session(self, healthy_seconds: float) -> Backoff:
        """The state after an attempt that was welcome for this long (0: it never was)."""
        if healthy_seconds >= HEALTHY_SECONDS:
            return Backoff()
        if healthy_seconds > 0:
            return Backoff(failures=min(self.failures + 1, WELCOME_FAILURES))
        return Backoff(failures=self.failures + 1)


def spread_window_seconds(window_seconds: float, chance: float) -> float:
    """A random moment within the window that a leaving controller named."""
    return max(FLOOR_SECONDS, min(window_seconds, MAX_RETRY_AFTER_SECONDS) * chance)


def spread_retry_after_seconds(retry_after_seconds: float, chance: float) -> float:
    """At least what the controller asked for, and up to a fifth more so that not all come at once."""
    bounded = min(max(retry_after_seconds, FLOOR_SECONDS), MAX_RETRY_AFTER_SECONDS)
    return bounded * (1.0 + _SPREAD * chance)


def spread_interval_seconds(interval_seconds: float, chance: float) -> float:
    """A period with +-20 %, at least a second: what repeats must not fall into step across a fleet."""
    return max(1.0, interval_seconds * (1.0 - _SPREAD + 2 * _SPREAD * chance))
