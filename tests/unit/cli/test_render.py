from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from cli.columns import MAX_COLUMNS, choose_columns
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.render import MAX_JOB_LINES, PipeConsole, open_console, print_answer, print_failure
from cli.text import format_bytes, format_cell, format_value, render_json, visible
from tests.unit.cli.fake_api import plan_of

LONG_ID = "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"
WIDE_ROW = {"id": LONG_ID, "label": "x" * 150, "state": "failed", "message": "y" * 150}


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(value: Any, group: str = "") -> str:
    """What a pipe gets."""
    file = io.StringIO()
    print_answer(open_console(file), value, command=group)
    return file.getvalue()


def shown_on_terminal(value: Any, width: int) -> str:
    file = io.StringIO()
    print_answer(Console(file=file, width=width, markup=False, highlight=False), value)
    return file.getvalue()


def test_list_when_piped_cuts_nothing() -> None:
    lines = shown({"items": [WIDE_ROW], "next_cursor": None}).splitlines()

    assert len(lines) == 2  # a heading and one line for each row, so that grep and awk work
    assert all(value in lines[1] for value in WIDE_ROW.values())


def test_list_when_terminal_is_narrow_folds_and_loses_nothing() -> None:
    text = shown_on_terminal({"items": [WIDE_ROW], "next_cursor": None}, 80)

    assert text.count("x") == text.count("y") == 150
    assert max(map(len, text.splitlines())) <= 80


def test_list_when_terminal_is_wide_enough_keeps_ids_in_one_piece() -> None:
    assert LONG_ID in shown_on_terminal({"items": [WIDE_ROW], "next_cursor": None}, 120)


def test_list_when_values_hold_markup_shows_it_as_it_is() -> None:
    assert "[red]bold[/red] :smile:" in shown({"items": [{"name": "[red]bold[/red] :smile:"}], "next_cursor": None})


def test_list_when_cursor_holds_markup_shows_it_as_it_is() -> None:
    assert "--cursor [bold]x[/bold] (or --all)" in shown({"items": [{"name": "a"}], "next_cursor": "[bold]x[/bold]"})


def test_list_when_empty_says_so() -> None:
    assert shown({"items": [], "next_cursor": None}) == "Nothing here yet.\n"


@pytest.mark.parametrize("shape", ["list", "detail", "resource", "text", "failure"])
def test_answer_when_values_hold_escape_sequences_shows_them_harmless(shape: str) -> None:
    evil = "a\x1b[2J\x9b2J\r\u202eb"
    answers: dict[str, Any] = {
        "list": {"items": [{"name": evil}], "next_cursor": evil},
        "detail": {"name": evil, "nested": {evil: [{"x": evil}]}},
        "resource": {"resource": {"name": evil}, "jobs": [{"id": evil, "state": evil}]},
        "text": evil,
    }
    file = io.StringIO()
    if shape == "failure":
        print_failure(open_console(file), CommandFailedError(evil, exit_code=ExitCode.BUG, hint=evil))
    else:
        print_answer(open_console(file), answers[shape])

    assert not set(file.getvalue()) & {"\x1b", "\x9b", "\r", "\u202e"}
    assert "\\x1b[2J" in file.getvalue() or "\\u001b[2J" in file.getvalue()


def test_detail_when_value_is_long_can_be_copied_as_a_whole() -> None:
    command = "curl -fsSL https://controller.example.com:8360/install.sh | sh -s -- --token " + "t" * 100

    assert command in shown_on_terminal({"name": "x", "command": command}, 80)


def test_detail_when_reference_has_a_name_shows_both() -> None:
    file = io.StringIO()
    print_answer(open_console(file), {"node_id": LONG_ID}, label=lambda column, value: "n1")

    assert file.getvalue() == f"node id  n1 ({LONG_ID})\n"


def test_answer_when_nothing_came_back_says_done() -> None:
    assert shown(None) == "Done.\n"


def test_answer_when_many_jobs_follow_shows_some_and_the_number() -> None:
    jobs = [{"id": f"job-{number}", "state": "requested"} for number in range(MAX_JOB_LINES + 5)]

    text = shown({"resource": None, "jobs": jobs})

    assert text.count("requested") == MAX_JOB_LINES
    assert "and 5 jobs more" in text


