"""What a job tells and what can be done with it: explained, retried, put aside, watched, logged, counted."""

from __future__ import annotations

import json
import re
import ssl
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.e2e.fleet import MIB, Fleet, wait_until

RESIDENT_BYTES_MAX = 64 * MIB


def ask_for_account(fleet: Fleet, node: str, name: str) -> httpx.Response:
    body = {
        "name": name,
        "client_id": fleet.client(),
        "package_id": fleet.package(),
        "node_id": fleet.node_id(node),
    }
    return fleet.ask("POST", "/accounts", body)


def fail_account(fleet: Fleet, node: str) -> tuple[str, dict[str, Any]]:
    """An account that cannot be made because a file is in the way of its home; its name and the failed job."""
    name = f"acc{next(fleet.numbers)}"
    fleet.node(node).write_text(f"/srv/accounts/{name}", "in the way")
    answer = ask_for_account(fleet, node, name)
    assert answer.status_code == 202, answer.text
    job = fleet.ended(answer.json()["jobs"][0]["id"])
    assert job["state"] == "failed", job
    return name, job


def test_job_when_it_failed_can_be_retried(fleet: Fleet, node: str) -> None:
    name, job = fail_account(fleet, node)
    assert job["needs_attention"]
    assert f"/srv/accounts/{name}" in job["error"]["message"]
    assert job["explanation"]["is_rolled_back"]
    assert fleet.run(node, "/usr/bin/getent", "passwd", name).exit_code != 0, "nothing of it is left"
    assert fleet.node(node).read_text(f"/srv/accounts/{name}") == "in the way", "what was there is untouched"
    fleet.run(node, "/usr/bin/rm", f"/srv/accounts/{name}").check()

    again = fleet.api.call("POST", f"/jobs/{job['id']}/retry")["jobs"][0]

    assert again["retry_of"] == job["id"]
    assert fleet.ended(again["id"])["state"] == "succeeded"
    account = fleet.api.find("accounts", name)
    assert account is not None
    assert account["is_converged"]
    assert account["observed_code"] is None


def test_job_when_it_was_put_aside_stays_so(fleet: Fleet, node: str) -> None:
    name, job = fail_account(fleet, node)

    discarded = fleet.api.call("POST", f"/jobs/{job['id']}/discard")

    assert (discarded["state"], discarded["needs_attention"]) == ("discarded", False)
    for verb in ("retry", "discard", "cancel"):
        assert fleet.ask("POST", f"/jobs/{job['id']}/{verb}").status_code == 409
    fleet.run(node, "/usr/bin/rm", f"/srv/accounts/{name}").check()
    account = fleet.api.find("accounts", name)
    assert account is not None
    fleet.change("DELETE", f"/accounts/{account['id']}?grace_days=0")
    assert fleet.api.find("accounts", name) is None


def test_job_when_explained_says_who_what_and_how_to_undo(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    domain = f"explained-{account['name']}.example"
    answer = fleet.ask("POST", "/sites", {"account_id": account["id"], "domain": domain})
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.json()['jobs'][0]['id']}"

    job = fleet.ended(answer.json()["jobs"][0]["id"])

    told = job["explanation"]
    user = fleet.api.call("GET", "/auth/me")
    assert told["asked_by"] == job["actor"] == f"user/{user['id']}"
    assert told["request_id"] == answer.headers["X-Request-Id"]
    assert f"account/{account['name']} as generation 2" in told["rule"]
    assert f"/etc/nginx/wcp360/sites/{domain}.conf" in told["files"]
    assert any(f"/srv/accounts/{account['name']}/sites/{domain}" in command for command in told["commands"])
    assert told["reloads"] == ["nginx.service"]
    assert told["undo"][0].startswith(f"Change account/{account['name']} back")
    assert told["undo"][1].startswith(f"/etc/nginx/wcp360/sites/{domain}.conf: ")
    assert told["irreversible"] == []
    assert all(change["reason"] for change in told["changes"])
    outcomes = {resource["key"]: resource["outcome"] for resource in told["resources"]}
    assert outcomes == {f"account/{account['name']}": "unchanged", f"site/{domain}": "changed"}
    states = [step["to_state"] for step in told["timeline"]]
    assert states[:3] == ["requested", "queued", "offered"]
    assert states[-1] == "succeeded"
    assert told["next_step"] == ""


