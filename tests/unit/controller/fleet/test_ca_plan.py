"""The phases of a change of the authority: who issues what, and what holds the next phase up."""

from __future__ import annotations

from typing import Any

import pytest

from controller.fleet.identity.ca_models import CaPhase, CaRotation
from controller.fleet.identity.ca_plan import FINAL, NEXT, REVERSIBLE, NodeStanding, arrangement_of, find_obstacle


def rotation(phase: CaPhase) -> CaRotation:
    return CaRotation(phase=phase, old_ca="ca", new_ca="next", bundle_version=7)


def standing(**options: Any) -> NodeStanding:
    values: dict[str, Any] = {
        "node_id": "n",
        "name": "web1",
        "is_connected": True,
        "capability": 2,
        "bundle_version": 7,
        "issuer": "ca",
    }
    return NodeStanding(**(values | options))


@pytest.mark.parametrize(
    ("phase", "trusted", "issuer", "server_issuer"),
    [
        (CaPhase.INIT, ("ca", "next"), "ca", "ca"),
        (CaPhase.UPDATE_CLIENTS, ("ca", "next"), "next", "ca"),
        (CaPhase.UPDATE_SERVERS, ("ca", "next"), "next", "next"),
        (CaPhase.ROLLBACK, ("ca", "next"), "ca", "ca"),
        (CaPhase.DONE, ("next",), "next", "next"),
        (CaPhase.ROLLED_BACK, ("ca",), "ca", "ca"),
    ],
)
def test_arrangement_in_each_phase_is_this(
    phase: CaPhase, trusted: tuple[str, ...], issuer: str, server_issuer: str
) -> None:
    made = arrangement_of(rotation(phase))

    assert (made.trusted, made.issuer, made.server_issuer) == (trusted, issuer, server_issuer)


def test_phases_that_can_be_left_are_those_that_are_not_final() -> None:
    assert set(NEXT) == set(CaPhase) - FINAL
    assert set(CaPhase) >= REVERSIBLE


@pytest.mark.parametrize(
    ("phase", "options", "words"),
    [
        (CaPhase.INIT, {}, ""),
        (CaPhase.INIT, {"bundle_version": 6}, "trust bundle 6, not 7"),
        (CaPhase.INIT, {"bundle_version": 6, "is_connected": False}, "not connected"),
        (CaPhase.INIT, {"capability": 1}, "too old"),
        (CaPhase.UPDATE_CLIENTS, {}, "authority ca, not of next"),
        (CaPhase.UPDATE_CLIENTS, {"issuer": "next"}, ""),
        (CaPhase.UPDATE_SERVERS, {"issuer": "next"}, ""),
        (CaPhase.UPDATE_SERVERS, {"issuer": "next", "bundle_version": 6}, "trust bundle 6"),
        (CaPhase.ROLLBACK, {"issuer": "next"}, "authority next, not of ca"),
        (CaPhase.ROLLBACK, {"bundle_version": 6}, ""),
    ],
)
def test_obstacle_of_a_node_says_what_it_lacks(phase: CaPhase, options: dict[str, Any], words: str) -> None:
    found = find_obstacle(rotation(phase), standing(**options))

    assert words in found
    assert bool(found) == bool(words)
