"""The explanation of a job."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from controller.jobs.explain import explain_job
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from shared.protocol.job import (
    ACTION_CONVERGE,
    ChangeKind,
    JobMode,
    JobResult,
    PlannedChange,
    ResourceOutcome,
    ResourceReport,
    Semantics,
)
from shared.protocol.job import JobState as NodeJobState

AT = datetime(2026, 11, 23, tzinfo=UTC)


def make_change(action: str, target: str, **options: object) -> PlannedChange:
    values = {"resource": "site/a.example", "kind": ChangeKind.CREATE, "reason": "it is missing"}
    return PlannedChange(action=action, target=target, **(values | options))  # type: ignore[arg-type]


def make_job(result: JobResult | None, **options: object) -> Job:
    values: dict[str, object] = {
        "id": "job",
        "node_id": "node",
        "action": ACTION_CONVERGE,
        "args": b"",
        "resource_key": "account/ada",
        "generation": 3,
        "mode": JobMode.APPLY,
        "semantics": Semantics.CONVERGE,
        "label": "ada: site",
        "actor": "user/7",
        "request_id": "request-9",
        "state": JobState.SUCCEEDED,
        "result": msgspec.msgpack.encode(result) if result else None,
    }
    return Job(**(values | options))


def test_explain_job_names_files_commands_reloads_and_the_way_back() -> None:
    result = JobResult(
        job_id="job",
        state=NodeJobState.SUCCEEDED,
        changes=(
            make_change("ensure_user", "ada", undo="remove the user"),
            make_change("write_file", "/etc/x.conf", undo="put the file back"),
            make_change("write_file", "/etc/x.conf", undo=""),
            make_change("remove_home", "/srv/accounts/old", is_irreversible=True),
        ),
        resources=(ResourceReport(key="site/a.example", outcome=ResourceOutcome.CHANGED),),
        reloads=("nginx.service",),
    )

    told = explain_job(make_job(result), [])

    assert told.asked_by == "user/7"
    assert told.request_id == "request-9"
    assert "account/ada" in told.rule
    assert "generation 3" in told.rule
    assert told.files == ("/etc/x.conf",)
    assert told.commands == ("ensure_user ada", "remove_home /srv/accounts/old")
    assert told.reloads == ("nginx.service",)
    assert told.undo[1:] == ("/etc/x.conf: put the file back", "ada: remove the user")
    assert told.irreversible == ("remove_home /srv/accounts/old",)
    assert told.resources[0].outcome == "changed"


def test_explain_job_without_a_result_tells_the_timeline_and_what_to_do() -> None:
    transitions = [
        JobTransition(job_id="job", at=AT, from_state=None, to_state=JobState.REQUESTED, note=""),
        JobTransition(job_id="job", at=AT, from_state=JobState.REQUESTED, to_state=JobState.EXPIRED, note="late"),
    ]

    told = explain_job(make_job(None, state=JobState.EXPIRED), transitions)

    assert [step.to_state for step in told.timeline] == [JobState.REQUESTED, JobState.EXPIRED]
    assert told.timeline[1].note == "late"
    assert "connected" in told.next_step
    assert told.changes == ()


def test_explain_job_of_a_plan_says_that_nothing_was_done() -> None:
    result = JobResult(job_id="job", state=NodeJobState.SUCCEEDED, changes=(make_change("write_file", "/x", undo="u"),))

    told = explain_job(make_job(result, mode=JobMode.PLAN), [])

    assert told.rule.startswith("Dry run:")
    assert told.undo == ()
