from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.__main__ import main
from tests.unit.cli.fake_api import CONTROLLER, FakeApi


@dataclass(frozen=True)
class Ended:
    """How one command line ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the developer's profiles, variables or terminal."""
    for name in [item for item in os.environ if item.startswith(("WCP360_", "XDG_", "_WCP360"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    return tmp_path


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def run(api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the fake API, signed in."""
    monkeypatch.setenv("WCP360_CONTROLLER", CONTROLLER)
    monkeypatch.setenv("WCP360_TOKEN", "wcp_test-token-1234567890")

    def call(*words: str) -> Ended:
        capsys.readouterr()
        status = main(list(words), transport=api.transport)
        captured = capsys.readouterr()
        return Ended(int(status), captured.out, captured.err)

    return call
