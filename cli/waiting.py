"""--wait: follow the jobs of a change until they end, with live progress on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.names import Requester
from cli.text import visible

JOB_PATH = "/api/v1/jobs/{}"
FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 2.0
"""A long wait asks less often: hundreds of jobs of one package must not become a load of their own."""
POLL_GROWTH = 1.3
SUCCESS_STATES = frozenset({"succeeded", "superseded"})
FINAL_STATES = SUCCESS_STATES | {
    "failed",
    "refused",
    "expired",
    "cancelled",
    "indeterminate",
    "stuck",
    "discarded",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how time passes (tests bring their own)."""

    timeout_seconds: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def wait_for_jobs(client: Requester, job_ids: Sequence[str], patience: Patience) -> list[dict[str, Any]]:
    """Return the jobs as they ended, well or not. A controller that is out of reach for a while does not end the wait.

    Raises:
        CommandFailedError: WAIT_TIMEOUT when they did not end in time.
    """
    ended: dict[str, dict[str, Any]] = {}
    try:
        _follow(client, job_ids, ended, patience)
    except KeyboardInterrupt:
        raise _stopped(next((item for item in job_ids if item not in ended), job_ids[-1])) from None
    return [ended[job_id] for job_id in job_ids]


def require_success(jobs: Sequence[dict[str, Any]]) -> None:
    """Pass when every job that has ended did what it was asked for.

    Raises:
        CommandFailedError: JOB_FAILED, with the first one's reason.
    """
    failed = list_failed(jobs)
    if not failed:
        return
    job = failed[0]
    error = job.get("error") or {}
    words = f"{job.get('label') or 'the job'} {job['state']}: {error.get('message') or 'no reason was given'}"
    raise CommandFailedError(
        words if len(jobs) == 1 else f"{len(failed)} of {len(jobs)} jobs did not succeed; the first: {words}",
        exit_code=ExitCode.JOB_FAILED,
        hint=error.get("hint") or f"`wcp360 jobs show {job['id']}` explains it step by step.",
        problem={"code": error.get("code") or job["state"], "detail": error.get("message"), "job": job},
    )


def list_failed(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that ended without doing what they were asked for."""
    return [job for job in jobs if job.get("state") in FINAL_STATES - SUCCESS_STATES]


def _follow(client: Requester, job_ids: Sequence[str], ended: dict[str, dict[str, Any]], patience: Patience) -> None:
    """Put each job into `ended` once it has."""
    deadline = patience.clock() + patience.timeout_seconds
    pause = FIRST_POLL_SECONDS
    with _progress(Console(stderr=True)) as progress:
        rows = {job_id: progress.add_task("waiting", total=None) for job_id in job_ids}
        while True:
            for job_id in [item for item in rows if item not in ended]:
                job = _look(client, job_id, progress, rows[job_id])
                if job is not None and job.get("is_final", job["state"] in FINAL_STATES):
                    ended[job_id] = job
            if len(ended) == len(rows):
                return
            left = deadline - patience.clock()
            if left <= 0:
                raise _timed_out(next(item for item in job_ids if item not in ended), patience.timeout_seconds)
            patience.sleep(min(pause, left))
            pause = min(pause * POLL_GROWTH, LAST_POLL_SECONDS)


def _look(client: Requester, job_id: str, progress: Progress, row: TaskID) -> dict[str, Any] | None:
    try:
        job: dict[str, Any] = client.request("GET", JOB_PATH.format(job_id))
    except CommandFailedError as error:
        if error.exit_code is not ExitCode.UNAVAILABLE:
            raise
        progress.update(row, description=f"waiting for the controller: {visible(error.message)}")
        return None
    _show(progress, row, job)
    return job


def _timed_out(job_id: str, timeout_seconds: float) -> CommandFailedError:
    return CommandFailedError(
        f"the job has not ended after {timeout_seconds:g} s; it goes on",
        exit_code=ExitCode.WAIT_TIMEOUT,
        hint=f"`wcp360 jobs show {job_id}` tells how it ended.",
        problem={"code": "wait_timeout", "detail": "the job has not ended in time; it goes on", "job_id": job_id},
    )


def _stopped(job_id: str) -> CommandFailedError:
    return CommandFailedError(
        "stopped waiting; the job goes on",
        exit_code=ExitCode.INTERRUPTED,
        hint=f"`wcp360 jobs show {job_id}` tells how it ended; `wcp360 jobs cancel` ends one that has not begun.",
        problem={"code": "interrupted", "detail": "stopped waiting; the job goes on", "job_id": job_id},
    )


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())


def _show(progress: Progress, row: TaskID, job: dict[str, Any]) -> None:
    step = job.get("progress") or {}
    words = " · ".join(part for part in (job.get("label", ""), job["state"], step.get("message", "")) if part)
    progress.update(row, description=visible(words), total=step.get("total") or None, completed=step.get("done") or 0)
