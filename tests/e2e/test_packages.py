"""What packages say reaches the nodes: edits in waves to the kernel, and what tenants really use to the policy."""

from __future__ import annotations

from typing import Any

from tests.e2e.fleet import MIB, Fleet, wait_until
from tests.e2e.test_hosting import cgroup_value

OLD, NEW = 256 * MIB, 320 * MIB


def memory_of(fleet: Fleet, node: str, account: dict[str, Any]) -> int:
    """What the kernel enforces."""
    return cgroup_value(fleet, node, account["uid"], ("memory", "memory.limit_in_bytes"), "memory.max")


def rollout_in(fleet: Fleet, rollout_id: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(
        lambda: (row := fleet.api.call("GET", f"/package-rollouts/{rollout_id}"))["state"] == state and row,
        timeout_seconds=90,
        what=f"the rollout is {state}",
    )
    return found


def test_edit_in_waves_when_an_account_fails_halts_and_reaches_the_kernel_once_it_is_mended(
    fleet: Fleet, node: str
) -> None:
    package_id = fleet.package("in waves", memory_bytes=OLD)
    accounts = [fleet.account(node, package_id=package_id) for _ in range(3)]
    first = accounts[0]["name"]
    home = f"/srv/accounts/{first}"
    # A tenant who replaces ~/tmp by a link is not followed there, so the account cannot be converged.
    script = f"mv {home}/tmp {home}/tmp.mine && ln -s /etc {home}/tmp"
    fleet.run(node, "/usr/sbin/runuser", "-u", first, "--", "/bin/sh", "-c", script).check()

    terms = {"waves": ["1", "100%"], "soak_seconds": 0, "failures_max": 0}
    answer = fleet.api.call("PATCH", f"/packages/{package_id}", {"memory_bytes": NEW, "rollout": terms})
    rollout_id = answer["resource"]["rollout_id"]
    halted = rollout_in(fleet, rollout_id, "halted")
    items = fleet.api.call("GET", "/attention?kind=package_rollout")["items"]

    assert "1 account failed, 0 allowed" in halted["blocked_by"]
    assert [item["id"] for item in items] == [f"package_rollout.{rollout_id}"]
    assert [memory_of(fleet, node, account) for account in accounts] == [OLD, OLD, OLD]
    fleet.run(node, "/bin/sh", "-c", f"rm {home}/tmp && mv {home}/tmp.mine {home}/tmp").check()
    fleet.api.call("POST", f"/package-rollouts/{rollout_id}/resume", {"is_retrying": True})
    rollout_in(fleet, rollout_id, "finished")
    assert [memory_of(fleet, node, account) for account in accounts] == [NEW, NEW, NEW]


def measured(fleet: Fleet, node: str, account: dict[str, Any]) -> dict[str, Any]:
    """What the ledger says of the account's disk after one more look at the node and one more measurement."""
    fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/health-check")
    fleet.api.call("POST", "/schedules/usage.measure/run")
    items = fleet.api.call("GET", f"/accounts/{account['id']}/usage")["items"]
    found: dict[str, Any] = next(item for item in items if item["limit"] == "disk_bytes")
    return found


def state_of(fleet: Fleet, account: dict[str, Any]) -> str:
    state: str = fleet.api.call("GET", f"/accounts/{account['id']}")["state"]
    return state


def test_tenant_when_over_the_soft_disk_limit_is_told_of_suspended_and_restored(fleet: Fleet, each_node: str) -> None:
    package_id = fleet.package(
        f"soft disk {each_node}",
        limits={"disk_bytes": {"soft": 20 * MIB}},
        overuse={"action": "alert", "grace_hours": 0},
    )
    account = fleet.account(each_node, package_id=package_id)
    path = f"/srv/accounts/{account['name']}/tmp/big"
    argv = ["/usr/bin/dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=30", "conv=fsync"]
    fleet.run(each_node, "/usr/sbin/runuser", "-u", account["name"], "--", *argv).check()

    near = wait_until(
        lambda: (use := measured(fleet, each_node, account))["state"] == "near" and use,
        timeout_seconds=90,
        what="the soft limit is passed",
    )
    alerts = fleet.api.call("GET", f"/attention?kind=usage&account_id={account['id']}")["items"]
    still = state_of(fleet, account)
    fleet.change("PATCH", f"/packages/{package_id}", {"overuse": {"action": "suspend"}})
    wait_until(
        lambda: measured(fleet, each_node, account) and state_of(fleet, account) == "suspended",
        timeout_seconds=90,
        what="the policy suspends it",
    )
    fleet.run(each_node, "/usr/bin/rm", path).check()
    wait_until(
        lambda: measured(fleet, each_node, account) and state_of(fleet, account) == "active",
        timeout_seconds=90,
        what="the account is within its limits and serves again",
    )

    assert 30 * MIB <= near["used"] < 64 * MIB
    assert [item["title"] for item in alerts] == [f"account {account['name']} nears its limit of disk_bytes"]
    assert still == "active"
    history = fleet.api.call("GET", f"/accounts/{account['id']}/usage-history?key=disk_bytes")["items"]
    assert history[0]["peak"] >= 30 * MIB > history[0]["last"]


def fill(fleet: Fleet, node: str, account: dict[str, Any], name: str, mebibytes: int) -> bool:
    """Write a file as the tenant; whether it fitted."""
    path = f"/srv/accounts/{account['name']}/tmp/{name}"
    argv = ["/usr/bin/dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={mebibytes}", "conv=fsync"]
    return fleet.run(node, "/usr/sbin/runuser", "-u", account["name"], "--", *argv).exit_code == 0


def test_tenant_who_holds_more_than_a_cut_package_allows_gets_a_larger_one(fleet: Fleet, each_node: str) -> None:
    package_id = fleet.package(f"cut disk {each_node}", disk_bytes=64 * MIB)
    larger_id = fleet.package(f"larger disk {each_node}", disk_bytes=96 * MIB)
    account = fleet.account(each_node, package_id=package_id)
    assert fill(fleet, each_node, account, "before", 48)
    fleet.change("PATCH", f"/packages/{package_id}", {"disk_bytes": 32 * MIB})
    assert not fill(fleet, each_node, account, "too-much", 16)

    fleet.change("PATCH", f"/accounts/{account['id']}", {"package_id": larger_id})

    assert fill(fleet, each_node, account, "after", 16)
