from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from cli.__main__ import main
from cli.events import DEFAULT_TOPICS, print_notice
from cli.exit_codes import ExitCode
from cli.render import open_console

NOTICE = {
    "topic": "jobs",
    "event": "job.failed",
    "data": {"label": "[x] alice", "state": "failed", "error": {"message": "no"}},
}


@contextmanager
def serving(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(timeout=10)


class FakeController:
    """Says what the real one says, and remembers what it was told."""

    def __init__(self, *messages: Any, close_code: int = 1000) -> None:
        self._messages = messages
        self._close_code = close_code
        self.subscribed: list[str] = []
        self.token = self.path = ""

    def __call__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.token = connection.request.headers.get("Authorization", "")
        self.path = connection.request.path
        connection.send(json.dumps({"event": "ready", "topics": [], "message": ""}))
        self.subscribed = json.loads(connection.recv())["subscribe"]
        for message in self._messages:
            connection.send(json.dumps(message))
        connection.close(self._close_code, "because")


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(controller: FakeController, *words: str) -> tuple[int, str, str]:
        with serving(controller) as address:
            monkeypatch.setenv("WCP360_CONTROLLER", address)
            monkeypatch.setenv("WCP360_TOKEN", "wcp_token")
            status = int(main(["events", *words]))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_events_when_count_is_reached_end(follow: Callable[..., tuple[int, str, str]]) -> None:
    controller = FakeController({"event": "heartbeat"}, NOTICE, NOTICE)

    status, out, err = follow(controller, "--count", "1")

    assert (status, err) == (0, "")
    assert out == "jobs     job.failed               [x] alice  failed  no\n"
    assert (controller.path, controller.token) == ("/api/v1/events", "Bearer wcp_token")
    assert controller.subscribed == list(DEFAULT_TOPICS)


def test_events_when_for_programs_are_one_object_a_line(follow: Callable[..., tuple[int, str, str]]) -> None:
    controller = FakeController(NOTICE, NOTICE)

    status, out, _ = follow(controller, "jobs", "--count", "2", "--json")

    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [NOTICE, NOTICE]
    assert controller.subscribed == ["jobs"]


@pytest.mark.parametrize(
    ("close_code", "expected"),
    [
        (4401, ExitCode.NOT_ALLOWED),
        (4403, ExitCode.NOT_ALLOWED),
        (4429, ExitCode.UNAVAILABLE),
        (1000, ExitCode.UNAVAILABLE),
    ],
)
def test_events_when_controller_ends_them_say_why(
    follow: Callable[..., tuple[int, str, str]], close_code: int, expected: ExitCode
) -> None:
    status, out, err = follow(FakeController(close_code=close_code))

    assert (status, out) == (expected, "")
    assert err.startswith("Error: ")
    assert "because" in err or close_code == 1000


def test_events_when_nobody_listens_are_unavailable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WCP360_CONTROLLER", "http://127.0.0.1:9")

    assert main(["events"]) == ExitCode.UNAVAILABLE
    assert "cannot be reached" in capsys.readouterr().err


def test_events_when_topic_is_unknown_list_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "weather"]) == ExitCode.USAGE
    assert "'jobs'" in capsys.readouterr().err


def test_notice_when_it_holds_escape_sequences_is_harmless() -> None:
    file = io.StringIO()
    print_notice(open_console(file), {"topic": "\x1b[2J", "event": "\x1b", "data": {"name": "\x9b", "state": "\r"}})

    assert not set(file.getvalue()) & {"\x1b", "\x9b", "\r"}
