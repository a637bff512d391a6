"""What an operator types, against a controller that serves and a node that is simulated."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest

from agent.simulator.fleet import SimulatedFleet
from cli.exit_codes import ExitCode
from tests.integration.cli.conftest import Wcp360
from tests.integration.conftest import PASSWORD
from tests.integration.live import LiveController, wait_until


async def test_packages_when_created_changed_and_deleted_follow_the_words(wcp360: Wcp360) -> None:
    made = await wcp360(
        "packages", "create", "--name", "starter", "--memory-bytes", "512MiB", "--disk-bytes", "5GiB", "--json"
    )
    assert (made.status, made.err) == (0, "")
    assert (made.json["memory_bytes"], made.json["disk_bytes"]) == (512 * 1024**2, 5 * 1024**3)

    shown = await wcp360("packages", "list")
    assert shown.out.splitlines()[0].split()[:2] == ["name", "memory"]
    assert "512 MiB" in shown.out

    changed = await wcp360("packages", "update", "starter", "--memory-bytes", "none", "--php-versions", "8.2", "--json")
    assert (changed.status, changed.err) == (0, "")
    seen = (await wcp360("packages", "show", "starter", "--json")).json
    assert (seen["memory_bytes"], seen["php_versions"], seen["disk_bytes"]) == (None, ["8.2"], 5 * 1024**3)

    assert (await wcp360("packages", "delete", "starter")).status == 0
    assert (await wcp360("packages", "list")).out == "Nothing here yet.\n"


async def test_clients_when_created_changed_and_deleted_follow_the_words(wcp360: Wcp360) -> None:
    made = await wcp360("clients", "create", "--name", "Demo Ltd", "--email", "demo@example.com")
    assert made.status == 0
    assert (await wcp360("clients", "update", "Demo Ltd", "--email", "new@example.com")).status == 0
    assert "new@example.com" in (await wcp360("clients", "show", "Demo Ltd")).out
    assert (await wcp360("clients", "delete", "Demo Ltd")).status == 0
    gone = await wcp360("clients", "show", "Demo Ltd")
    assert gone.status == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["packages", "create", "--name", "x", "--memory-bytes", "-5"], "memory_bytes"),
        (["packages", "create", "--name", "x" * 300], "name"),
        (["packages", "create", "--name", "a\nb"], "name"),
        (["packages", "create", "--body", '{"name": "x", "surprise": 1}'], "surprise"),
        (["packages", "create", "--body", '{"name": 5}'], "name"),
        (["packages", "list", "--limit", "0"], "limit"),
        (["clients", "create", "--name", "x", "--email", "nobody"], "email"),
    ],
)
async def test_input_when_the_controller_refuses_it_ends_with_3_and_names_the_field(
    wcp360: Wcp360, words: list[str], field: str
) -> None:
    ended = await wcp360(*words)
    assert (ended.status, ended.out) == (ExitCode.INVALID_INPUT, "")
    assert field in ended.err

    for_programs = await wcp360(*words, "--json")
    assert (for_programs.status, for_programs.out) == (ExitCode.INVALID_INPUT, "")
    assert json.loads(for_programs.err)["code"] == "invalid_input"


async def test_name_when_taken_is_a_conflict(wcp360: Wcp360) -> None:
    await wcp360("packages", "create", "--name", "starter")

    ended = await wcp360("packages", "create", "--name", "starter")

    assert ended.status == ExitCode.CONFLICT
    assert "starter" in ended.err


async def test_login_when_real_certificates_are_used_works_from_word_to_word(
    wcp360: Wcp360, live_controller: LiveController, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WCP360_CONTROLLER", "WCP360_CA_FILE", "WCP360_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("WCP360_PASSWORD", PASSWORD)
    address = live_controller.api_url

    stranger = await wcp360("login", address)
    assert stranger.status == ExitCode.UNAVAILABLE
    assert "--ca-file" in stranger.err

    assert (await wcp360("login", address, "--ca-file", str(live_controller.ca_file))).status == 0
    assert (await wcp360("auth", "show-me", "--json")).json["username"] == "admin"
    assert (await wcp360("logout")).status == 0
    assert (await wcp360("auth", "show-me")).status == ExitCode.NOT_ALLOWED


async def test_login_when_a_second_factor_is_set_up_asks_for_the_code(
    wcp360: Wcp360, live_controller: LiveController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WCP360_CONTROLLER", "WCP360_CA_FILE", "WCP360_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("WCP360_PASSWORD", PASSWORD)
    login = ("login", live_controller.api_url, "--ca-file", str(live_controller.ca_file))
    assert (await wcp360(*login)).status == 0
    (tmp_path / "password").write_text(PASSWORD)
    begun = await wcp360("second-factor", "begin", "--password", f"@{tmp_path}/password", "--json")
    totp = pyotp.TOTP(begun.json["secret"])
    now = datetime.now(UTC)

    confirmed = await wcp360("second-factor", "confirm", "--code", totp.at(now - timedelta(seconds=30)), "--json")
    still_in = await wcp360("auth", "show-me", "--json")  # the profile follows the session to its new secret
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{confirmed.json['recovery_codes'][0]}\n"))
    again = await wcp360(*login)
    stepped = await wcp360("auth", "step-up", "--code", confirmed.json["recovery_codes"][1])
    after = await wcp360("sessions", "list", "--json")

    assert still_in.json["has_second_factor"]
    assert again.status == 0, again.err
    assert (stepped.status, after.status) == (0, 0)
    assert "wcs_" not in stepped.out
    assert [item["is_current"] for item in after.json["items"]] == [True, False]


async def test_token_when_made_and_revoked_by_name_stops_working(
    wcp360: Wcp360, monkeypatch: pytest.MonkeyPatch, live_controller: LiveController
) -> None:
    secret = (await wcp360("tokens", "create", "--name", "deploy", "--scopes", "*:read", "--json")).json["secret"]
    monkeypatch.setenv("WCP360_TOKEN", secret)
    assert (await wcp360("packages", "list")).status == 0
    refused = await wcp360("packages", "create", "--name", "x")
    assert refused.status == ExitCode.NOT_ALLOWED

    monkeypatch.setenv("WCP360_TOKEN", live_controller.admin_token)
    assert (await wcp360("tokens", "revoke", "deploy")).status == 0
    monkeypatch.setenv("WCP360_TOKEN", secret)
    assert (await wcp360("packages", "list")).status == ExitCode.NOT_ALLOWED


async def test_password_when_changed_from_files_is_the_new_one(wcp360: Wcp360, tmp_path: Path) -> None:
    (tmp_path / "old").write_text(f"{PASSWORD}\n")
    (tmp_path / "new").write_text("an even better passphrase\n")
    files = ("--current-password", f"@{tmp_path}/old", "--new-password", f"@{tmp_path}/new")

    ended = await wcp360("auth", "change-password", *files, "--verbose")

    assert ended.status == 0, ended.err
    assert "passphrase" not in ended.err
    assert PASSWORD not in ended.err


async def prepare(wcp360: Wcp360) -> None:
    await wcp360("packages", "create", "--name", "starter", "--memory-bytes", "512MiB")
    await wcp360("packages", "create", "--name", "big", "--memory-bytes", "1GiB")
    await wcp360("clients", "create", "--name", "Demo Ltd", "--email", "demo@example.com")


ALICE = ("accounts", "create", "--name", "alice", "--client-id", "Demo Ltd", "--package-id", "starter")


async def test_account_when_created_and_waited_for_is_on_its_node(wcp360: Wcp360, node: str) -> None:
    await prepare(wcp360)

    made = await wcp360(*ALICE, "--wait", "--wait-timeout", "60")

    assert (made.status, made.err) == (0, "")
    assert "succeeded" in made.out
    row = (await wcp360("accounts", "list")).out.splitlines()[1]
    for word in ("alice", "Demo Ltd", "starter", node, "active"):
        assert word in row
    job = (await wcp360("jobs", "list", "--state", "succeeded", "--json")).json["items"][0]
    told = (await wcp360("jobs", "show", job["id"])).out
    assert "Timeline" in told
    assert "succeeded" in told
    assert "asked by" in told


async def test_account_when_changed_dry_shows_the_plan_and_changes_nothing(wcp360: Wcp360, node: str) -> None:
    await prepare(wcp360)
    assert (await wcp360(*ALICE, "--wait")).status == 0
    before = (await wcp360("accounts", "show", "alice", "--json")).json

    plan = await wcp360("accounts", "update", "alice", "--package-id", "big", "--dry-run")

    assert (plan.status, plan.err) == (0, "")
    assert "Plan (nothing was changed)" in plan.out
    assert "starter -> big" in plan.out
    assert node in plan.out
    assert (await wcp360("accounts", "show", "alice", "--json")).json == before


async def test_account_when_created_dry_shows_what_the_node_would_do(wcp360: Wcp360, node: str) -> None:
    await prepare(wcp360)

    plan = await wcp360(*ALICE, "--dry-run", "--json")

    assert (plan.status, plan.err) == (0, "")
    assert plan.json["nodes"][0]["changes"]
    assert (await wcp360("accounts", "list", "--json")).json["items"] == []


async def test_account_when_suspended_and_deleted_follows_the_words(wcp360: Wcp360, node: str) -> None:
    await prepare(wcp360)
    assert (await wcp360(*ALICE, "--wait")).status == 0

    assert (await wcp360("accounts", "suspend", "alice", "--reason", "unpaid", "--wait")).status == 0
    assert (await wcp360("accounts", "show", "alice", "--json")).json["state"] == "suspended"
    assert (await wcp360("accounts", "delete", "alice", "--grace-days", "0", "--wait")).status == 0
    assert (await wcp360("accounts", "list", "--json")).json["items"] == []


async def test_events_when_followed_tell_of_a_job(wcp360: Wcp360, live_controller: LiveController, node: str) -> None:
    following = asyncio.create_task(wcp360("events", "jobs", "--count", "1", "--json"))
    publisher = live_controller.controller.publisher
    # The node's first jobs may be told, and end the command, before its subscription is seen here.
    await wait_until(lambda: following.done() or any(item.topics for item in publisher._subscriptions))

    async with live_controller.client() as http:
        node_id = (await http.get("/api/v1/nodes")).json()["items"][0]["id"]
        assert (await http.post(f"/api/v1/nodes/{node_id}/ping")).status_code == 202
    ended = await asyncio.wait_for(following, timeout=30)

    assert ended.status == 0
    assert ended.json["topic"] == "jobs"


async def test_node_when_shown_tells_how_it_is_doing_while_it_is_there(
    wcp360: Wcp360, live_controller: LiveController, fleet: SimulatedFleet, node: str
) -> None:
    gateway = live_controller.controller.fleet.gateway
    await wait_until(lambda: bool(gateway.latest_metrics()))

    shown = (await wcp360("nodes", "show", node, "--json")).json
    words = [line.split() for line in (await wcp360("nodes", "show", node)).out.splitlines()]
    async with live_controller.client() as http:
        scraped = (await http.get("/metrics")).text

    assert (shown["metrics"]["gauges"]["cpu_percent"], shown["metrics"]["gauges"]["load_1"]) == (5.0, 0.1)
    assert ["memory", "total", "bytes", "4", "GiB"] in words
    assert ["load", "1", "0.1"] in words
    assert f'wcp360_node_gauge{{name="cpu_percent",node_id="{shown["id"]}"}} 5.0' in scraped

    await fleet.stop()
    await wait_for_away(wcp360, node)
    assert (await wcp360("nodes", "show", node, "--json")).json["metrics"] is None
    async with live_controller.client() as http:
        assert "wcp360_node_gauge{" not in (await http.get("/metrics")).text


async def test_wait_when_the_node_is_away_ends_with_9_and_the_job_goes_on(
    wcp360: Wcp360, fleet: SimulatedFleet, node: str
) -> None:
    assert (await wcp360("nodes", "ping", node, "--wait")).status == 0
    await fleet.stop()

    ended = await wcp360("nodes", "ping", node, "--wait", "--wait-timeout", "0.3", "--json")

    assert (ended.status, ended.out) == (ExitCode.WAIT_TIMEOUT, "")
    job_id = json.loads(ended.err)["job_id"]
    assert (await wcp360("jobs", "show", job_id, "--json")).json["is_final"] is False


async def test_plan_when_the_node_is_away_is_unavailable(wcp360: Wcp360, fleet: SimulatedFleet, node: str) -> None:
    await prepare(wcp360)
    await fleet.stop()
    await wait_for_away(wcp360, node)

    ended = await wcp360(*ALICE, "--node-id", node, "--dry-run", "--json")

    assert (ended.status, ended.out) == (ExitCode.UNAVAILABLE, "")
    assert json.loads(ended.err)["code"] == "agent_offline"


async def wait_for_away(wcp360: Wcp360, node: str) -> None:
    async with asyncio.timeout(20):
        while (await wcp360("nodes", "show", node, "--json")).json["is_connected"]:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.01)
