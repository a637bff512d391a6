"""Looking after real nodes: maintenance, drain and reboot, health, parked resources, explanations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until

HEALTH_SECONDS = 60.0
"""The agent looks at its units every 15 s."""


def module_health(fleet: Fleet, node: str, name: str) -> dict[str, Any] | None:
    items = fleet.api.call("GET", f"/nodes/{fleet.node_id(node)}/modules")["items"]
    found: dict[str, Any] | None = next(item for item in items if item["name"] == name)["health"]
    return found


def wait_health(fleet: Fleet, node: str, name: str, *, is_healthy: bool) -> dict[str, Any]:
    health: dict[str, Any] = wait_until(
        lambda: (seen := module_health(fleet, node, name)) and seen["is_healthy"] is is_healthy and seen,
        timeout_seconds=HEALTH_SECONDS,
        what=f"{name} on {node} is {'healthy' if is_healthy else 'not healthy'}",
    )
    return health


def node_health(fleet: Fleet, node_id: str) -> dict[str, Any]:
    health: dict[str, Any] = fleet.api.call("GET", f"/nodes/{node_id}")["health"]
    return health


def test_maintenance_when_it_ends_the_waiting_change_is_made(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    node_id = fleet.node_id(node)
    fleet.api.call("POST", f"/nodes/{node_id}/maintenance", {"reason": "new disk"})

    answer = fleet.api.call("PATCH", f"/sites/{site['id']}", {"aliases": [f"www.{site['domain']}"]})
    job_id = answer["jobs"][0]["id"]

    assert "node in maintenance" in fleet.api.call("GET", f"/jobs/{job_id}/explain")["explanation"]["waits_for"]
    assert fleet.get(node, site["domain"]).status_code == 200
    assert fleet.get(node, f"www.{site['domain']}").status_code == 404
    ping = fleet.api.call("POST", f"/nodes/{node_id}/drift-check")
    assert fleet.ended(ping["jobs"][0]["id"])["state"] == "succeeded"
    view = fleet.api.call("GET", f"/nodes/{node_id}")
    assert [hold["kind"] for hold in view["holds"]] == ["maintenance"]
    assert view["health"]["is_muted"] is True

    fleet.api.call("DELETE", f"/nodes/{node_id}/maintenance")

    assert fleet.ended(job_id)["state"] == "succeeded"
    assert fleet.get(node, f"www.{site['domain']}").status_code == 200


def test_maintenance_when_its_time_is_over_ends_by_itself(fleet: Fleet, node: str) -> None:
    node_id = fleet.node_id(node)
    until = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    fleet.api.call("POST", f"/nodes/{node_id}/maintenance", {"reason": "short", "until": until})
    account_job = fleet.api.call("POST", f"/nodes/{node_id}/modules/account/enable")["jobs"][0]["id"]

    assert fleet.ended(account_job, timeout_seconds=90)["state"] == "succeeded"

    assert fleet.api.call("GET", f"/nodes/{node_id}")["holds"] == []


def test_maintenance_when_drift_would_be_repaired_by_policy_leaves_it_until_the_end(fleet: Fleet, node: str) -> None:
    site = fleet.site(fleet.account(node))
    node_id = fleet.node_id(node)
    path = f"/etc/nginx/wcp360/sites/{site['domain']}.conf"
    original = fleet.node(node).read_text(path)

    def is_reported() -> bool:
        items = fleet.api.call("GET", f"/drift?node_id={node_id}")["items"]
        return any(row["key"] == f"site/{site['domain']}" and not row["is_repaired"] for row in items)

    fleet.change("PATCH", f"/nodes/{node_id}", {"drift_policy": "repair"})
    try:
        with fleet.settings(WCP360_DRIFT_CHECK_SECONDS="2"):
            fleet.api.call("POST", f"/nodes/{node_id}/maintenance", {"reason": "hands on it"})
            fleet.run(node, "/bin/sh", "-c", f"echo '# by hand' >> {path}").check()
            wait_until(is_reported, timeout_seconds=60, what="the drift is reported, and only that")
            assert fleet.node(node).read_text(path) == original + "# by hand\n"

            fleet.api.call("DELETE", f"/nodes/{node_id}/maintenance")

            what = "the drift is repaired by itself again"
            wait_until(lambda: fleet.node(node).read_text(path) == original, timeout_seconds=60, what=what)
    finally:
        fleet.change("PATCH", f"/nodes/{node_id}", {"drift_policy": "report"})


def test_drain_when_the_node_was_rebooted_stays_until_it_is_released(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    node_id = fleet.node_id(node)

    fleet.api.call("POST", f"/nodes/{node_id}/drain", {"reason": "new kernel"})
    view = wait_until(
        lambda: (seen := fleet.api.call("GET", f"/nodes/{node_id}/drain"))["state"] == "drained" and seen,
        timeout_seconds=60,
        what="drained",
    )
    assert account["name"] in [row["name"] for row in view["accounts"]]
    assert "cannot move" in view["note"]
    waiting = fleet.api.call("PATCH", f"/sites/{site['id']}", {"document_root": "public/web"})["jobs"][0]["id"]
    fleet.node(node).stop()
    fleet.node(node).start()
    wait_until(lambda: fleet.is_ready(node), timeout_seconds=120, what="the node is back")

    assert fleet.api.call("GET", f"/nodes/{node_id}/drain")["state"] == "drained"
    assert fleet.api.call("GET", f"/jobs/{waiting}")["state"] in ("requested", "queued")
    refused = fleet.ask("POST", "/accounts", account_body(fleet, node))
    assert refused.status_code == 409

    fleet.api.call("POST", f"/nodes/{node_id}/undrain")

    assert fleet.ended(waiting)["state"] == "succeeded"
    assert fleet.api.call("GET", f"/nodes/{node_id}")["is_cordoned"] is False


def account_body(fleet: Fleet, node: str) -> dict[str, Any]:
    return {
        "name": "nowhere",
        "client_id": fleet.client(),
        "package_id": fleet.package(),
        "node_id": fleet.node_id(node),
    }


def test_health_when_nginx_was_stopped_is_seen_and_seen_again_when_it_runs(fleet: Fleet, each_node: str) -> None:
    node_id = fleet.node_id(each_node)
    fleet.api.call("POST", f"/nodes/{node_id}/health-check")
    good = wait_health(fleet, each_node, "web", is_healthy=True)
    assert {check["name"] for check in good["checks"]} == {"service", "listening", "config"}
    assert good["version"]
    assert good["last_reload_at"]

    fleet.run(each_node, "/usr/bin/systemctl", "stop", "nginx.service").check()
    try:
        bad = wait_health(fleet, each_node, "web", is_healthy=False)
        # What the module says is there first, what follows from it for the node a moment later.
        health = wait_until(
            lambda: (seen := node_health(fleet, node_id)) and seen["status"] == "unhealthy" and seen,
            timeout_seconds=HEALTH_SECONDS,
            what="the node is unhealthy",
        )
        items = fleet.api.call("GET", f"/attention?node_id={node_id}&kind=node")["items"]
    finally:
        fleet.run(each_node, "/usr/bin/systemctl", "start", "nginx.service").check()

    assert "nginx.service is not running" in [check["note"] for check in bad["checks"] if not check["is_good"]]
    assert "module_unhealthy" in [reason["code"] for reason in health["reasons"]]
    assert [item["id"] for item in items] == [f"node.{node_id}"]
    wait_health(fleet, each_node, "web", is_healthy=True)
    wait_until(
        lambda: node_health(fleet, node_id)["status"] == "healthy",
        timeout_seconds=30,
        what="the node is healthy again",
    )


def test_health_when_a_configuration_is_broken_by_hand_tells_the_validators_words(fleet: Fleet, node: str) -> None:
    site = fleet.site(fleet.account(node))
    path = f"/etc/nginx/wcp360/sites/{site['domain']}.conf"
    fleet.run(node, "/bin/sh", "-c", f"echo 'no_such_directive on;' >> {path}").check()
    try:
        fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/health-check")
        health = wait_health(fleet, node, "web", is_healthy=False)
        words = next(check["note"] for check in health["checks"] if check["name"] == "config")
        assert 'unknown directive "no_such_directive"' in words
        assert path in words
        assert fleet.get(node, site["domain"]).status_code == 200
    finally:
        fleet.change("POST", f"/accounts/{site['account_id']}/converge")
        fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/health-check")
    wait_health(fleet, node, "web", is_healthy=True)


def test_pool_when_php_refuses_it_is_parked_not_live_and_can_be_retried(fleet: Fleet, each_node: str) -> None:
    version = php_version(fleet.node(each_node))
    neighbour = fleet.site(fleet.account(each_node), php_version=version)
    account = fleet.account(each_node)
    program = f"/usr/sbin/php-fpm{version}"
    script = f"mv {program} {program}.real && printf '%s\\n' '#!/bin/sh' 'echo \"ERROR: bad pool\" >&2' 'exit 78' > {program} && chmod 755 {program}"
    fleet.run(each_node, "/bin/sh", "-c", script).check()
    body = {"account_id": account["id"], "domain": f"php-{account['name']}.example", "php_version": version}
    try:
        answer = fleet.api.call("POST", "/sites", body)
        job = fleet.ended(answer["jobs"][0]["id"])
    finally:
        fleet.run(each_node, "/bin/mv", f"{program}.real", program).check()

    assert job["state"] == "failed", job
    validators = job["explanation"]["validators"]
    assert any(run["exit_code"] == 78 and "bad pool" in run["output"] for run in validators), validators
    parked = {row["kind"]: row for row in fleet.api.call("GET", f"/parked?account_id={account['id']}")["items"]}
    assert set(parked) == {"php_pool", "site"}
    assert "bad pool" in parked["php_pool"]["message"]
    assert "pm.max_children" in parked["php_pool"]["diff"]
    uid = account["uid"]
    assert fleet.run(each_node, "/bin/ls", f"/etc/wcp360/php/{version}/{uid}.conf").exit_code != 0
    assert fleet.get(each_node, neighbour["domain"]).status_code == 200

    bulk = fleet.api.call("POST", "/parked/retry", {"account_id": account["id"]})

    assert bulk["failed"] == 0, bulk
    wait_until(
        lambda: fleet.api.call("GET", f"/parked?account_id={account['id']}")["items"] == [],
        timeout_seconds=60,
        what="nothing is parked any more",
    )
    assert fleet.get(each_node, body["domain"]).status_code == 200


def test_job_when_explained_names_asker_commands_tests_and_the_way_back(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    answer = fleet.api.call(
        "POST", "/sites", {"account_id": account["id"], "domain": f"told-{account['name']}.example"}
    )

    job = fleet.ended(answer["jobs"][0]["id"])
    told = job["explanation"]

    assert job["state"] == "succeeded"
    assert told["asker"]["kind"] == "user"
    assert told["asker"]["address"] == "127.0.0.1"
    assert told["asker"]["request_id"] == job["request_id"]
    assert told["cause"]["permission"] == "sites:write"
    assert f"site.create told-{account['name']}.example" in told["cause"]["changes"]
    assert told["validators"][0]["argv"][0] == "/usr/sbin/nginx"
    assert told["validators"][0]["exit_code"] == 0
    assert f"wcp360 sites delete told-{account['name']}.example" in told["undo_commands"]
    assert [attempt["state"] for attempt in told["attempts"]] == ["succeeded"]
    assert told["undo"]


def test_dry_run_when_nginx_would_refuse_the_change_says_so(fleet: Fleet, node: str) -> None:
    site = fleet.site(fleet.account(node))

    plan = fleet.api.call("PATCH", f"/sites/{site['id']}?dry_run=true", {"extra_directives": "no_such_directive on;"})

    assert "no_such_directive" in str(plan["nodes"][0])
    assert plan["nodes"][0]["error"] is not None or any(
        row["outcome"] == "parked" for row in plan["nodes"][0]["resources"]
    )


@pytest.mark.parametrize("path", ["attention", "parked"])
def test_lists_of_what_needs_a_person_answer(fleet: Fleet, path: str) -> None:
    assert "items" in fleet.api.call("GET", f"/{path}")
