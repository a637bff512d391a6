"""--wait: follow the jobs of a change until they end, with live progress on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.names import Requester

JOB_PATH = "/api/v1/jobs/{}"
POLL_SECONDS = 0.25
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


def wait_for_jobs(
    client: Requester,
    job_ids: Sequence[str],
    *,
    timeout_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Return the jobs as they ended.

    Raises:
        CommandFailedError: WAIT_TIMEOUT when they did not end in time, JOB_FAILED when one did not succeed.
    """
    console = Console(stderr=True)
    deadline = clock() + timeout_seconds
    with _progress(console) as progress:
        rows = {job_id: progress.add_task("waiting", total=None) for job_id in job_ids}
        jobs: dict[str, dict[str, Any]] = {}
        while len(jobs) < len(rows):
            for job_id in [item for item in rows if item not in jobs]:
                job = client.request("GET", JOB_PATH.format(job_id))
                _show(progress, rows[job_id], job)
                if job["state"] in FINAL_STATES:
                    jobs[job_id] = job
            if len(jobs) < len(rows):
                if clock() > deadline:
                    raise CommandFailedError(
                        f"the job has not ended after {timeout_seconds:.0f} s; it goes on",
                        exit_code=ExitCode.WAIT_TIMEOUT,
                        hint=f"`wcp360 jobs show {job_ids[0]}` tells how it ended.",
                    )
                sleep(POLL_SECONDS)
    ended = [jobs[job_id] for job_id in job_ids]
    _require_success(ended)
    return ended


def _require_success(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        if job["state"] not in SUCCESS_STATES:
            error = job.get("error") or {}
            raise CommandFailedError(
                f"{job.get('label') or 'the job'} {job['state']}: {error.get('message', 'no reason was given')}",
                exit_code=ExitCode.JOB_FAILED,
                hint=error.get("hint") or f"`wcp360 jobs show {job['id']}` explains it step by step.",
                problem={"code": error.get("code", job["state"]), "detail": error.get("message"), "job": job},
            )


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())


def _show(progress: Progress, row: TaskID, job: dict[str, Any]) -> None:
    step = job.get("progress") or {}
    words = " · ".join(part for part in (job.get("label", ""), job["state"], step.get("message", "")) if part)
    progress.update(row, description=words, total=step.get("total") or None, completed=step.get("done") or 0)
