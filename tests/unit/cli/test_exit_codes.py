from __future__ import annotations

import re
from pathlib import Path

from cli.app import EPILOG
from cli.exit_codes import ExitCode, exit_code_of_status

DOC = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_exit_codes_when_compared_with_the_manual_are_the_same() -> None:
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", DOC.read_text(), re.MULTILINE)}

    assert documented == {int(code) for code in ExitCode}


def test_exit_codes_when_shown_in_help_are_the_same() -> None:
    assert {int(number) for number in re.findall(r"\d+", EPILOG)} == {int(code) for code in ExitCode}


def test_exit_code_of_status_when_failed_is_never_success() -> None:
    assert all(exit_code_of_status(status) is not ExitCode.OK for status in range(300, 600))
