"""What an operator can do about a hand edit of a real node's file, besides undoing it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.fleet import Fleet, wait_until

BY_HAND = "    add_header X-By-Hand yes;\n    location = /by-hand {\n        return 204;\n    }\n"


def vhost_path(site: dict[str, Any]) -> str:
    return f"/etc/nginx/wcp360/sites/{site['domain']}.conf"


def edit(fleet: Fleet, node: str, site: dict[str, Any], *, before: str, added: str) -> None:
    """Put text before the first line that begins with this."""
    text = fleet.node(node).read_text(vhost_path(site))
    position = text.index(f"\n    {before}") + 1
    fleet.node(node).write_text(vhost_path(site), text[:position] + added + text[position:])


def check(fleet: Fleet, account: dict[str, Any]) -> None:
    """Compare; returns once this check's report has been taken in."""
    node_id = account["node_id"]
    started = datetime.now(UTC)
    fleet.change("POST", f"/accounts/{account['id']}/drift-check")

    def is_reported() -> bool:
        found = fleet.api.call("GET", f"/drift?node_id={node_id}")["items"]
        return any(datetime.fromisoformat(item["checked_at"]) >= started for item in found)

    wait_until(is_reported, timeout_seconds=30, what="the drift is reported")


def findings_of(fleet: Fleet, account: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.api.call("GET", f"/accounts/{account['id']}/drift")["items"]
    return found


def test_drift_when_lines_were_added_to_a_vhost_is_adopted(fleet: Fleet, each_node: str) -> None:
    account = fleet.account(each_node)
    site = fleet.site(account, extra_directives="add_header X-Wanted yes;")
    page = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.html"
    fleet.write_as(each_node, account["name"], page, "mine")
    edit(fleet, each_node, site, before="index ", added=BY_HAND)
    check(fleet, account)
    (finding,) = findings_of(fleet, account)

    plan = fleet.api.call("POST", f"/drift/{finding['id']}/adopt?dry_run=true")
    fleet.change("POST", f"/drift/{finding['id']}/adopt")

    assert {change["action"] for change in plan["changes"]} == {"site.update", "drift.adopt"}
    assert any("+    add_header X-By-Hand yes;" in change["diff"] for change in plan["nodes"][0]["changes"])
    answer = fleet.get(each_node, site["domain"])
    assert (answer.headers["X-Wanted"], answer.headers["X-By-Hand"]) == ("yes", "yes")
    assert fleet.get(each_node, site["domain"], "/by-hand").status_code == 204
    assert findings_of(fleet, account) == []
    fleet.change("POST", f"/accounts/{account['id']}/drift-check")
    assert findings_of(fleet, account) == []
    shown = fleet.api.call("GET", f"/sites/{site['id']}")
    assert shown["extra_directives"] == f"add_header X-Wanted yes;\n{BY_HAND.rstrip()}"


def test_drift_when_ignored_stays_ignored_until_it_is_another(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    edit(fleet, node, site, before="index ", added="    keepalive_timeout 5;\n")
    check(fleet, account)
    (finding,) = findings_of(fleet, account)
    until = (datetime.now(UTC) + timedelta(days=7)).isoformat()

    fleet.api.call("POST", f"/drift/{finding['id']}/ignore", {"until": until, "reason": "a hotfix of the vendor"})

    check(fleet, account)
    (ignored,) = findings_of(fleet, account)
    assert (ignored["id"], ignored["is_ignored"]) == (finding["id"], True)
    refused = fleet.ask("PATCH", f"/nodes/{fleet.node_id(node)}", {"drift_policy": "repair"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")

    edit(fleet, node, site, before="index ", added="    server_tokens off;\n")
    fleet.change("POST", f"/accounts/{account['id']}/drift-check")
    wait_until(
        lambda: not findings_of(fleet, account)[0]["is_ignored"], timeout_seconds=30, what="another edit is open again"
    )
    fleet.change("POST", f"/drift/{finding['id']}/repair")
    assert findings_of(fleet, account) == []