def test_events_when_a_site_is_created_tell_the_jobs_life(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    url = f"wss://127.0.0.1:{fleet.controller.api_port}/api/v1/events"
    trust = ssl.create_default_context(cafile=str(fleet.controller.ca_file))
    headers = {"Authorization": fleet.api._http.headers["Authorization"]}
    with connect(url, ssl=trust, additional_headers=headers) as socket:
        socket.send(json.dumps({"subscribe": ["jobs", "sites"]}))
        while json.loads(socket.recv(timeout=10))["event"] != "subscribed":
            pass

        job_id = fleet.api.call(
            "POST", "/sites", {"account_id": account["id"], "domain": f"seen-{account['name']}.example"}
        )
        job_id = job_id["jobs"][0]["id"]

        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != "job.succeeded":
            seen.append(json.loads(socket.recv(timeout=30)))

    assert {"topic": "sites", "event": "site.create"}.items() <= seen[0].items()
    jobs = [notice for notice in seen if notice["topic"] == "jobs"]
    assert {notice["data"]["id"] for notice in jobs} == {job_id}
    assert jobs[0]["event"] == "job.offered"
    assert jobs[-1]["data"]["account_id"] == account["id"]


def test_events_when_nobody_signed_in_say_nothing(fleet: Fleet) -> None:
    url = f"wss://127.0.0.1:{fleet.controller.api_port}/api/v1/events"
    trust = ssl.create_default_context(cafile=str(fleet.controller.ca_file))
    with connect(url, ssl=trust) as socket:
        socket.send(json.dumps({"token": "wcp_wrong"}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=15)

    assert socket.close_code == 4401


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_logs_when_a_change_is_made_join_request_and_job_on_both_sides(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    answer = fleet.ask("POST", "/sites", {"account_id": account["id"], "domain": f"logged-{account['name']}.example"})
    ids = {"request_id": answer.headers["X-Request-Id"], "job_id": answer.json()["jobs"][0]["id"]}
    fleet.ended(ids["job_id"])

    controller_log = fleet.controller.log_path.read_text()
    node_log = fleet.run(node, "/usr/bin/journalctl", "-u", "wcp-executor.service", "-o", "cat", "--no-pager").stdout

    lines = [line for line in json_lines(controller_log) if line.get("request_id") == ids["request_id"]]
    request = next(line for line in lines if line["logger"] == "controller.access")
    assert (request["route"], request["status"]) == ("/api/v1/sites", 202)
    told = [line["message"] for line in lines if line.get("job_id") == ids["job_id"]]
    assert told[0] == "job.offered"
    assert told[-1] == "job.succeeded"
    of_node = [line["message"] for line in json_lines(node_log) if ids.items() <= line.items()]
    assert of_node[0].startswith("job started: manifest.converge@1")
    assert of_node[-1] == "job ended: succeeded"
    assert all(line["timestamp"] and line["level"] for line in lines)
    password = fleet.controller.admin["password"]
    assert password not in controller_log
    assert fleet.api._http.headers["Authorization"].removeprefix("Bearer ") not in controller_log


def test_metrics_when_read_count_nodes_and_jobs(fleet: Fleet, node: str) -> None:
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")

    def read() -> dict[str, float]:
        answer = httpx.get(
            f"{fleet.controller.url}/metrics",
            verify=ssl.create_default_context(cafile=str(fleet.controller.ca_file)),
        )
        assert answer.status_code == 200
        rows = re.findall(r"^([a-z][^\s{]*(?:\{[^}]*\})?) (\S+)$", answer.text, re.MULTILINE)
        return {name: float(value) for name, value in rows}

    connected = sum(1 for item in fleet.api.call("GET", "/nodes?limit=200")["items"] if item["is_connected"])
    assert read()["wcp360_nodes_connected"] == connected >= 2
    assert read()['wcp360_jobs{state="succeeded"}'] >= 1
    load = f'wcp360_node_gauge{{name="load_1",node_id="{fleet.node_id(node)}"}}'
    wait_until(lambda: load in read(), timeout_seconds=20, what="the node has sent a sample")


def test_agent_when_idle_is_small(fleet: Fleet, each_node: str) -> None:
    pid = fleet.run(each_node, "/usr/bin/systemctl", "show", "-P", "MainPID", "wcp-agent.service").stdout.strip()

    status = fleet.run(each_node, "/usr/bin/cat", f"/proc/{pid}/status").check().stdout

    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024
    assert 0 < resident <= RESIDENT_BYTES_MAX
