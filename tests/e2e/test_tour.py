"""The tour of docs/tour-admin.md, typed as it stands, against a real node."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.fleet import Fleet

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs/tour-admin.md"
MARK: Final = "#=> "
REFUSED: Final = "refused: "


@dataclass(frozen=True)
class Step:
    """One command of the page, and what its answer has to contain."""

    argv: tuple[str, ...]
    expected: str
    is_refused: bool


def read_steps(text: str) -> list[Step]:
    """Every command of the page's blocks, in order."""
    steps: list[Step] = []
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            if not line.startswith(MARK):
                steps.append(Step(tuple(shlex.split(line)), "", is_refused=False))
                continue
            words = line.removeprefix(MARK)
            expected = words.removeprefix(REFUSED)
            steps[-1] = Step(steps[-1].argv, expected, is_refused=words != expected)
    return steps


@pytest.fixture
def environment(fleet: Fleet, tmp_path: Path) -> dict[str, str]:
    """A command line that is signed in, and has no other's profile."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "WCP360_CONTROLLER": fleet.controller.url,
        "WCP360_TOKEN": str(fleet.api._http.headers["authorization"]).removeprefix("Bearer "),
        "WCP360_CA_FILE": str(fleet.controller.ca_file),
        "COLUMNS": "250",
    }


def test_tour_when_typed_as_it_stands_does_what_it_says(fleet: Fleet, environment: dict[str, str]) -> None:
    steps = read_steps(PAGE.read_text())
    wrong = []
    for step in steps:
        assert step.argv[0] == "wcp360"
        ended = subprocess.run(
            [sys.executable, "-m", "cli", *step.argv[1:]],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        answer = ended.stderr if step.is_refused else ended.stdout
        if (ended.returncode != 0) != step.is_refused or step.expected not in answer:
            wrong.append(f"{shlex.join(step.argv)}: {ended.returncode}\n{ended.stdout}{ended.stderr}")

    assert not wrong, "\n\n".join(wrong)
    assert len(steps) > 20
    account = fleet.api.find("accounts", "ada")
    assert account is not None and account["state"] == "active"
    node = next(name for name in fleet.hosts if fleet.node_id(name) == account["node_id"])
    assert fleet.get(node, "second.example").status_code == 200
