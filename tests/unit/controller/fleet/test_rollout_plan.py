"""Waves and what a rollout does next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.fleet.rollouts.models import RolloutNodeState as S
from controller.fleet.rollouts.plan import (
    DEFAULT_WAVES,
    Progress,
    Standing,
    Verdict,
    assign_waves,
    judge_progress,
    parse_waves,
)
from shared.errors import InvalidInputError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def standing(state: S, *, wave: int = 0, name: str = "web1", is_connected: bool = True, note: str = "") -> Standing:
    return Standing(name=name, wave=wave, state=state, is_connected=is_connected, note=note)


def judge(
    *nodes: Standing, wave: int = 0, healthy_since: datetime | None = None, soak: int = 0, allowed: int = 0
) -> Verdict:
    progress = Progress(wave=wave, healthy_since=healthy_since, soak=timedelta(seconds=soak), failures_allowed=allowed)
    return judge_progress(nodes, progress, now=NOW)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), ("100%",)),
        (("1",), ("1", "100%")),
        (DEFAULT_WAVES, DEFAULT_WAVES),
        (("3", "50%"), ("3", "50%", "100%")),
    ],
)
def test_waves_when_parsed_reach_every_node(given: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert parse_waves(given) == kept


@pytest.mark.parametrize(
    "given", [("0",), ("5 %",), ("101%",), ("20%", "5%"), ("20%", "20%"), ("x",), ("-1",), ("1.5%",), ("1",) * 20]
)
def test_waves_when_they_make_no_sense_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_waves(given)
    assert caught.value.field == "waves"


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0, 0, 0, 0]), (1, [1, 0, 0, 0]), (3, [1, 0, 0, 2]), (20, [1, 0, 3, 16]), (1000, [1, 49, 150, 800])],
)
def test_waves_when_assigned_count_from_the_first_node(count: int, sizes: list[int]) -> None:
    places = assign_waves(DEFAULT_WAVES, count)

    assert [places.count(index) for index in range(4)] == sizes
    assert places == sorted(places)


def test_progress_when_the_canary_is_well_begins_the_next_wave() -> None:
    verdict = judge(standing(S.SUCCEEDED), standing(S.WAITING, wave=2, name="web2"))

    assert (verdict.wave, verdict.halt_reason, verdict.is_finished) == (2, "", False)


def test_progress_when_it_soaks_waits_for_the_rest_of_the_time() -> None:
    nodes = standing(S.SUCCEEDED), standing(S.WAITING, wave=1, name="web2")
    since = NOW - timedelta(seconds=40)

    assert judge(*nodes, soak=60).wave == 0
    early = judge(*nodes, soak=60, healthy_since=since)
    assert (early.wave, early.healthy_since) == (0, since)
    assert "20 s" in early.blocked_by
    assert judge(*nodes, soak=40, healthy_since=since).wave == 1


def test_progress_when_a_node_of_the_wave_goes_away_soaks_anew() -> None:
    nodes = standing(S.SUCCEEDED, is_connected=False), standing(S.WAITING, wave=1, name="web2")

    verdict = judge(*nodes, soak=60, healthy_since=NOW - timedelta(hours=1))

    assert (verdict.wave, verdict.healthy_since) == (0, None)
    assert "not connected since the change: web1" in verdict.blocked_by


def test_progress_when_one_fails_too_many_halts_and_says_which() -> None:
    nodes = standing(S.FAILED, note="went back"), standing(S.SUCCEEDED, name="web2"), standing(S.WAITING, wave=1)

    assert judge(*nodes, allowed=1).halt_reason == ""
    assert "web1: went back" in judge(*nodes).halt_reason


def test_progress_when_the_canary_is_away_does_not_go_on_without_one() -> None:
    nodes = standing(S.WAITING, note="not connected"), standing(S.WAITING, wave=1, name="web2")

    verdict = judge(*nodes)

    assert verdict.wave == 0
    assert "web1 (not connected)" in verdict.blocked_by


def test_progress_when_some_of_a_wave_are_away_goes_on_with_those_that_are_there() -> None:
    nodes = (
        standing(S.SUCCEEDED),
        standing(S.WAITING, name="web2", note="not connected"),
        standing(S.WAITING, wave=1, name="web3"),
    )

    assert judge(*nodes).wave == 1


def test_progress_when_every_node_of_a_wave_was_skipped_goes_on() -> None:
    assert judge(standing(S.SKIPPED), standing(S.WAITING, wave=1)).wave == 1


def test_progress_when_a_node_is_at_work_waits_for_it() -> None:
    verdict = judge(standing(S.SENT), standing(S.WAITING, wave=1))

    assert (verdict.wave, "at work: web1" in verdict.blocked_by) == (0, True)


def test_progress_when_only_absent_nodes_are_left_waits_for_them() -> None:
    verdict = judge(standing(S.SUCCEEDED), standing(S.WAITING, name="web2", note="not connected"))

    assert not verdict.is_finished
    assert "to come back: web2" in verdict.blocked_by


def test_progress_when_every_node_has_ended_is_finished() -> None:
    assert judge(standing(S.SUCCEEDED), standing(S.SKIPPED), standing(S.FAILED), allowed=1).is_finished
