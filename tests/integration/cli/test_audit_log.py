"""`wcp360 audit export` from a controller that serves, and `audit verify --file` where there is none."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from cli.exit_codes import ExitCode
from controller.core.audit.archives import AuditArchiving
from controller.core.audit.checkpoints import Checkpoints
from controller.db.base import utc_now
from tests.integration.cli.conftest import Wcp360
from tests.integration.live import LiveController


@pytest.fixture
async def key(wcp360: Wcp360, live_controller: LiveController) -> str:
    """The controller's root key, once there is a package, a checkpoint, and a package that came after it."""
    assert (await wcp360("packages", "create", "--name", "=one")).status == 0
    built = live_controller.controller
    assert "audit.checkpoint" in built.schedules.names
    await Checkpoints(built.database, built.fleet.keys.signer).make()
    assert (await wcp360("packages", "create", "--name", "two")).status == 0
    return str((await wcp360("audit", "list-checkpoints", "--json")).json["public_key"])


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
async def test_audit_export_when_nobody_touched_it_is_verified_without_a_controller(
    wcp360: Wcp360, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    path = str(tmp_path / "audit.export")
    made = await wcp360("audit", "export", "--format", file_format, "--output", path)
    head = (await wcp360("audit", "verify", "--json")).json["head_hash"]
    monkeypatch.setenv("WCP360_CONTROLLER", "https://127.0.0.1:1")

    seen = await wcp360("audit", "verify", "--file", path, "--public-key", key, "--expect-head", head, "--json")

    assert (made.status, seen.status) == (0, 0), made.err + seen.err
    assert (seen.json["is_intact"], seen.json["head_hash"], seen.json["checkpoints"]) == (True, head, 1)


async def test_audit_export_to_standard_output_is_lines_of_json(wcp360: Wcp360, key: str) -> None:
    lines = [
        json.loads(line) for line in (await wcp360("audit", "export", "--action", "package.create")).out.splitlines()
    ]

    assert [line["kind"] for line in lines] == ["head", "checkpoint", "entry", "entry", "end"]
    assert lines[0]["public_key"] == key


async def test_audit_verify_when_the_file_was_touched_ends_with_an_error_that_says_where(
    wcp360: Wcp360, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    await wcp360("audit", "export", "--output", str(path))
    path.write_text(path.read_text().replace('"=one"', '"=won"', 1))

    seen = await wcp360("audit", "verify", str(path), "--public-key", key)

    assert seen.status == ExitCode.JOB_FAILED
    assert "was changed after it was written" in seen.err


async def test_audit_export_when_the_file_exists_is_refused_and_leaves_it(wcp360: Wcp360, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("mine")

    assert (await wcp360("audit", "export", "--output", str(path))).status == ExitCode.USAGE
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--file", "/does/not/exist"], ExitCode.USAGE),
        (["--file", "/dev/null"], ExitCode.JOB_FAILED),
        (["/dev/null"], ExitCode.JOB_FAILED),
        (["/dev/null", "--file", "/dev/null"], ExitCode.USAGE),
        (["--public-key", "x"], ExitCode.USAGE),
        (["--file", "/dev/null", "--public-key", "x"], ExitCode.USAGE),
    ],
)
async def test_audit_verify_when_there_is_nothing_to_verify_says_so(
    wcp360: Wcp360, words: list[str], status: ExitCode
) -> None:
    assert (await wcp360("audit", "verify", *words)).status == status


async def test_audit_verify_when_the_file_is_binary_is_not_intact(wcp360: Wcp360, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"\xff\xfe\x00")

    seen = await wcp360("audit", "verify", "--file", str(path))

    assert (seen.status, "not UTF-8" in seen.err) == (ExitCode.JOB_FAILED, True)


async def test_download_of_an_archive_saves_what_proves_itself_and_no_half_of_it(
    wcp360: Wcp360, key: str, live_controller: LiveController, tmp_path: Path
) -> None:
    built = live_controller.controller
    checkpoints = Checkpoints(built.database, built.fleet.keys.signer)
    assert (await wcp360("policies", "update", "--audit-retention-days", "1")).status == 0
    archiving = AuditArchiving(built.operations, checkpoints, clock=lambda: utc_now() + timedelta(days=2))
    assert "entries 1 to" in str(await archiving.run())
    (item,) = (await wcp360("audit", "list-archives", "--json")).json["items"]
    path = tmp_path / "archive.jsonl.gz"

    saved = await wcp360("audit", "download-archive", item["id"], "--output", str(path))
    again = await wcp360("audit", "download-archive", item["id"], "-o", str(path))
    forced = await wcp360("audit", "download-archive", item["id"], "-o", str(path), "--force")
    proven = await wcp360("audit", "verify", "--file", str(path), "--public-key", key, "--json")
    absent = await wcp360("audit", "download-archive", "none", "-o", str(tmp_path / "none.gz"))

    assert (saved.status, again.status, forced.status) == (0, ExitCode.USAGE, 0), saved.err
    assert (oct(path.stat().st_mode)[-3:], path.stat().st_size) == ("600", item["size_bytes"])
    assert proven.json["is_intact"], proven.err
    assert (absent.status, (tmp_path / "none.gz").exists()) == (ExitCode.NOT_FOUND, False)


async def test_policies_on_the_command_line_are_shown_changed_and_reset(wcp360: Wcp360) -> None:
    changed = await wcp360("policies", "update", "--session-idle-minutes", "30", "--no-password-refuses-known")
    cleared = await wcp360("policies", "update", "--session-idle-minutes", "none", "--json")
    refused = await wcp360("policies", "update", "--deletion-grace-days", "300")
    shown = await wcp360("policies", "show", "password_refuses_known", "--json")
    reset = await wcp360("policies", "reset", "password_refuses_known", "--json")
    listed = await wcp360("policies", "list")

    by_name = {item["name"]: item["value"] for item in cleared.json["items"]}
    assert (changed.status, by_name["session_idle_minutes"]) == (0, None), changed.err
    assert (refused.status, "deletion_grace_days_max" in refused.err) == (ExitCode.INVALID_INPUT, True)
    assert (shown.json["value"], reset.json["value"]) == (False, True)
    assert "password_refuses_known" in listed.out