def test_plan_when_shown_has_rows_actions_diff_reloads_and_risks() -> None:
    text = shown(plan_of("packages", {"name": "[x]"}))

    assert "(nothing was changed)" in text
    assert "packages.update [x]" in text
    assert "memory bytes: 1 KiB -> 2 KiB" in text
    assert "create write_file /etc/nginx/wcp360/sites/alice.conf (cannot be undone)  it is missing" in text
    assert "+server {\n         -old" in text
    assert "reloads nginx.service" in text
    assert "risks none" in text


def test_plan_when_node_is_offline_tells_its_error() -> None:
    error = {"code": "agent_offline", "message": "n1 is not connected", "hint": "Start it."}

    text = shown({"changes": [], "nodes": [{"node": "n1", "subject": "account/a", "changes": [], "error": error}]})

    assert "n1 is not connected Start it." in text
    assert "nothing to do" not in text


def test_plan_when_no_node_is_touched_says_so() -> None:
    assert "No node has anything to do." in shown({"changes": [], "nodes": []})


def test_plan_when_accounts_have_their_turn_later_counts_them() -> None:
    plan = {"changes": [], "nodes": [], "unplanned": 35}
    node = {"node": "n1", "subject": "account/a", "changes": []}

    assert "\n35 accounts would follow in groups; their nodes were not asked." in shown(plan)
    assert "\n35 accounts more would follow" in shown({**plan, "nodes": [node]})


JOB = {
    "id": LONG_ID,
    "label": "Account alice",
    "state": "failed",
    "node_id": "n1",
    "resource_key": "account/alice",
    "attempts": 2,
    "error": {"code": "config_test_failed", "message": "nginx: [emerg] bad", "hint": "Put it right."},
    "explanation": {
        "asked_by": "user/1",
        "request_id": "r-1",
        "rule": "The node must hold everything.",
        "timeline": [{"at": "2026-11-23T04:00:00.5Z", "from_state": None, "to_state": "requested", "note": "asked"}],
        "files": ["/etc/nginx/a.conf"],
        "commands": ["reload nginx"],
        "reloads": [],
        "undo": ["remove the file"],
        "irreversible": ["drop it"],
        "is_rolled_back": True,
        "changes": [
            {"target": "/etc/nginx/a.conf", "kind": "update", "diff": "+new line"},
            {"target": "/etc/nginx/b.conf", "kind": "create", "diff": "+whole file"},
        ],
        "resources": [{"key": "site/a", "outcome": "parked", "note": "", "error_message": "refused"}],
        "risks": [],
        "next_step": "Read the error.",
    },
}


