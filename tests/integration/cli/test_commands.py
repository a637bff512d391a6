"""Every operation of the real OpenAPI document is a command, and its help says what it needs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from cli.__main__ import main
from cli.commands import build_command
from cli.document import API_PREFIX, METHODS, Document, Operation
from cli.global_options import SWITCHES, WITH_VALUE
from cli.values import kind_of
from controller.api.openapi import NOUNS, TAGS, build_document
from tests.integration.conftest import make_controller

GOLDEN = Path(__file__).parent / "commands.txt"
GOLDEN_HEADER = "# Every command of the API. Changed on purpose? WCP_WRITE_GOLDEN=1 make test writes it anew; scripts of users depend on it.\n"


@pytest.fixture
def raw(sqlite_url: str, tmp_path: Path) -> dict[str, Any]:
    return build_document(make_controller(sqlite_url, tmp_path).app.litestar)


@pytest.fixture
def document(raw: dict[str, Any]) -> Document:
    return Document(raw)


def describe(operation: Operation) -> str:
    """One line of the golden file: the command, every word it takes, and its endpoint."""
    command = build_command(operation)
    context = click.Context(command)
    arguments = [item.make_metavar(context) for item in command.params if isinstance(item, click.Argument)]
    options = sorted(item.opts[0] for item in command.params if isinstance(item, click.Option))
    words = " ".join([operation.group, operation.command, *arguments, *options])
    return f"{words} <- {operation.method} {operation.path}"


def test_commands_when_compared_with_the_golden_list_are_the_same(document: Document) -> None:
    lines = sorted(describe(operation) for operation in document.operations)
    if os.environ.get("WCP_WRITE_GOLDEN"):
        GOLDEN.write_text(GOLDEN_HEADER + "".join(f"{line}\n" for line in lines))

    assert lines == GOLDEN.read_text().splitlines()[1:]


def test_nouns_when_asked_for_help_have_a_sentence_each(document: Document) -> None:
    groups = set(document.groups())

    assert groups - set(TAGS) == set(NOUNS)
    assert {group: document.group_description(group) for group in NOUNS} == NOUNS


def test_commands_when_counted_are_all_operations_of_the_api(raw: dict[str, Any], document: Document) -> None:
    wanted = {
        (method.upper(), path)
        for path, item in raw["paths"].items()
        for method in METHODS
        if method in item and path.startswith(API_PREFIX)
    }

    assert {(item.method, item.path) for item in document.operations} == wanted
    assert [
        name for name, count in Counter((item.group, item.command) for item in document.operations).items() if count > 1
    ] == []


def test_commands_when_asked_for_help_say_what_they_do(
    raw: dict[str, Any], document: Document, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WCP360_CONTROLLER", "https://controller.test:8360")
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=raw))
    for operation in document.operations:
        assert main([operation.group, operation.command, "--help"], transport=transport) == 0
        text = capsys.readouterr().out

        assert f"Usage: wcp360 {operation.group} {operation.command}" in text
        # A long line may be broken at a hyphen of the id.
        assert f"({operation.operation_id})" in " ".join(text.split()).replace("- ", "-")
        assert operation.summary, f"{operation.operation_id} has no summary"
        missing = [item.flag for item in operation.list_parameters("body") if item.flag not in text]
        assert missing == []


def test_command_when_the_answer_is_a_table_for_spreadsheets_writes_it_as_it_came(
    raw: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WCP360_CONTROLLER", "https://controller.test:8360")
    monkeypatch.setenv("WCP360_TOKEN", "wcp_x")
    sent = "day,limit\r\n2026-11-01,sites\r\n"

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/usage-export"):
            return httpx.Response(200, text=sent, headers={"content-type": "text/csv; charset=utf-8"})
        return httpx.Response(200, json=raw)

    reseller_id = "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"
    status = main(["resellers", "export-usage", reseller_id], transport=httpx.MockTransport(answer))

    assert (status, capsys.readouterr().out.replace("\r\n", "\n")) == (0, sent.replace("\r\n", "\n"))


def test_options_when_built_from_the_api_never_hide_the_programs_own(document: Document) -> None:
    own = {
        *SWITCHES,
        *WITH_VALUE,
        "--body",
        "--dry-run",
        "--wait",
        "--wait-timeout",
        "--yes",
        "--all",
        "--columns",
        "--help",
    }

    taken = [(item.operation_id, parameter.flag) for item in document.operations for parameter in item.parameters]

    assert [pair for pair in taken if pair[1] in own and pair[1] != "--dry-run"] == []


def test_options_when_built_from_the_api_all_have_a_type(document: Document) -> None:
    mixed = [
        f"{operation.operation_id} {parameter.name}"
        for operation in document.operations
        for parameter in operation.parameters
        if kind_of(parameter.schema) == "mixed"
    ]

    assert mixed == []


def test_changes_when_they_reach_a_node_can_be_planned(document: Document) -> None:
    # About the asker alone: nothing of the fleet changes.
    own_business = {"auth", "enrol", "tokens", "sessions", "second-factor", "passkeys"}

    # Dry runs themselves; a session of one's own.
    never_changes = {
        "judge-package-update",
        "judge-account-transfer",
        "try-rule",
        "impersonate-user",
        "create-sign-in-link",
    }

    unplannable = [
        operation.operation_id
        for operation in document.operations
        if operation.method != "GET" and operation.group not in own_business and not operation.can_dry_run
    ]
    unplannable = [name for name in unplannable if name not in never_changes]

    assert unplannable == []
