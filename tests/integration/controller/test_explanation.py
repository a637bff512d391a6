"""Who asked, why, and the command that takes it back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.suspension import suspend_account
from controller.core.accounts.views import AccountSuspend
from controller.core.audit.chain import record
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken, User
from controller.core.context import ALL_TENANTS, Change
from controller.core.explanation import read_background, render_undo
from controller.core.operations import FleetContext
from controller.jobs.explain import explain_job
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from shared.protocol.job import CommandPurpose, CommandRun, JobResult
from shared.protocol.job import JobState as NodeJobState
from tests.integration.controller.hosting import ADMIN, Hosting

AT = datetime(2026, 11, 23, tzinfo=UTC)


async def background_of(hosting: Hosting, job: Job) -> Any:
    async with hosting.database.read() as session:
        return await read_background(session, job, ALL_TENANTS)


async def test_background_of_a_users_change_names_asker_permission_limits_and_the_way_back(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=2**28)
    site_id = await hosting.add_site(account_id, "a.example")
    await hosting.patch(f"/sites/{site_id}", {"document_root": "web"}, expect=202)

    known = await background_of(hosting, await hosting.last_job(account_id))

    assert (known.asker.kind, known.asker.name, known.asker.user) == ("user", "root", "root")
    assert known.asker.address == "127.0.0.1"
    assert (known.cause.kind, known.cause.permission) == ("request", "sites:write")
    assert known.cause.changes == ("site.update a.example",)
    assert f"package of ada: memory_bytes {2**28}" in known.cause.limits
    assert known.undo_commands == ("wcp360 sites update a.example --document-root public",)


async def test_background_of_one_of_many_knows_nothing_of_the_others(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "grace")]
    await hosting.post(
        "/accounts/bulk", {"action": "suspend", "ids": ids, "suspension": {"reason": "unpaid"}}, expect=202
    )

    known = await background_of(hosting, await hosting.last_job(ids[0]))

    assert known.cause.changes == ("account.suspend ada",)
    assert known.undo_commands == ("wcp360 accounts unsuspend ada",)


async def test_background_of_a_schedules_job_knows_nothing_of_its_other_runs(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "grace")]

    async def suspend(ctx: FleetContext) -> object:
        return await suspend_account(ctx, ids[0], AccountSuspend())

    async def repair(ctx: FleetContext) -> object:
        record(ctx, Change("account.converge", f"account/{ids[1]}", "grace"))
        return await converge_account(ctx, await ctx.session.get_one(Account, ids[1]), reason="upkeep")

    for use_case in (suspend, repair):
        await hosting.operations.change(ADMIN, "schedule/test", use_case)

    known = await background_of(hosting, await hosting.last_job(ids[1]))

    assert (known.cause.changes, known.undo_commands) == (("account.converge grace",), ())


async def test_background_of_a_tokens_change_names_token_and_user(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    job = await hosting.last_job(account_id)
    async with hosting.database.write() as session:
        user = User(username="grace", password_hash="x")
        session.add(user)
        await session.flush()
        token = ApiToken(user_id=user.id, name="deploy", secret_hash="h", scopes=["*"])
        session.add(token)
    job.actor = f"token/{token.id}"

    known = await background_of(hosting, job)

    assert (known.asker.kind, known.asker.name, known.asker.user) == ("token", "deploy", "grace")


@pytest.mark.parametrize(
    ("request_id", "kind"),
    [
        ("reconverge/n", "reconnect"),
        ("schedule/nodes.upkeep", "maintenance"),
        ("schedule/packages.rollouts", "package_rollout"),
        ("schedule/x", "schedule"),
    ],
)
async def test_background_of_what_the_controller_asked_says_which_rule(
    hosting: Hosting, request_id: str, kind: str
) -> None:
    job = await hosting.last_job(await hosting.add_account("ada"))
    job.actor, job.request_id = "system/controller", request_id

    assert (await background_of(hosting, job)).cause.kind == kind


@pytest.mark.parametrize(
    ("action", "before", "after", "command"),
    [
        ("account.suspend", {}, {}, "wcp360 accounts unsuspend it"),
        ("account.unsuspend", {}, {}, "wcp360 accounts suspend it --reason WORDS"),
        ("site.create", None, {}, "wcp360 sites delete it"),
        ("node.drain", None, {}, "wcp360 nodes undrain it"),
        ("site.delete", {}, None, ""),
        ("site.update", {"php_version": None}, {"php_version": "8.2"}, "wcp360 sites update it --php-version none"),
        ("site.update", {"aliases": []}, {"aliases": ["a.b"]}, "wcp360 sites update it --aliases none"),
        (
            "site.update",
            {"aliases": ["a.b", "c.d"]},
            {"aliases": []},
            "wcp360 sites update it --aliases a.b --aliases c.d",
        ),
        ("node.update", {"is_cordoned": False}, {"is_cordoned": True}, "wcp360 nodes update it --no-is-cordoned"),
        ("user.sign_in", None, {}, ""),
    ],
)
def test_render_undo_names_the_opposite(action: str, before: Any, after: Any, command: str) -> None:
    assert render_undo(AuditEntry(action=action, target_name="it", before=before, after=after)) == command


async def test_explain_job_shows_programs_tests_and_attempts(hosting: Hosting) -> None:
    job = await hosting.last_job(await hosting.add_account("ada"))
    job.result = msgspec.msgpack.encode(
        JobResult(
            job_id="d",
            state=NodeJobState.SUCCEEDED,
            commands=(
                CommandRun(resource="account/ada", argv=("useradd", "ada"), exit_code=0, seconds=0.1),
                CommandRun(
                    resource="site/a", purpose=CommandPurpose.VALIDATOR, argv=("nginx", "-t"), exit_code=1, seconds=0.2,
                    output="no",
                ),
            ),
        )
    )  # fmt: skip
    states = [None, "requested", "queued", "offered", "accepted", "requested", "queued", "offered", "succeeded"]
    history = [
        JobTransition(
            job_id=job.id, at=AT + timedelta(seconds=number), to_state=JobState(state), note=f"step {number}",
            from_state=None,
        )
        for number, state in enumerate(states)
        if state is not None
    ]  # fmt: skip

    told = explain_job(job, history)

    assert [run.argv for run in told.runs] == [("useradd", "ada")]
    assert [(run.argv, run.output) for run in told.validators] == [(("nginx", "-t"), "no")]
    assert [(attempt.number, attempt.deliveries, attempt.state) for attempt in told.attempts] == [
        (1, 1, JobState.FAILED),
        (2, 1, JobState.SUCCEEDED),
    ]
    assert told.attempts[0].note == "step 5"
