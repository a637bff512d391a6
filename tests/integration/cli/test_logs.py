"""`wcp360 logs tail` against a real controller and a simulated node: lines as they stand, live, and out with Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.simulator.fleet import SimulatedFleet
from cli.exit_codes import ExitCode
from tests.integration.cli.conftest import Wcp360
from tests.integration.live import LiveController

ROOT = Path(__file__).resolve().parents[3]
ACCOUNT = ("accounts", "create", "--name", "alice", "--client-id", "Demo Ltd", "--package-id", "starter", "--wait")


@pytest.fixture
async def log(wcp360: Wcp360, fleet: SimulatedFleet, node: str) -> Path:
    """The access log of alice.example, on its node."""
    for words in (
        ("packages", "create", "--name", "starter"),
        ("clients", "create", "--name", "Demo Ltd", "--email", "demo@example.com"),
        ACCOUNT,
        ("sites", "create", "--account-id", "alice", "--domain", "alice.example", "--wait"),
    ):
        ended = await wcp360(*words)
        assert ended.status == 0, ended.err
    path = fleet.agents[0].workers.path_of("/var/log/wcp360/sites/alice/alice.example.access.log")
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"visit {number}\n" for number in range(1, 31)))
    return path


async def test_logs_tail_shows_the_last_lines_as_they_stand_and_nothing_a_terminal_obeys(
    wcp360: Wcp360, log: Path
) -> None:
    with log.open("ab") as file:
        file.write(b"evil \x1b]0;title\x07 [bold]not markup[/bold]\n")

    ended = await wcp360("logs", "tail", "alice.example", "-n", "3")

    assert ended.status == 0, ended.err
    assert ended.out.splitlines() == [
        "visit 29",
        "visit 30",
        "evil \\x1b]0;title\\x07 [bold]not markup[/bold]",
    ]


async def test_logs_tail_as_json_is_the_answer_and_goes_on_after_its_cursor(wcp360: Wcp360, log: Path) -> None:
    page = (await wcp360("logs", "tail", "alice.example", "--json")).json
    with log.open("a") as file:
        file.write("visit 31\n")
    later = await wcp360("logs", "tail", "alice.example", "--after", page["cursor"])
    generated = (await wcp360("sites", "read-log", "alice.example", "access", "--lines", "1", "--json")).json

    assert [item["line"] for item in page["items"]] == [f"visit {number}" for number in range(21, 31)]
    assert later.out.splitlines() == ["visit 31"]
    assert generated["items"][0]["line"] == "visit 31"


async def test_logs_tail_when_it_cannot_be_ends_with_the_status_of_its_reason(
    wcp360: Wcp360, fleet: SimulatedFleet, log: Path
) -> None:
    fleet.agents[0].host.state.paths.pop("/var/log/wcp360/sites/alice/alice.example.error.log")

    unknown = await wcp360("logs", "tail", "nobody.example")
    missing = await wcp360("logs", "tail", "alice.example", "--error")
    too_many = await wcp360("logs", "tail", "alice.example", "--lines", "1001")
    bad_cursor = await wcp360("logs", "tail", "alice.example", "--after", "yesterday", "--follow")

    assert (unknown.status, missing.status) == (ExitCode.NOT_FOUND, ExitCode.NOT_FOUND)
    assert "no such log" in missing.err
    assert (too_many.status, bad_cursor.status) == (ExitCode.USAGE, ExitCode.INVALID_INPUT)


class Follower:
    """`wcp360` as a process of its own, the way a person starts it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return [(await self.process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]

    async def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(self.process.communicate(), 30)
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


async def follow(live: LiveController, *words: str) -> Follower:
    environment = {
        **os.environ,
        "WCP360_CONTROLLER": live.api_url,
        "WCP360_CA_FILE": str(live.ca_file),
        "WCP360_TOKEN": live.admin_token,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, cwd=ROOT, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return Follower(process)


def rotate(log: Path, text: str) -> None:
    log.rename(log.with_name(log.name + ".1"))
    log.write_text(text)


async def test_logs_tail_when_followed_shows_lines_until_it_is_stopped(
    live_controller: LiveController, fleet: SimulatedFleet, log: Path
) -> None:
    follower = await follow(live_controller, "logs", "tail", "alice.example", "--follow", "-n", "2")

    first = await follower.lines(2)
    with log.open("a") as file:
        file.write("visit 31\n")
    second = await follower.lines(1)
    rotate(log, "visit 32\n")
    third = await follower.lines(2)
    status, err = await follower.interrupt()

    assert (first, second) == (["visit 29", "visit 30"], ["visit 31"])
    assert third == ["--- a new file was begun ---", "visit 32"]
    assert (status, err) == (ExitCode.INTERRUPTED, "Stopped.\n")


async def test_generated_command_when_told_to_follow_writes_one_object_a_line(
    live_controller: LiveController, log: Path
) -> None:
    words = ("sites", "read-log", "alice.example", "access", "--follow", "--lines", "1", "--json")
    follower = await follow(live_controller, *words)

    (line,) = await follower.lines(1)
    await follower.interrupt()
    record: dict[str, Any] = json.loads(line)

    assert record["line"] == "visit 30"


async def test_logs_tail_when_the_node_goes_away_says_how_to_go_on(
    live_controller: LiveController, fleet: SimulatedFleet, log: Path
) -> None:
    follower = await follow(live_controller, "logs", "tail", "alice.example", "--follow", "-n", "1")
    await follower.lines(1)

    for session in list(live_controller.controller.fleet.gateway._sessions.values()):
        await session._close(1012, "test")
    _, err = await asyncio.wait_for(follower.process.communicate(), 30)

    assert follower.process.returncode == ExitCode.UNAVAILABLE
    assert f"Go on with --after {inode_of(log)}:" in err.decode()


def inode_of(path: Path) -> int:
    return path.stat().st_ino
