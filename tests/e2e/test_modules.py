"""A spare node that nobody uses: its modules are taken away and brought back, and in the end it is revoked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until

PACKAGE = {"web": "nginx", "php": "fpm"}
FOLDER = {"web": "/etc/nginx/wcp360", "php": "/etc/wcp360/php"}


@pytest.fixture(scope="module")
def spare(fleet: Fleet) -> Iterator[str]:
    """A third node, enrolled for this file only."""
    fleet.lab.up(3, suites=["bookworm", "trixie"])
    name = f"{fleet.lab.name}-3"
    fleet.lab.reset_node(name)
    fleet.enrol(name)
    yield name
    found = fleet.api.find("nodes", name)
    if found and found["state"] != "revoked":
        fleet.api.call("POST", f"/nodes/{found['id']}/revoke")
    fleet.lab.node(name).stop()


def installed(fleet: Fleet, node: str) -> list[str]:
    """Names of the Debian packages that are fully installed."""
    argv = ["/usr/bin/dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"]
    lines = fleet.run(node, *argv).check().stdout.splitlines()
    return [line.split()[1] for line in lines if line.startswith("ii")]


def status_of(fleet: Fleet, node: str, module: str) -> str:
    status: str = fleet.api.call("GET", f"/nodes/{fleet.node_id(node)}/modules/{module}/status")["observed_status"]
    return status


@pytest.mark.parametrize("module", ["php", "web"])
def test_module_when_removed_and_installed_again_serves(fleet: Fleet, spare: str, module: str) -> None:
    path = f"/nodes/{fleet.node_id(spare)}/modules/{module}"
    plan = fleet.api.call("POST", f"{path}/remove?dry_run=true")
    assert any(change["action"] == "remove_packages" for change in plan["nodes"][0]["changes"])
    assert status_of(fleet, spare, module) == "enabled"

    fleet.change("POST", f"{path}/remove")

    assert status_of(fleet, spare, module) == "absent"
    assert not [name for name in installed(fleet, spare) if PACKAGE[module] in name]
    assert fleet.run(spare, "/usr/bin/test", "-e", FOLDER[module]).exit_code != 0
    fleet.change("POST", f"{path}/install")
    assert status_of(fleet, spare, module) == "disabled"
    assert [name for name in installed(fleet, spare) if PACKAGE[module] in name]
    assert fleet.run(spare, "/usr/bin/systemctl", "is-active", "nginx", "wcp-php.target").stdout.count("inactive") == 1
    fleet.change("POST", f"{path}/enable")
    assert status_of(fleet, spare, module) == "enabled"
    account = fleet.account(spare)
    site = fleet.site(account, php_version=php_version(fleet.node(spare)))
    page = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"
    fleet.write_as(spare, account["name"], page, "<?php echo 'back again';")
    assert fleet.get(spare, site["domain"]).text == "back again"
    fleet.change("DELETE", f"/accounts/{account['id']}?grace_days=0")


@pytest.mark.parametrize("module", ["account", "php", "web"])
def test_module_when_it_has_users_is_not_removed(fleet: Fleet, each_node: str, module: str) -> None:
    account = fleet.account(each_node)
    site = fleet.site(account, php_version=php_version(fleet.node(each_node)))
    path = f"/nodes/{fleet.node_id(each_node)}/modules/{module}"

    job = fleet.ended(fleet.api.call("POST", f"{path}/remove")["jobs"][0]["id"])

    assert job["state"] == "failed"
    assert status_of(fleet, each_node, module) == "parked"
    assert fleet.get(each_node, site["domain"]).status_code == 200
    fleet.change("POST", f"{path}/enable")
    assert status_of(fleet, each_node, module) == "enabled"
    assert fleet.get(each_node, site["domain"]).status_code == 200


def test_node_when_revoked_is_cut_off_and_serves_on(fleet: Fleet, spare: str) -> None:
    account = fleet.account(spare)
    site = fleet.site(account)
    node_id = fleet.node_id(spare)

    revoked = fleet.api.call("POST", f"/nodes/{node_id}/revoke")

    assert revoked["state"] == "revoked"
    wait_until(
        lambda: not fleet.api.find("nodes", spare)["is_connected"], timeout_seconds=10, what="the connection is cut"
    )
    new_account = {"name": "late", "client_id": fleet.client(), "package_id": fleet.package(), "node_id": node_id}
    for path, body in (
        (f"/nodes/{node_id}/ping", None),
        (f"/nodes/{node_id}/modules/web/disable", None),
        ("/accounts", new_account),
    ):
        answer = fleet.ask("POST", path, body)
        assert answer.status_code == 409, (path, answer.status_code, answer.text)
    late = {"account_id": account["id"], "domain": f"late-{account['name']}.example"}
    refused = fleet.ask("POST", "/sites", late)
    assert (refused.status_code, refused.json()["code"]) == (409, "node_revoked")
    fleet.run(spare, "/usr/bin/systemctl", "restart", "wcp-agent.service").check()

    def is_turned_away() -> bool:
        log = fleet.run(spare, "/usr/bin/journalctl", "-u", "wcp-agent.service", "-o", "cat", "--no-pager").stdout
        return "does not accept this node any more" in log.rpartition("Starting")[2]

    wait_until(is_turned_away, timeout_seconds=30, what="the agent is told that it is revoked")
    assert not fleet.api.find("nodes", spare)["is_connected"]
    assert fleet.get(spare, site["domain"]).status_code == 200, "what it serves goes on"
    assert fleet.get(spare, late["domain"]).status_code == 404
    assert fleet.ask("DELETE", f"/accounts/{account['id']}?grace_days=0").status_code == 202, (
        "nobody will answer: it is gone at once"
    )
    assert fleet.ask("DELETE", f"/nodes/{node_id}").status_code == 204
    assert fleet.api.find("nodes", spare) is None
