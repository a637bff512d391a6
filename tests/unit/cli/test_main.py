"""Whole command lines against the fake API."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.__main__ import main
from cli.exit_codes import ExitCode
from tests.unit.cli.conftest import Ended, Run
from tests.unit.cli.fake_api import CONTROLLER, DOCUMENT, PASSWORD, TOKEN, FakeApi, operation


class FakeStdin(io.StringIO):
    def __init__(self, text: str, *, is_terminal: bool = False) -> None:
        super().__init__(text)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_help_when_controller_answers_lists_nouns_and_own_commands(run: Run) -> None:
    ended = run("--help")

    assert ended.status == 0
    for word in ("accounts", "packages", "jobs", "login", "completion", "events", "One unix user."):
        assert word in ended.out


def test_help_when_controller_is_away_still_works_and_says_why(run: Run, api: FakeApi) -> None:
    api.is_down = True

    ended = run("--help")

    assert ended.status == 0
    assert "login" in ended.out
    assert "Connection refused" in " ".join(ended.out.split())


def test_help_when_asked_for_a_verb_shows_fields_and_switches(run: Run) -> None:
    ended = run("packages", "create", "--help")

    for word in (
        "--memory-bytes SIZE",
        "--level [low|high|none]",
        "--labels KEY=VALUE",
        "--dry-run",
        "--wait",
        "--body",
    ):
        assert word in ended.out
    assert "POST /api/v1/packages (create-package)" in ended.out


def test_create_when_options_are_given_sends_typed_values(run: Run, api: FakeApi) -> None:
    words = (
        "packages create --name starter --memory-bytes 512MiB --cpu-percent none --php-versions 8.2 --php-versions 8.4"
    )

    ended = run(*words.split(), "--labels", "rack=12", "--level", "high", "--is-default")

    assert (ended.status, ended.err) == (0, "")
    assert api.last_body() == {
        "name": "starter",
        "memory_bytes": 512 * 1024**2,
        "cpu_percent": None,
        "php_versions": ["8.2", "8.4"],
        "labels": {"rack": "12"},
        "level": "high",
        "is_default": True,
    }


def test_list_when_for_people_is_a_table_with_names(run: Run, api: FakeApi) -> None:
    package_id = api.add("packages", name="starter", memory_bytes=1024**3)
    api.add("accounts", name="alice", package_id=package_id, state="active")

    ended = run("accounts", "list")

    assert [line.split() for line in ended.out.splitlines()] == [
        ["name", "state", "package"],
        ["alice", "active", "starter"],
    ]


@pytest.mark.parametrize("place", ["before", "after"])
def test_list_when_for_programs_is_the_answer_unchanged(run: Run, api: FakeApi, place: str) -> None:
    row_id = api.add("packages", name="starter", memory_bytes=None)

    ended = run(*(["--json", "packages", "list"] if place == "before" else ["packages", "list", "--json"]))

    expected = {"items": [{"id": row_id, "name": "starter", "memory_bytes": None}], "next_cursor": None}
    assert json.loads(ended.out) == expected


def test_list_when_all_is_wanted_follows_the_pages(run: Run, api: FakeApi) -> None:
    for number in range(7):
        api.add("packages", name=f"p{number}")

    ended = run("packages", "list", "--all", "--limit", "3", "--json")

    assert [item["name"] for item in json.loads(ended.out)["items"]] == [f"p{number}" for number in range(7)]
    assert json.loads(ended.out)["next_cursor"] is None


def test_list_when_all_is_wanted_asks_for_large_pages(run: Run, api: FakeApi) -> None:
    run("packages", "list", "--all")

    assert api.requests[-1].url.params["limit"] == "200"


def test_list_when_there_are_more_pages_says_how_to_see_them(run: Run, api: FakeApi) -> None:
    for number in range(3):
        api.add("packages", name=f"p{number}")

    assert "More: --cursor 2 (or --all)" in run("packages", "list", "--limit", "2").out


def test_list_when_columns_are_chosen_shows_those(run: Run, api: FakeApi) -> None:
    row_id = api.add("packages", name="starter", memory_bytes=1024)

    ended = run("packages", "list", "--columns", "id,memory-bytes")

    assert ended.out.splitlines()[1].split() == [row_id, "1", "KiB"]


def test_list_when_column_is_unknown_names_the_known(run: Run, api: FakeApi) -> None:
    api.add("packages", name="starter")

    ended = run("packages", "list", "--columns", "nme")

    assert ended.status == ExitCode.USAGE
    assert "there is no nme; there are id, name" in ended.err


def test_show_when_given_a_name_finds_it(run: Run, api: FakeApi) -> None:
    row_id = api.add("packages", name="Demo Ltd")

    assert json.loads(run("packages", "show", "Demo Ltd", "--json").out)["id"] == row_id


def test_show_when_two_path_parameters_resolves_only_the_first(run: Run, api: FakeApi) -> None:
    row_id = api.add("accounts", name="alice")

    run("accounts", "show-module", "alice", "web/x")

    assert api.requests[-1].url.raw_path.decode() == f"/api/v1/accounts/{row_id}/modules/web%2Fx"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_show_when_name_would_be_another_path_refuses(run: Run, api: FakeApi, name: str) -> None:
    api.add("accounts", name="alice")

    ended = run("accounts", "show-module", "alice", name)

    assert ended.status == ExitCode.USAGE
    assert "is no name" in ended.err


def test_update_when_body_is_a_file_lets_options_win(run: Run, api: FakeApi, tmp_path: Path) -> None:
    row_id = api.add("packages", name="starter", memory_bytes=1)
    (tmp_path / "body.json").write_text('{"name": "from file", "memory_bytes": 5}')

    ended = run("packages", "update", row_id, "--body", f"@{tmp_path}/body.json", "--memory-bytes", "1k")

    assert ended.status == 0
    assert api.last_body() == {"name": "from file", "memory_bytes": 1024}


def test_create_when_body_comes_from_stdin_is_sent(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin('{"name": "piped"}'))

    assert run("packages", "create", "--body", "@-").status == 0
    assert api.last_body() == {"name": "piped"}


@pytest.mark.parametrize(
    ("body", "message"),
    [("{", "it is not JSON"), ("[]", "must be a JSON object"), ("@/does/not/exist", "No such file")],
)
def test_create_when_body_is_wrong_sends_nothing(run: Run, api: FakeApi, body: str, message: str) -> None:
    ended = run("packages", "create", "--body", body)

    assert ended.status == ExitCode.USAGE
    assert "--body" in ended.err
    assert message in ended.err
    assert all(request.method == "GET" for request in api.requests)


def test_create_when_required_field_is_missing_names_the_option(run: Run, api: FakeApi) -> None:
    ended = run("accounts", "create", "--name", "alice")

    assert ended.status == ExitCode.USAGE
    assert "Missing --package-id." in ended.err


def test_create_when_size_is_wrong_names_the_option(run: Run) -> None:
    ended = run("packages", "create", "--name", "x", "--memory-bytes", "lots")

    assert ended.status == ExitCode.USAGE
    assert "'--memory-bytes'" in ended.err
    assert "512MiB" in ended.err


def test_create_when_controller_refuses_input_names_the_field(run: Run) -> None:
    ended = run("packages", "create", "--name", "../")

    assert (ended.status, ended.out) == (ExitCode.INVALID_INPUT, "")
    assert ended.err == "Error: name: must be a name\n"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["packages", "create", "--name", "../"], ExitCode.INVALID_INPUT, "invalid_input"),
        (["packages", "create", "--name", "starter"], ExitCode.CONFLICT, "conflict"),
        (["packages", "show", "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"], ExitCode.NOT_FOUND, "not_found"),
        (["packages", "show", "unknown"], ExitCode.NOT_FOUND, "not_found"),
        (["packages", "frobnicate"], ExitCode.USAGE, "usage"),
        (["packages", "create"], ExitCode.USAGE, "usage"),
    ],
)
def test_failure_when_for_programs_is_json_on_stderr_and_stdout_is_empty(
    run: Run, api: FakeApi, words: list[str], status: ExitCode, code: str
) -> None:
    api.add("packages", name="starter")

    ended = run(*words, "--json")

    assert (ended.status, ended.out) == (status, "")
    problem = json.loads(ended.err)
    assert problem["code"] == code
    assert problem["detail"]


def test_failure_when_controller_is_away_is_unavailable(run: Run, api: FakeApi) -> None:
    api.is_down = True

    ended = run("packages", "list", "--json")

    assert (ended.status, ended.out) == (ExitCode.UNAVAILABLE, "")
    assert "Connection refused" in json.loads(ended.err)["detail"]


def test_failure_when_token_is_wrong_tells_how_to_sign_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_TOKEN", "wcp_other")

    ended = run("packages", "list")

    assert ended.status == ExitCode.NOT_ALLOWED
    assert "wcp360 login" in ended.err


def test_noun_when_controller_is_newer_than_the_cache_is_found(run: Run, api: FakeApi) -> None:
    run("packages", "list")
    api.document = {**DOCUMENT, "paths": {**DOCUMENT["paths"], "/api/v1/zones": {"get": operation("list-zones")}}}
    api.rows["zones"] = {}

    assert run("zones", "list").status == 0


def test_noun_when_unknown_is_a_usage_error(run: Run) -> None:
    ended = run("acounts", "list")

    assert ended.status == ExitCode.USAGE
    assert "No such command 'acounts'" in ended.err
    assert "'accounts'" in ended.err


def test_dry_run_when_asked_shows_the_plan_and_changes_nothing(run: Run, api: FakeApi) -> None:
    row_id = api.add("accounts", name="alice", package_id="p")
    package_id = api.add("packages", name="big")

    ended = run("accounts", "update", "alice", "--package-id", "big", "--dry-run")

    assert ended.status == 0
    assert "Plan (nothing was changed)" in ended.out
    assert "write_file /etc/nginx" in ended.out
    assert api.last_body() == {"package_id": package_id}
    assert api.rows["accounts"][row_id]["package_id"] == "p"


def test_wait_when_job_succeeds_shows_the_resource_and_the_job(run: Run, api: FakeApi) -> None:
    package_id = api.add("packages", name="starter")

    ended = run("accounts", "create", "--name", "alice", "--package-id", "starter", "--wait")

    assert (ended.status, ended.err) == (0, "")
    assert f"starter ({package_id})" in ended.out
    assert "succeeded" in ended.out
    row_id = next(iter(api.rows["accounts"]))
    assert api.requests[-2].url.path == f"/api/v1/accounts/{row_id}"  # read again after the wait; then the names


def test_wait_when_thing_was_deleted_is_no_failure(run: Run, api: FakeApi) -> None:
    api.add("accounts", name="alice", package_id="p")

    ended = run("accounts", "delete", "alice", "--wait", "--json")

    assert ended.status == 0
    assert json.loads(ended.out)["jobs"][0]["state"] == "succeeded"


def test_wait_when_job_fails_ends_with_its_reason(run: Run, api: FakeApi) -> None:
    api.add("packages", name="starter")
    api.job_error = {"code": "config_test_failed", "message": "nginx says [no]", "hint": None}

    ended = run("accounts", "create", "--name", "alice", "--package-id", "starter", "--wait")

    assert (ended.status, ended.out) == (ExitCode.JOB_FAILED, "")
    assert "Account alice failed: nginx says [no]" in ended.err


@pytest.mark.parametrize("is_json", [False, True])
def test_wait_when_one_job_of_many_fails_shows_what_became_of_each(run: Run, api: FakeApi, is_json: bool) -> None:
    """The others are done: who repairs the one must not have to guess which."""
    schemas = {**DOCUMENT["components"]["schemas"], "Bulk": {"type": "object", "properties": {}}}
    paths = {**DOCUMENT["paths"], "/api/v1/accounts/bulk": {"post": operation("bulk-change-accounts", schema="Bulk")}}
    api.document = {**DOCUMENT, "components": {"schemas": schemas}, "paths": paths}
    jobs = [
        api.add("jobs", state=state, label=f"Account {name}", error=error)
        for name, state, error in (
            ("alice", "succeeded", None),
            ("bob", "failed", {"code": "disk_full", "message": "no [space] left"}),
        )
    ]
    items = [{"account_id": name, "error_code": None} for name in ("alice", "bob")]
    api.bulk_answer = {"done": 2, "failed": 0, "items": items, "jobs": [{"id": job_id} for job_id in jobs]}

    ended = run("accounts", "bulk-change", "--wait", *(["--json"] if is_json else []))

    assert ended.status == ExitCode.JOB_FAILED
    if is_json:
        assert [job["state"] for job in json.loads(ended.out)["jobs"]] == ["succeeded", "failed"]
    else:
        assert "2 done, 0 not." in ended.out
        assert f"Account bob failed: no [space] left  job {jobs[1]}" in ended.out
        assert "1 of 2 jobs did not succeed; the first: Account bob failed" in ended.err


def test_create_when_not_waiting_names_the_job(run: Run, api: FakeApi) -> None:
    api.add("packages", name="starter")

    ended = run("accounts", "create", "--name", "alice", "--package-id", "starter")

    assert f"job {next(iter(api.rows['jobs']))} queued" in ended.out


@pytest.mark.parametrize(("answer", "is_deleted"), [("n\n", False), ("y\n", True)])
def test_delete_when_a_person_is_there_asks_first(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, answer: str, is_deleted: bool
) -> None:
    api.add("packages", name="starter")
    monkeypatch.setattr(sys, "stdin", FakeStdin(answer, is_terminal=True))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    ended = run("packages", "delete", "starter")

    assert "delete package: starter?" in ended.err
    assert (ended.status == 0) is is_deleted
    assert bool(api.rows["packages"]) is not is_deleted


@pytest.mark.parametrize(("action", "is_asked"), [("delete", True), ("label", False)])
def test_command_about_many_when_it_deletes_asks_first(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, action: str, is_asked: bool
) -> None:
    bulk = {"type": "object", "properties": {"action": {"enum": ["delete", "label"]}}, "required": ["action"]}
    schemas = {**DOCUMENT["components"]["schemas"], "Bulk": bulk}
    paths = {**DOCUMENT["paths"], "/api/v1/packages/bulk": {"post": operation("bulk-change-packages", schema="Bulk")}}
    api.document = {**DOCUMENT, "components": {"schemas": schemas}, "paths": paths}
    monkeypatch.setattr(sys, "stdin", FakeStdin("n\n", is_terminal=True))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    ended = run("packages", "bulk-change", "--action", action)

    assert ("delete?" in ended.err, ended.status == ExitCode.INTERRUPTED) == (is_asked, is_asked)
    assert any(request.method == "POST" for request in api.requests) is not is_asked


def test_object_when_a_key_refers_to_something_takes_its_name(run: Run, api: FakeApi) -> None:
    keys = {"package_id": {"type": "string"}, "search": {"type": "string"}}
    bulk = {"type": "object", "properties": {"filter": {"type": "object", "properties": keys}}}
    schemas = {**DOCUMENT["components"]["schemas"], "Bulk": bulk}
    paths = {**DOCUMENT["paths"], "/api/v1/packages/bulk": {"post": operation("bulk-change-packages", schema="Bulk")}}
    api.document = {**DOCUMENT, "components": {"schemas": schemas}, "paths": paths}
    package_id = api.add("packages", name="starter")

    run("packages", "bulk-change", "--filter", "package_id=starter", "--filter", "search=a")

    sent = next(request for request in api.requests if request.method == "POST")
    assert json.loads(sent.content) == {"filter": {"package_id": package_id, "search": "a"}}
    assert "Keys: package_id, search." in " ".join(run("packages", "bulk-change", "--help").out.split())


def test_delete_when_a_program_calls_does_not_ask(run: Run, api: FakeApi) -> None:
    api.add("packages", name="starter")

    ended = run("packages", "delete", "starter")

    assert (ended.status, ended.out, api.rows["packages"]) == (0, "Done.\n", {})


@pytest.mark.parametrize("way", ["environment", "stdin"])
def test_login_when_password_is_right_remembers_the_token(
    api: FakeApi, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin(f"{PASSWORD}\n"))
    if way == "environment":
        monkeypatch.setenv("WCP360_PASSWORD", PASSWORD)

    status = main(["login", "controller.test", "--verbose"], transport=api.transport)

    shown = capsys.readouterr()
    assert status == 0
    assert PASSWORD not in shown.out + shown.err
    assert TOKEN not in shown.out + shown.err
    assert "must be changed" in shown.err
    assert main(["packages", "list"], transport=api.transport) == 0
    assert oct((own_home / ".config" / "wcp360" / "cli.json").stat().st_mode)[-3:] == "600"


def test_login_when_password_is_wrong_keeps_the_old_profile(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_PASSWORD", "wrong")

    ended = run("login")

    assert (ended.status, run("profile", "list").out) == (ExitCode.NOT_ALLOWED, "")


def test_login_when_a_code_is_asked_for_and_none_is_piped_says_where_it_goes(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        api.requests.append(request)
        return httpx.Response(401, json={"code": "second_factor_required", "detail": "a code is needed"})

    monkeypatch.setattr(sys, "stdin", FakeStdin(f"{PASSWORD}\n"))

    status = main(["login", "controller.test"], transport=httpx.MockTransport(answer))

    assert (status, len(api.requests)) == (ExitCode.NOT_ALLOWED, 1)
    assert "next line of standard input" in capsys.readouterr().err


def test_logout_when_signed_in_forgets_the_token(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_PASSWORD", PASSWORD)
    monkeypatch.delenv("WCP360_TOKEN")
    run("login")

    assert run("logout").status == 0

    assert api.requests[-1].url.path == "/api/v1/auth/logout"
    assert json.loads(run("profile", "list", "--json").out)["items"][0]["is_signed_in"] is False


def test_profiles_when_used_and_deleted_change_the_current_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_PASSWORD", PASSWORD)
    run("login", "--profile", "east")
    other = run("login", "--profile", "west")

    assert "`wcp360 profile use east` goes back" in other.out
    assert [line[:6] for line in run("profile", "list").out.splitlines()] == ["  east", "* west"]
    assert run("profile", "use", "east").status == 0
    assert run("profile", "show").out.startswith("profile\teast\n")
    assert run("profile", "delete", "east").status == 0
    assert run("profile", "use", "east").status == ExitCode.NOT_FOUND
    assert "profile\twest" in run("profile", "show").out


def test_profile_when_unknown_is_not_found(run: Run) -> None:
    ended = run("packages", "list", "--profile", "nowhere")

    assert ended.status == ExitCode.NOT_FOUND
    assert "no profile 'nowhere'" in ended.err


def test_password_when_on_the_command_line_is_refused_and_not_repeated(run: Run, api: FakeApi) -> None:
    ended = run("auth", "login", "--username", "admin", "--password", "hunter2")

    assert ended.status == ExitCode.USAGE
    assert "hunter2" not in ended.err
    assert "@FILE" in ended.err


@pytest.mark.parametrize("source", ["-", "file"])
def test_password_when_from_stdin_or_file_is_sent(
    run: Run, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    monkeypatch.setattr(sys, "stdin", FakeStdin(f"{PASSWORD}\n"))

    ended = run("auth", "login", "--username", "admin", "--password", "-" if source == "-" else f"@{tmp_path}/password")

    assert ended.status == 0
    assert api.last_body() == {"username": "admin", "password": PASSWORD}


def test_password_when_nobody_can_be_asked_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin(""))

    ended = run("auth", "login", "--username", "admin")

    assert ended.status == ExitCode.USAGE
    assert "Missing --password" in ended.err


def test_verbose_when_after_the_verb_shows_requests_without_the_token(run: Run, api: FakeApi) -> None:
    ended = run("packages", "list", "-v")

    assert f"> GET {CONTROLLER}/api/v1/packages" in ended.err
    assert TOKEN not in ended.err
    assert ended.out == "Nothing here yet.\n"


def test_main_when_interrupted_ends_with_130(api: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_request: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(api.transport, "handler", interrupt)

    ended = run("packages", "list")

    assert ended == Ended(ExitCode.INTERRUPTED, "", "Stopped.\n")


def test_version_when_asked_needs_no_controller(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("wcp360, version ")


def test_main_when_no_controller_is_named_tells_how_to_sign_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounts", "list"]) == ExitCode.USAGE
    assert "wcp360 login https://CONTROLLER:8360" in capsys.readouterr().err
