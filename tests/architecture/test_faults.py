"""docs/faults.md lists every fault with a test that exists, and every test of a fault is listed."""

from __future__ import annotations

import pytest

from tests.faults.table import DOCUMENT, NUMBERS, find_tests, read_rows, render_tests

ROWS = dict(read_rows(DOCUMENT.read_text()))
TESTS = find_tests()


def test_faults_when_listed_are_all_of_them_in_order() -> None:
    assert list(ROWS) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_fault_when_listed_names_the_tests_that_prove_it(number: int) -> None:
    assert TESTS[number], f"no test is named test_fault_{number:02}_..."
    assert ROWS[number][-1] == render_tests(TESTS[number]), "run python -m tests.faults.table"


@pytest.mark.parametrize("number", NUMBERS)
def test_fault_when_listed_says_how_it_was_made_and_how_it_ended(number: int) -> None:
    _fault, must_hold, injected, result, _tests = ROWS[number]

    assert must_hold
    assert injected not in ("", "open")
    assert result.startswith("held"), "held, or held with a limit that is named"
