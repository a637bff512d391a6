from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.system import runner
from agent.system.runner import run
from shared.errors import CommandError


async def test_run_when_program_succeeds_returns_what_it_said() -> None:
    completed = await run(("sh", "-c", "cat; echo err >&2"), timeout_seconds=10, stdin=b"hello")

    assert (completed.exit_code, completed.stdout, completed.stderr) == (0, "hello", "err\n")


async def test_run_when_our_environment_has_secrets_passes_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_TOKEN", "secret")

    completed = await run(("env",), timeout_seconds=10, environment={"EXTRA": "1"})

    names = {line.partition("=")[0] for line in completed.stdout.splitlines()}
    assert names == {*runner.ENVIRONMENT, "EXTRA"}


async def test_run_when_program_fails_raises_with_the_end_of_its_words() -> None:
    with pytest.raises(CommandError) as caught:
        await run(("sh", "-c", "echo first >&2; echo last >&2; exit 3"), timeout_seconds=10)

    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "first\nlast")
    assert "last" in caught.value.message


async def test_run_when_program_is_missing_says_so() -> None:
    with pytest.raises(CommandError) as caught:
        await run(("no-such-program",), timeout_seconds=10)

    assert caught.value.exit_code == 127
    assert "not installed" in (caught.value.hint or "")


async def test_run_when_time_is_up_kills_the_program_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    with pytest.raises(CommandError) as caught:
        await run(("sh", "-c", f"sleep 300 & echo $! > {pid_file}; wait"), timeout_seconds=1)

    assert caught.value.exit_code == 124
    assert is_gone(int(pid_file.read_text()))


def is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


async def test_run_when_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(run(("sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"), timeout_seconds=60))
    async with asyncio.timeout(10):
        while not (pid_file.exists() and pid_file.read_text().strip()):  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_gone(int(pid_file.read_text()))


async def test_run_when_output_is_endless_keeps_a_capped_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_OUTPUT_BYTES", 1000)

    completed = await run(("head", "--bytes=300000", "/dev/zero"), timeout_seconds=10)

    assert len(completed.stdout) == 1000


def test_guess_cause_when_a_signal_ended_it_names_the_signal() -> None:
    assert runner.guess_cause(-9, "x") == "x was ended by SIGKILL"
    assert runner.guess_cause(1, "x") is None


def test_resolve_program_when_path_is_ours_ignores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "only-in-our-path"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(CommandError):
        runner.resolve_program("only-in-our-path")
