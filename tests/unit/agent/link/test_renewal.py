"""When a certificate is renewed, and what a failed renewal means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.link.backoff import REVOKED_SECONDS
from agent.link.certificate import Validity
from agent.link.ending import EndKind, SessionEnd
from agent.link.renewal import LOOK_SECONDS, end_of_failed_renewal, next_look_seconds, renewal_due_at
from shared.errors import ForbiddenError, UnavailableError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = Validity(BEGIN, BEGIN + timedelta(days=10))
EXPIRED = SessionEnd(EndKind.EXPIRED, "the node's certificate ended")


@pytest.mark.parametrize(("chance", "days"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_due_is_at_half_of_the_life_give_or_take_a_tenth(chance: float, days: float) -> None:
    assert renewal_due_at(WEEK, chance) == BEGIN + timedelta(days=days)


@pytest.mark.parametrize(
    ("until_due", "seconds"),
    [
        (timedelta(days=3), LOOK_SECONDS),
        (timedelta(minutes=10), 600.0),
        (timedelta(milliseconds=1), 1.0),
        (timedelta(0), LOOK_SECONDS),
        (timedelta(days=-3), LOOK_SECONDS),
    ],
)
def test_next_look_is_within_the_hour_and_when_it_is_due(until_due: timedelta, seconds: float) -> None:
    assert next_look_seconds(BEGIN + until_due, BEGIN, 0.5) == seconds


def test_next_look_when_due_has_jitter() -> None:
    waits = [next_look_seconds(BEGIN, BEGIN, chance) for chance in (0.0, 1.0)]

    assert waits == pytest.approx([LOOK_SECONDS * 0.8, LOOK_SECONDS * 1.2])


@pytest.mark.parametrize("code", ["revoked", "certificate_unknown"])
def test_failure_when_the_node_is_not_wanted_is_a_dismissal(code: str) -> None:
    end = end_of_failed_renewal(EXPIRED, ForbiddenError("no", context={"code": code}))

    assert end.is_dismissal
    assert end.message == "the node's certificate ended, and it could not be renewed: no"


def test_failure_when_too_late_is_asked_rarely_and_says_what_to_do() -> None:
    error = ForbiddenError("too long ago", context={"code": "certificate_expired"}, hint="Enrol it anew.")

    end = end_of_failed_renewal(EXPIRED, error)

    assert (end.kind, end.after_seconds) == (EndKind.EXPIRED, REVOKED_SECONDS)
    assert end.message.endswith("too long ago (Enrol it anew.)")


@pytest.mark.parametrize("error", [UnavailableError("nobody answers"), OSError("disk full")])
def test_failure_that_passes_by_itself_is_tried_again_by_the_backoff(error: Exception) -> None:
    end = end_of_failed_renewal(EXPIRED, error)

    assert (end.kind, end.after_seconds) == (EndKind.EXPIRED, None)
