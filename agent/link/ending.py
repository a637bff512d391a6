"""How an attempt or a session ended, and when to try again. Pure."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from agent.link.backoff import (
    REVOKED_SECONDS,
    Backoff,
    spread_retry_after_seconds,
    spread_window_seconds,
)

SUPERSEDED_CODES: Final = frozenset((4001, 4409))
"""Another agent with our identity connected. Source: docs/architecture.md, gateway close codes."""
REVOKED_CODES: Final = frozenset((4403,))
SUPERSEDED_SECONDS: Final = 30.0


class EndKind(enum.Enum):
    """Why there is no session."""

    LOST = "lost"
    """The line or the controller went away, or never was there."""
    DISTRUST = "distrust"
    """The other side's certificate is of an authority that we do not know: an impostor, or we missed a change."""
    DRAINED = "drained"
    """The controller said goodbye and named a window."""
    REFUSED = "refused"
    """A reject that passes by itself."""
    EXPIRED = "expired"
    """Our certificate has ended."""
    REVOKED = "revoked"
    """The controller does not know us any more."""
    FATAL = "fatal"
    """The controller said not to try again."""


class SessionEnd(NamedTuple):
    """What the service needs to decide what comes next."""

    kind: EndKind
    message: str
    after_seconds: float | None = None
    """DRAINED: the window; else the wait that the controller asked for."""
    healthy_seconds: float = 0.0
    """How long the session was welcome."""

    @property
    def is_dismissal(self) -> bool:
        """The controller does not want this node: nothing that still waits may run for it."""
        return self.kind in (EndKind.REVOKED, EndKind.FATAL)


def next_delay_seconds(end: SessionEnd, backoff: Backoff, chance: float) -> float | None:
    """How long to wait before the next attempt; None: not by ourselves. `chance` is uniform in [0, 1)."""
    if end.kind is EndKind.FATAL:
        return None
    if end.kind is EndKind.DRAINED:
        return spread_window_seconds(end.after_seconds or 0.0, chance)
    if end.kind is EndKind.REVOKED:
        return spread_retry_after_seconds(end.after_seconds or REVOKED_SECONDS, chance)
    if end.after_seconds is not None:
        return max(spread_retry_after_seconds(end.after_seconds, chance), backoff.delay_seconds(chance))
    return backoff.delay_seconds(chance)


def end_of_close(code: int, reason: str, healthy_seconds: float) -> SessionEnd:
    """What a closed connection means."""
    if code in REVOKED_CODES:
        return SessionEnd(EndKind.REVOKED, reason or "revoked", None, healthy_seconds)
    if code in SUPERSEDED_CODES:
        # Healthy or not: two machines that take the session from each other must not do it every second.
        return SessionEnd(EndKind.LOST, "another agent uses this node's identity", SUPERSEDED_SECONDS, 0.0)
    return SessionEnd(EndKind.LOST, f"the connection ended (code {code})", None, healthy_seconds)
