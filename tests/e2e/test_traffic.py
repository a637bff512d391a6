"""What sites of real nodes serve is counted from their logs, and what their programs use of the processor."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.fleet import MIB, Fleet, php_version, wait_until
from tests.e2e.test_packages import state_of

BURNS = """<?php
do { for ($i = 0; $i < 10000; $i++) { hash('sha256', 'x'); } $used = getrusage(); } while ($used['ru_utime.tv_sec'] < 2);
echo 'burnt';"""
"""A program that takes two seconds of the processor, however long that is."""


def measured(fleet: Fleet, node: str, account: dict[str, Any], key: str) -> int:
    """What the ledger says after one more look at the node and one more measurement; 0: nothing yet."""
    fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/health-check")
    fleet.api.call("POST", "/schedules/usage.measure/run")
    items = fleet.api.call("GET", f"/accounts/{account['id']}/usage")["items"]
    used: int | None = next(item for item in items if item["limit"] == key)["used"]
    return used or 0


def logged(fleet: Fleet, node: str, account: dict[str, Any]) -> int:
    """The sum of what the node's own logs say, each line read by another program than ours."""
    script = f"cat /var/log/wcp360/sites/{account['name']}/*.access.log* | awk '{{ s += $(NF-1) + $NF }} END {{ print s+0 }}'"
    return int(fleet.run(node, "/bin/sh", "-c", script).check().stdout)


def test_traffic_when_a_site_serves_is_counted_once_and_suspends_over_the_limit(fleet: Fleet, each_node: str) -> None:
    package_id = fleet.package(
        f"traffic {each_node}",
        limits={"bandwidth_bytes": {"soft": 3 * MIB, "hard": 5 * MIB}},
        overuse={"action": "suspend", "grace_hours": 0},
    )
    account = fleet.account(each_node, package_id=package_id)
    site = fleet.site(account)
    fleet.write_as(
        each_node, account["name"], f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/big.bin", "x" * MIB
    )

    for _ in range(2):
        assert len(fleet.get(each_node, site["domain"], "/big.bin").content) == MIB
    first = wait_until(
        lambda: (used := measured(fleet, each_node, account, "bandwidth_bytes")) >= 2 * MIB and used,
        timeout_seconds=90,
        what="two answers are counted",
    )
    served = logged(fleet, each_node, account)
    assert fleet.get(each_node, site["domain"], "/big.bin").status_code == 200
    fleet.run(each_node, "/usr/sbin/logrotate", "--force", "/etc/logrotate.d/wcp360-sites").check()
    fleet.run(each_node, "/usr/bin/systemctl", "stop", "wcp-executor.service").check()
    for _ in range(3):
        assert fleet.get(each_node, site["domain"], "/big.bin").status_code == 200
    over = wait_until(
        lambda: (used := measured(fleet, each_node, account, "bandwidth_bytes")) >= 6 * MIB and used,
        timeout_seconds=90,
        what="answers before and after the rotation are counted",
    )
    wait_until(lambda: state_of(fleet, account) == "suspended", timeout_seconds=90, what="the policy suspends it")

    assert first == served
    assert over == logged(fleet, each_node, account)
    larger = fleet.package(f"more traffic {each_node}", limits={"bandwidth_bytes": 50 * MIB})
    fleet.change("PATCH", f"/accounts/{account['id']}", {"package_id": larger})
    wait_until(
        lambda: measured(fleet, each_node, account, "bandwidth_bytes") and state_of(fleet, account) == "active",
        timeout_seconds=90,
        what="a larger package restores it",
    )


def test_processor_time_when_a_program_runs_is_counted(fleet: Fleet, each_node: str) -> None:
    account = fleet.account(each_node)
    site = fleet.site(account, php_version=php_version(fleet.node(each_node)))
    path = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"
    fleet.write_as(each_node, account["name"], path, BURNS)

    url = f"http://{fleet.node(each_node).address}/"
    assert httpx.get(url, headers={"Host": site["domain"]}, timeout=60.0).text == "burnt"
    used = wait_until(
        lambda: (used := measured(fleet, each_node, account, "cpu_seconds")) >= 2 and used,
        timeout_seconds=120,
        what="the processor time is counted",
    )

    assert 2 <= used < 30