def test_job_when_it_has_an_explanation_tells_the_whole_story() -> None:
    text = shown(JOB)

    order = [
        "Account alice  failed", "The node must hold everything.", "nginx: [emerg] bad [config_test_failed]",
        "Put it right.", "was undone", "2026-11-23 04:00:00Z  requested  asked", "site/a  parked  refused",
        "Files\n  /etc/nginx/a.conf", "Commands\n  reload nginx", "To take it back\n  remove the file",
        "Nothing can take back\n  drop it", "+new line", "Next: Read the error.",
    ]  # fmt: skip
    places = [text.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert "Reloads" not in text  # there were none
    assert "whole file" not in text  # new files are listed, not shown


def test_job_when_all_is_known_of_it_names_asker_cause_programs_and_the_commands_back() -> None:
    told = {
        "asked_by": "token/1", "rule": "The node must hold everything.",
        "asker": {"kind": "token", "name": "deploy", "user": "ada", "reference": "token/1", "address": "192.0.2.7"},
        "waits_for": "node in maintenance until somebody ends it, by ada: disk",
        "cause": {
            "words": "site.update a.example made it necessary.", "changes": ["site.update a.example"],
            "permission": "sites:write", "limits": ["package Pro: sites_max 5"],
        },
        "validators": [
            {"argv": ["nginx", "-t", "-c", "a b"], "exit_code": 1, "seconds": 0.25, "output": "unknown directive"}
        ],
        "runs": [{"argv": ["useradd", "ada"], "exit_code": 0, "seconds": 1.5, "output": "not shown"}],
        "undo": ["remove the file"], "undo_commands": ["wcp360 sites update a.example --document-root public"],
    }  # fmt: skip

    text = shown({"label": "ada: site", "state": "requested", "explanation": told})

    order = [
        "the token deploy of ada (token/1) from 192.0.2.7", "node in maintenance", "The node must hold everything.",
        "Why\n  site.update a.example made it necessary.", "allowed by the permission sites:write",
        "package Pro: sites_max 5", "Tests before anything was live\n  nginx -t -c 'a b'  0.25 s  exit status 1",
        "unknown directive", "Programs that ran\n  useradd ada  1.50 s  exit status 0", "To take it back",
        "Commands that take it back\n  wcp360 sites update a.example --document-root public",
    ]  # fmt: skip
    places = [text.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert "not shown" not in text


@pytest.mark.parametrize("is_colourless", [True, False])
def test_console_when_no_color_is_set_prints_no_colour(monkeypatch: pytest.MonkeyPatch, is_colourless: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1") if is_colourless else monkeypatch.delenv("NO_COLOR", raising=False)
    file = FakeTerminal()

    print_failure(open_console(file), CommandFailedError("no", exit_code=ExitCode.BUG))

    assert ("\x1b[31m" in file.getvalue()) is not is_colourless


def test_console_when_pipe_is_closed_tells_the_caller() -> None:
    class ClosedPipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        PipeConsole(file=ClosedPipe()).print("x")


@pytest.mark.parametrize(
    ("group", "row", "expected"),
    [
        ("", {"id": "1", "name": "a", "created_at": "x"}, ["name"]),
        ("", {"id": "1", "label": "a"}, ["id", "label"]),
        ("", {"id": "1", "extra": "e", "state": "s", "name": "n"}, ["name", "state", "extra"]),
        ("", {"id": "1", "name": "n", "nested": {"a": 1}, "empty": ""}, ["name"]),
        ("jobs", {"state": "s", "id": "1", "label": "a", "resource_key": "k"}, ["id", "state", "label"]),
        ("jobs", {"everything": "is", "different": "now"}, ["everything", "different"]),
        ("audit", {"id": "1", "at": "x", "action": "y", "hash": "h"}, ["at", "action"]),
        ("", {"id": "1"}, ["id"]),
    ],
)
def test_choose_columns_when_rows_differ_shows_what_tells_them_apart(
    group: str, row: dict[str, Any], expected: list[str]
) -> None:
    assert choose_columns([row], group) == expected


def test_choose_columns_when_there_are_many_shows_the_first() -> None:
    assert len(choose_columns([{f"field_{number}": number for number in range(20)}])) == MAX_COLUMNS


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("memory_bytes", 536870912, "512 MiB"),
        ("memory_bytes", None, "-"),
        ("uid", 20001, "20001"),
        ("is_default", True, "yes"),
        ("is_default", False, "no"),
        ("created_at", "2026-11-23T03:50:24.123456Z", "2026-11-23 03:50:24Z"),
        ("at", "2026-11-23T03:50:24+00:00", "2026-11-23 03:50:24Z"),
        ("name", "2026-11-23Today", "2026-11-23Today"),
        ("labels", {}, "-"),
        ("aliases", ["a", "b"], "a, b"),
        ("aliases", [], "-"),
        ("name", "", "-"),
        ("cpu_percent", 0, "0"),
    ],
)
def test_format_value_when_name_tells_the_unit_reads_well(name: str, value: Any, expected: str) -> None:
    assert format_value(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"code": "c", "message": "nginx says no", "hint": None}, "nginx says no"),
        ({"done": 2, "total": 5, "message": ""}, "2/5"),
        ({}, "-"),
        ("two\nlines", "two lines"),
    ],
)
def test_format_cell_when_value_is_nested_says_the_most_in_one_line(value: Any, expected: str) -> None:
    assert format_cell("error", value) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5 GiB"), (2**50, "1 PiB"), (2**63, "8 EiB")],
)
def test_format_bytes_when_large_takes_the_next_unit(count: int, expected: str) -> None:
    assert format_bytes(count) == expected


