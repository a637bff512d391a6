from __future__ import annotations

from typing import Any

import pytest

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.waiting import FINAL_STATES, LAST_POLL_SECONDS, Patience, require_success, wait_for_jobs
from controller.jobs.states import FINAL


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now += seconds

    def patience(self, timeout_seconds: float) -> Patience:
        return Patience(timeout_seconds, self.sleep, lambda: self.now)


class FakeJobs:
    """Each job goes through its states, one a look; an ExitCode in their place is a failed request."""

    def __init__(self, **states: list[str | ExitCode]) -> None:
        self._states = states
        self.looks = 0

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        self.looks += 1
        job_id = path.removeprefix("/api/v1/jobs/")
        left = self._states[job_id]
        state = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(state, ExitCode):
            raise CommandFailedError("no", exit_code=state)
        error = {"code": "config_test_failed", "message": "nginx says no"} if state == "failed" else None
        return {"id": job_id, "label": "[red]Account[/red]", "state": state, "error": error, "progress": None}


def test_final_states_when_compared_are_the_controllers() -> None:
    assert {state.value for state in FINAL} == FINAL_STATES


def test_wait_when_jobs_end_returns_them_in_order() -> None:
    jobs = FakeJobs(a=["queued", "running", "succeeded"], b=["superseded"])

    ended = wait_for_jobs(jobs, ["a", "b"], FakeTime().patience(60))

    assert [(job["id"], job["state"]) for job in ended] == [("a", "succeeded"), ("b", "superseded")]
    assert jobs.looks == 4  # a job that has ended is not looked at again


@pytest.mark.parametrize("state", sorted(FINAL_STATES - {"succeeded", "superseded"}))
def test_wait_when_job_did_not_succeed_fails(state: str) -> None:
    with pytest.raises(CommandFailedError) as raised:
        require_success(wait_for_jobs(FakeJobs(a=[state]), ["a"], FakeTime().patience(60)))

    assert raised.value.exit_code is ExitCode.JOB_FAILED
    assert state in raised.value.message


def test_wait_when_job_failed_tells_the_nodes_reason() -> None:
    with pytest.raises(CommandFailedError, match="nginx says no") as raised:
        require_success(wait_for_jobs(FakeJobs(a=["failed"]), ["a"], FakeTime().patience(60)))

    assert raised.value.problem is not None
    assert raised.value.problem["code"] == "config_test_failed"
    assert raised.value.hint == "`wcp360 jobs show a` explains it step by step."


def test_wait_when_time_is_over_says_that_the_job_goes_on() -> None:
    time = FakeTime()

    with pytest.raises(CommandFailedError, match="not ended after 10 s; it goes on") as raised:
        wait_for_jobs(FakeJobs(a=["succeeded"], b=["running"]), ["a", "b"], time.patience(10))

    assert raised.value.exit_code is ExitCode.WAIT_TIMEOUT
    assert "jobs show b" in (raised.value.hint or "")
    assert time.now == pytest.approx(10)


def test_wait_when_it_takes_long_asks_less_often() -> None:
    time = FakeTime()

    with pytest.raises(CommandFailedError):
        wait_for_jobs(FakeJobs(a=["running"]), ["a"], time.patience(100))

    assert time.sleeps[0] < time.sleeps[1] < LAST_POLL_SECONDS
    assert max(time.sleeps) == LAST_POLL_SECONDS


def test_wait_when_controller_is_away_for_a_while_goes_on() -> None:
    jobs = FakeJobs(a=["running", ExitCode.UNAVAILABLE, ExitCode.UNAVAILABLE, "succeeded"])

    assert wait_for_jobs(jobs, ["a"], FakeTime().patience(60))[0]["state"] == "succeeded"


def test_wait_when_signed_out_meanwhile_fails_at_once() -> None:
    with pytest.raises(CommandFailedError) as raised:
        wait_for_jobs(FakeJobs(a=[ExitCode.NOT_ALLOWED]), ["a"], FakeTime().patience(60))

    assert raised.value.exit_code is ExitCode.NOT_ALLOWED


def test_wait_when_stopped_says_that_the_job_goes_on() -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(CommandFailedError) as raised:
        wait_for_jobs(FakeJobs(a=["succeeded"], b=["running"]), ["a", "b"], Patience(60, stop, lambda: 0.0))

    assert (raised.value.exit_code, raised.value.message) == (ExitCode.INTERRUPTED, "stopped waiting; the job goes on")
    assert "wcp360 jobs show b" in (raised.value.hint or "")


def test_wait_when_some_of_many_fail_says_how_many() -> None:
    jobs = FakeJobs(a=["succeeded"], b=["failed"], c=["expired"])
    ended = wait_for_jobs(jobs, ["a", "b", "c"], FakeTime().patience(60))
    with pytest.raises(CommandFailedError) as raised:
        require_success(ended)

    assert raised.value.message.startswith("2 of 3 jobs did not succeed; the first: ")
