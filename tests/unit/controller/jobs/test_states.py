"""The state machine, arrow by arrow."""

from __future__ import annotations

import itertools

import pytest

from controller.jobs.states import (
    FINAL,
    IN_LANE,
    NEEDS_ATTENTION,
    PRESUMED,
    TRANSITIONS,
    UNFINISHED,
    JobState,
    is_allowed,
    sources_of,
)

# Written out a second time on purpose: a change of the machine has to be made here too, by somebody who means it.
ALLOWED = {
    "requested": "queued superseded cancelled expired discarded",
    "queued": "offered superseded cancelled expired discarded",
    "offered": "offered accepted running stuck expired requested succeeded failed cancelled refused indeterminate",
    "accepted": "running requested succeeded failed cancelled refused indeterminate",
    "running": "requested succeeded failed cancelled refused indeterminate",
    "succeeded": "",
    "failed": "discarded",
    "refused": "discarded",
    "cancelled": "",
    "superseded": "",
    "discarded": "",
    "expired": "discarded accepted running succeeded failed cancelled refused indeterminate",
    "stuck": "discarded accepted running succeeded failed cancelled refused indeterminate",
    "indeterminate": "discarded succeeded failed cancelled refused",
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_is_allowed_each_pair_matches_the_table(before: JobState, after: JobState) -> None:
    assert is_allowed(before, after) == (after.value in ALLOWED[before.value].split())


def test_transitions_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_final_states_are_left_only_by_people_or_by_the_nodes_own_word() -> None:
    for state in FINAL - PRESUMED:
        assert TRANSITIONS[state] <= {JobState.DISCARDED}


def test_every_unfinished_state_can_reach_an_end() -> None:
    for state in UNFINISHED:
        assert TRANSITIONS[state] & FINAL


def test_expired_comes_only_from_what_no_node_confirmed() -> None:
    assert sources_of(JobState.EXPIRED) == {JobState.REQUESTED, JobState.QUEUED, JobState.OFFERED}


def test_superseded_comes_only_from_what_no_node_knows() -> None:
    assert sources_of(JobState.SUPERSEDED) == {JobState.REQUESTED, JobState.QUEUED}


def test_sets_of_states_fit_together() -> None:
    assert set(JobState) == UNFINISHED | FINAL
    assert not UNFINISHED & FINAL
    assert IN_LANE < UNFINISHED
    assert PRESUMED < NEEDS_ATTENTION < FINAL
