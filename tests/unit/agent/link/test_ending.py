"""What the end of a session means for the next attempt."""

from __future__ import annotations

import pytest

from agent.link.backoff import Backoff
from agent.link.ending import EndKind, SessionEnd, end_of_close, next_delay_seconds

TIRED = Backoff(failures=20)


def test_delay_when_fatal_is_none() -> None:
    assert next_delay_seconds(SessionEnd(EndKind.FATAL, "no", 5.0), Backoff(), 0.5) is None


def test_delay_when_drained_is_within_the_window_however_often_it_failed() -> None:
    assert next_delay_seconds(SessionEnd(EndKind.DRAINED, "bye", 60.0), TIRED, 0.5) == 30.0


def test_delay_when_revoked_is_long() -> None:
    assert next_delay_seconds(SessionEnd(EndKind.REVOKED, "no"), Backoff(), 0.0) == 900.0


def test_delay_when_refused_is_what_the_controller_asked_or_the_backoff_whichever_is_longer() -> None:
    end = SessionEnd(EndKind.REFUSED, "busy", 10.0)

    assert next_delay_seconds(end, Backoff(), 0.0) == 10.0
    assert next_delay_seconds(end, TIRED, 0.9) == 270.0


def test_delay_when_lost_is_the_backoff() -> None:
    assert next_delay_seconds(SessionEnd(EndKind.LOST, "gone"), TIRED, 0.5) == 150.0


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [
        (1000, EndKind.LOST, None),
        (1006, EndKind.LOST, None),
        (1012, EndKind.LOST, None),
        (4001, EndKind.LOST, 30.0),
        (4409, EndKind.LOST, 30.0),
        (4403, EndKind.REVOKED, None),
    ],
)
def test_close_code_says_what_happened(code: int, kind: EndKind, after: float | None) -> None:
    end = end_of_close(code, "why", 100.0)

    assert (end.kind, end.after_seconds) == (kind, after)


def test_superseded_session_does_not_count_as_healthy() -> None:
    assert end_of_close(4001, "", 1e6).healthy_seconds == 0.0


@pytest.mark.parametrize(("kind", "expected"), [(kind, kind in (EndKind.REVOKED, EndKind.FATAL)) for kind in EndKind])
def test_dismissal_is_only_when_the_controller_sends_us_away(kind: EndKind, expected: bool) -> None:
    assert SessionEnd(kind, "").is_dismissal is expected