def test_render_json_when_read_back_is_the_same_value() -> None:
    value = {"a": "é\x1b\x9b\u202e\n", "b": [1, None]}

    text = render_json(value)

    assert json.loads(text) == value
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}


def test_visible_when_text_has_lines_and_tabs_keeps_them() -> None:
    assert visible("a\tb\r\nc") == "a\tb\nc"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"limit": "disk_bytes", "wanted": 2**31, "enforced": 2**31, "generation": 4096}, "disk_bytes  2 GiB   2 GiB"),
        ({"title": "Disk", "unit": "bytes", "used": 1536, "hard": 2**30}, "1.5 KiB  1 GiB"),
        ({"title": "Sites", "unit": "sites", "used": 1536, "hard": 4096}, "1536  4096"),
        ({"field": "memory_bytes", "before": 2**29, "after": None}, "512 MiB"),
        ({"field": "limits.disk_bytes", "before": {"soft": None, "hard": 2**30}}, "hard 1 GiB"),
    ],
)
def test_list_whose_rows_say_that_they_count_bytes_shows_sizes(row: dict[str, Any], expected: str) -> None:
    line = shown({"items": [row], "next_cursor": None}, "packages diff-versions").splitlines()[-1]

    assert expected in line


def test_list_when_a_cell_holds_rows_is_one_line_without_json() -> None:
    over = [{"limit": "disk_bytes", "used": 2**30, "allowed": 2**29}, {"limit": "sites", "used": 2, "allowed": 1}]
    text = shown({"items": [{"name": "ada", "over": over}], "next_cursor": None}, "packages judge-update")

    assert text.splitlines()[1:] == [
        "ada   limit disk_bytes, used 1 GiB, allowed 512 MiB; limit sites, used 2, allowed 1"
    ]


def test_detail_when_a_field_holds_problems_says_each_in_a_line() -> None:
    obstacle = {"code": "package_not_sold", "message": "it is not sold there", "hint": "Name another one."}

    assert shown({"is_possible": False, "obstacles": [obstacle]}).splitlines() == [
        "is possible  no",
        "obstacles",
        "  it is not sold there. Name another one.",
    ]


def test_judgement_when_nothing_speaks_against_it_says_so() -> None:
    assert shown({"items": [], "next_cursor": None}, "packages judge-update") == "Nothing is in the way.\n"
    assert shown({"items": [], "next_cursor": None}, "packages list") == "Nothing here yet.\n"


def test_choose_columns_of_a_list_inside_a_noun_does_not_take_those_of_the_noun() -> None:
    row = {"number": 2, "name": "Roomy", "actor_name": "adam", "accounts": 3, "disk_bytes": 1}

    assert choose_columns([row], "packages list-versions") == ["number", "actor_name", "name", "accounts"]
    assert choose_columns([row], "packages list") == choose_columns([row], "packages")
    assert "version" not in choose_columns([{"key": "sites", "used": 1, "name": "x"}], "packages list-usage")


def test_plan_when_a_field_holds_labels_shows_them_in_its_line() -> None:
    change = {"action": "account.update", "name": "ada", "before": {"labels": {}}, "after": {"labels": {"rack": "12"}}}
    text = shown({"changes": [change], "nodes": []})

    assert "labels: - -> rack 12" in text


@pytest.mark.parametrize(("plan", "words"), [(None, "1 done, 1 not."), ({"nodes": []}, "1 would be done, 1 not.")])
def test_list_when_it_tells_of_many_counts_them(plan: Any, words: str) -> None:
    items = [{"account_id": "a", "is_done": True, "plan": plan}, {"account_id": "b", "is_done": False, "plan": None}]

    text = shown({"done": 1, "failed": 1, "items": items, "jobs": [], "next_cursor": None}, "accounts bulk-change")

    assert text.splitlines()[-1] == words


def test_recovery_codes_when_shown_are_one_a_line_and_said_to_be_seen_once() -> None:
    text = shown({"recovery_codes": ["aaaa-bbbb", "cccc-dddd"]})

    assert text.splitlines()[0].startswith("recovery codes, shown this once")
    assert text.splitlines()[1:] == ["  aaaa-bbbb", "  cccc-dddd"]
