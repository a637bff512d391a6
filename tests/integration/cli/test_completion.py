"""Completion as bash does it: the real script in a real bash, against a real socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.unit.cli.fake_api import TOKEN, FakeApi

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
eval "$(wcp360 completion bash)" || exit 9
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_wcp360_completion wcp360
printf '%s\\n' "${COMPREPLY[@]}"
"""
Complete = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def address(api: FakeApi) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = api.answer(
                httpx.Request("GET", f"http://{self.headers['host']}{self.path}", headers=dict(self.headers))
            )
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_words: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.fixture
def environment(tmp_path: Path, address: str) -> dict[str, str]:
    program = tmp_path / "bin" / "wcp360"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WCP360", "XDG_", "_WCP360"))}
    return {
        **kept,
        "PATH": f"{program.parent}:{kept['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "WCP360_CONTROLLER": address,
        "WCP360_TOKEN": TOKEN,
    }


@pytest.fixture
def complete(environment: dict[str, str]) -> Complete:
    """What bash offers for the last word of a line; the command itself must say nothing on standard error."""

    def call(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", SCRIPT, "bash", "wcp360", *words],
            env=environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["acc"], ["accounts"]),
        (["log"], ["login", "logout", "logs"]),
        (["accounts", "cr"], ["create"]),
        (["accounts", ""], ["create", "delete", "list", "show", "show-module", "update"]),
        (["packages", "create", "--mem"], ["--memory-bytes"]),
        (["packages", "create", "--level", ""], ["low", "high", "none"]),
        (["accounts", "update", "alice", "--dry"], ["--dry-run"]),
        (["completion", "z"], ["zsh"]),
        (["events", "jo"], ["jobs"]),
        (["nothing", "cr"], []),
    ],
)
def test_bash_when_tab_is_pressed_offers_words(complete: Complete, words: list[str], expected: list[str]) -> None:
    assert complete(*words) == expected


def test_bash_when_a_name_is_wanted_offers_names_quoted(complete: Complete, api: FakeApi) -> None:
    for name in ("alice", "alan", "bob"):
        api.add("accounts", name=name)
    api.add("packages", name="Demo Ltd")
    api.add("packages", name="$(reboot);x")

    assert complete("accounts", "show", "al") == ["alan", "alice"]
    assert complete("accounts", "create", "--package-id", "De") == [r"Demo\ Ltd"]
    assert complete("accounts", "create", "--package-id", "$") == [r"\$\(reboot\)\;x"]


def test_bash_when_controller_does_not_answer_offers_own_commands_silently(
    complete: Complete, environment: dict[str, str]
) -> None:
    environment["WCP360_CONTROLLER"] = "http://127.0.0.1:9"  # discard: nobody listens

    assert complete("lo") == ["login", "logout", "logs"]
    assert complete("accounts", "li") == []


def test_bash_when_no_controller_is_named_offers_own_commands_silently(
    complete: Complete, environment: dict[str, str]
) -> None:
    del environment["WCP360_CONTROLLER"]

    assert complete("pro") == ["profile"]
    assert complete("accounts", "li") == []


def test_bash_when_controller_goes_away_still_knows_the_verbs(complete: Complete, api: FakeApi) -> None:
    assert complete("accounts", "li") == ["list"]
    api.document = {"paths": {}}  # whoever asks again learns nothing

    assert complete("accounts", "li") == ["list"]


def test_bash_when_profiles_file_is_damaged_is_silent(
    complete: Complete, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["WCP360_CLI_CONFIG"] = str(tmp_path / "cli.json")
    (tmp_path / "cli.json").write_text("{")

    assert complete("--profile", "x") == []
    assert complete("accounts", "li") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_when_for_another_shell_prints_its_script(environment: dict[str, str], shell: str) -> None:
    done = subprocess.run(
        ["wcp360", "completion", shell], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert f"_WCP360_COMPLETE={shell}_complete" in done.stdout


def test_output_when_reader_has_seen_enough_is_no_error(environment: dict[str, str], api: FakeApi) -> None:
    for number in range(200):
        api.add("packages", name=f"package-{number}" + "x" * 1000)

    script = "set -o pipefail; wcp360 packages list --all --limit 200 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("name")
