"""Package, client, account and site, as an administrator would make them; then a visitor's request."""

from __future__ import annotations

import time
from typing import Any

import httpx
from api import Api
from nodes import Nodes, RealNodes
from say import QuickstartError, say, step

SITE_HOST = "demo.example"
ACCOUNT = "demo"
PAGE = """<?php
echo 'Hello from ', gethostname(), ', PHP ', PHP_VERSION, ', as ', get_current_user(), PHP_EOL;
"""
MODULES = {"account", "php", "ssh", "web"}
READY_TIMEOUT_SECONDS = 240.0
MIB = 1024 * 1024


def wait_for_nodes(api: Api, names: list[str]) -> list[dict[str, Any]]:
    """All nodes, once each is connected and its modules are enabled.

    Raises:
        QuickstartError: Not within READY_TIMEOUT_SECONDS.
    """
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        nodes = [node for node in api.call("GET", "/nodes?limit=200")["items"] if node["name"] in names]
        if len(nodes) == len(names) and all(_is_ready(api, node) for node in nodes):
            return nodes
        if time.monotonic() > deadline:
            raise QuickstartError("the nodes did not become ready", hint=f"Seen: {[_describe(node) for node in nodes]}")
        time.sleep(0.3)


def _is_ready(api: Api, node: dict[str, Any]) -> bool:
    if not node["is_connected"]:
        return False
    modules = api.call("GET", f"/nodes/{node['id']}/modules")["items"]
    ready = {module["name"] for module in modules if module["observed_status"] == "enabled"}
    return ready >= MODULES


def _describe(node: dict[str, Any]) -> str:
    return f"{node['name']} {node['state']} {'connected' if node['is_connected'] else 'not connected'}"


def ensure_site(api: Api, nodes: list[dict[str, Any]], where: Nodes) -> dict[str, Any]:
    """The demo site, made if it is missing, with a PHP page in it."""
    with step("creating a package, a client, an account and a site with PHP"):
        package = api.ensure(
            "packages", "starter",
            {"name": "starter", "description": "One core, 512 MiB, 1 GiB of disk", "cpu_percent": 100,
             "memory_bytes": 512 * MIB, "processes_max": 100, "disk_bytes": 1024 * MIB},
        )  # fmt: skip
        client = api.ensure("clients", "Demo Ltd", {"name": "Demo Ltd", "email": "owner@demo.example"})
        account = api.ensure(
            "accounts", ACCOUNT,
            {"name": ACCOUNT, "client_id": client["id"], "package_id": package["id"], "node_id": nodes[0]["id"]},
        )  # fmt: skip
        version = choose_php_version(nodes[0])
        site = api.ensure(
            "sites", SITE_HOST, {"account_id": account["id"], "domain": SITE_HOST, "php_version": version}
        )
    if isinstance(where, RealNodes):
        where.write_page(nodes[0]["name"], ACCOUNT, f"/srv/accounts/{ACCOUNT}/sites/{SITE_HOST}/public/index.php", PAGE)
    return {**site, "account": ACCOUNT, "node_name": nodes[0]["name"]}


def choose_php_version(node: dict[str, Any]) -> str:
    """The newest PHP that the node has; Debian 12's where it did not say."""
    versions = (node.get("facts") or {}).get("php_versions", "").split()
    return max(versions, default="8.2")


def fetch_site(site: dict[str, Any], where: Nodes) -> str | None:
    """What a visitor gets; None for simulated nodes, which have no web server.

    Raises:
        QuickstartError: The site does not answer with its page.
    """
    if not isinstance(where, RealNodes):
        say("  (simulated nodes have no web server to fetch the page from)")
        return None
    url = f"http://{where.address(site['node_name'])}/"
    with step(f"fetching http://{SITE_HOST}/ through nginx"):
        answer = httpx.get(url, headers={"Host": SITE_HOST}, timeout=10.0)
        if answer.status_code != httpx.codes.OK or "Hello from" not in answer.text:
            raise QuickstartError(f"the site answered {answer.status_code}", hint=answer.text[:500])
    site["url"] = url
    return answer.text.strip()
