"""Plans, parking and drift on a real node: nothing happens unannounced, and one bad resource hurts nobody else."""

from __future__ import annotations

from typing import Any

from tests.e2e.fleet import Fleet, wait_until


def state_of_node(fleet: Fleet, node: str) -> str:
    """Names, owners, modes, sizes and times of everything that we could have touched."""
    script = (
        "find /etc /srv/accounts /var/log/wcp360 /run/wcp-php -printf '%p %u %g %m %s %T@\\n' 2>/dev/null | sort;"
        "cat /etc/passwd; cat /etc/nginx/wcp360/sites/* 2>/dev/null; true"
    )
    return fleet.run(node, "/bin/sh", "-c", script).check().stdout


def failed_job(fleet: Fleet, answer: dict[str, Any]) -> dict[str, Any]:
    """The first job of a mutation, once it has ended badly."""
    job = fleet.ended(answer["jobs"][0]["id"])
    assert job["state"] == "failed", job
    return job


def vhost_path(site: dict[str, Any]) -> str:
    return f"/etc/nginx/wcp360/sites/{site['domain']}.conf"


def write_page(fleet: Fleet, node: str, account: dict[str, Any], domain: str) -> None:
    """A page of the tenant's own: the welcome page has its own headers."""
    fleet.write_as(node, account["name"], f"/srv/accounts/{account['name']}/sites/{domain}/public/index.html", "mine")


def test_dry_run_when_asked_shows_a_diff_and_touches_nothing(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    before = state_of_node(fleet, node)
    body = {"account_id": account["id"], "domain": "planned.example"}

    plan = fleet.api.call("POST", "/sites?dry_run=true", body)

    changes = plan["nodes"][0]["changes"]
    vhost = next(change for change in changes if "server_name planned.example" in change["diff"])
    assert vhost["kind"] == "create" or "+" in vhost["diff"]
    assert next(change["action"] for change in plan["changes"]) == "domain.create"
    assert all(change["reason"] for change in changes)
    assert "nginx.service" in plan["nodes"][0]["reloads"]
    assert state_of_node(fleet, node) == before
    assert fleet.api.find("sites", "planned.example") is None
    assert fleet.api.call("GET", f"/accounts/{account['id']}")["desired_generation"] == account["desired_generation"]


def test_site_when_nginx_refuses_it_is_parked_and_others_serve(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    good = fleet.site(account)
    neighbour = fleet.site(fleet.account(node))
    broken = f"broken-{account['name']}.example"
    body = {"account_id": account["id"], "domain": broken, "extra_directives": "no_such_directive on;"}

    answer = fleet.api.call("POST", "/sites", body)

    job = failed_job(fleet, answer)
    site = fleet.api.find("sites", broken)
    assert site is not None
    assert 'unknown directive "no_such_directive"' in site["parked_message"]
    assert 'unknown directive "no_such_directive"' in str(job)
    for domain in (good["domain"], neighbour["domain"]):
        assert fleet.get(node, domain).status_code == 200
    later = fleet.site(account)
    assert fleet.get(node, later["domain"]).status_code == 200
    assert fleet.run(node, "/usr/sbin/nginx", "-t").exit_code == 0
    fleet.change("PATCH", f"/sites/{site['id']}", {"extra_directives": "add_header X-Mended yes;"})
    write_page(fleet, node, account, broken)
    assert fleet.get(node, broken).headers["X-Mended"] == "yes"
    mended = fleet.api.call("GET", f"/sites/{site['id']}")
    assert (mended["state"], mended["parked_message"]) == ("active", None)


def test_site_when_a_change_is_refused_keeps_serving_as_before(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account, extra_directives="add_header X-Version one;")
    write_page(fleet, node, account, site["domain"])

    answer = fleet.api.call("PATCH", f"/sites/{site['id']}", {"extra_directives": "add_header X-Version;"})

    failed_job(fleet, answer)
    assert fleet.get(node, site["domain"]).headers["X-Version"] == "one"
    fleet.change("POST", f"/sites/{site['id']}/discard")
    assert fleet.get(node, site["domain"]).headers["X-Version"] == "one"
    assert "one" in fleet.api.call("GET", f"/sites/{site['id']}")["extra_directives"]


def test_parked_site_when_retried_or_discarded_goes_on_or_goes(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    body = {"account_id": account["id"], "domain": f"retried-{account['name']}.example"}
    site = fleet.api.call("POST", "/sites", {**body, "extra_directives": "no_such_directive on;"})
    failed_job(fleet, site)
    site_id = site["resource"]["id"]

    again = failed_job(fleet, fleet.api.call("POST", f"/sites/{site_id}/retry"))

    assert "no_such_directive" in str(again["explanation"]["resources"])
    assert fleet.ask("POST", f"/sites/{site_id}/retry").status_code == 202, "it is parked again"
    wait_until(
        lambda: fleet.api.call("GET", f"/sites/{site_id}")["state"] == "parked", timeout_seconds=30, what="parked again"
    )
    fleet.change("POST", f"/sites/{site_id}/discard")
    assert fleet.ask("GET", f"/sites/{site_id}").status_code == 404, "it was never served, so nothing is left of it"
    assert fleet.get(node, body["domain"]).status_code == 404
    fleet.site(account, domain=body["domain"])
    assert fleet.get(node, body["domain"]).status_code == 200, "the name is free again"


def findings_of(fleet: Fleet, account: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.api.call("GET", f"/accounts/{account['id']}/drift")["items"]
    return found


def test_drift_when_a_vhost_is_edited_is_found_and_repaired(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    original = fleet.node(node).read_text(vhost_path(site))
    fleet.node(node).write_text(vhost_path(site), original + "# edited by hand\n")

    fleet.change("POST", f"/accounts/{account['id']}/drift-check")

    found = wait_until(lambda: findings_of(fleet, account), timeout_seconds=30, what="the drift is reported")
    assert [item["key"] for item in found] == [f"site/{site['domain']}"]
    assert "edited by hand" in found[0]["diff"]
    assert "edited by hand" in fleet.node(node).read_text(vhost_path(site)), "a check changes nothing"
    fleet.change("POST", f"/drift/{found[0]['id']}/repair")
    assert fleet.node(node).read_text(vhost_path(site)) == original
    assert findings_of(fleet, account) == []


def test_drift_when_a_user_and_its_home_are_gone_is_repaired(fleet: Fleet, each_node: str) -> None:
    account = fleet.account(each_node)
    fleet.run(each_node, "/usr/sbin/userdel", account["name"]).check()

    fleet.change("POST", f"/nodes/{fleet.node_id(each_node)}/drift-check")

    found = wait_until(lambda: findings_of(fleet, account), timeout_seconds=30, what="the drift is reported")
    assert found[0]["key"] == f"account/{account['name']}"
    fleet.change("POST", f"/accounts/{account['id']}/converge")
    passwd = fleet.run(each_node, "/usr/bin/getent", "passwd", account["name"]).check().stdout
    assert passwd.split(":")[2] == str(account["uid"])
    assert findings_of(fleet, account) == []


def test_drift_when_policy_is_repair_heals_by_itself(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    original = fleet.node(node).read_text(vhost_path(site))

    # Set after the account was made: the policy is the node's and holds for what it has already.
    fleet.change("PATCH", f"/nodes/{fleet.node_id(node)}", {"drift_policy": "repair"})
    try:
        with fleet.settings(WCP360_DRIFT_CHECK_SECONDS="2"):
            fleet.run(node, "/usr/bin/rm", vhost_path(site)).check()
            found = wait_until(lambda: findings_of(fleet, account), timeout_seconds=60, what="the repair is reported")
    finally:
        fleet.change("PATCH", f"/nodes/{fleet.node_id(node)}", {"drift_policy": "report"})

    assert (found[0]["key"], found[0]["is_repaired"]) == (f"site/{site['domain']}", True)
    assert fleet.node(node).read_text(vhost_path(site)) == original
    assert fleet.get(node, site["domain"]).status_code == 200


def test_limits_when_package_changes_reach_the_kernel(fleet: Fleet, node: str) -> None:
    package = fleet.package("growing", processes_max=50)
    account = fleet.account(node, package_id=package)

    fleet.change("PATCH", f"/packages/{package}", {"processes_max": 70})

    def enforced() -> int | None:
        proofs = fleet.api.call("GET", f"/accounts/{account['id']}/proofs")["items"]
        value: int | None = next(item["enforced"] for item in proofs if item["limit"] == "processes_max")
        return value

    wait_until(lambda: enforced() == 70, timeout_seconds=30, what="the kernel has the new limit")


BAD_BODIES: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("/sites", {"account_id": "ACCOUNT", "domain": domain}, "domain")
        for domain in (
            "test..com", "a" * 300 + ".com", "a\nb.com", "../etc.com", "xn--.com", "-x.com", "1.2.3.4", "*.example.com",
            "", "a b.com", "x" * 64 + ".com", "example.com/../..", "ex\u0000ample.com", "\u202eexample.com",
        )
    ),
    *(
        ("/accounts", {"name": name, "client_id": "CLIENT", "package_id": "PACKAGE"}, "name")
        for name in ("root", "www-data", "wcp-agent", "systemd-network", "../x", "a\nb", "Ada", "9lives", "a" * 40, "", "é1")
    ),
    ("/accounts", {"name": "okay1", "client_id": "nobody", "package_id": "PACKAGE"}, "client_id"),
    ("/accounts", {"name": 5, "client_id": "CLIENT", "package_id": "PACKAGE"}, "name"),
    ("/accounts", {"name": "okay1", "client_id": "CLIENT", "package_id": "PACKAGE", "shell": "/bin/sh"}, "shell"),
    ("/accounts", {"name": "okay1", "client_id": "CLIENT"}, "package_id"),
    ("/packages", {"name": "bad", "cpu_percent": -1}, "cpu_percent"),
    ("/packages", {"name": "bad", "memory_bytes": -5}, "memory_bytes"),
    ("/packages", {"name": "bad", "processes_max": 1.5}, "processes_max"),
    ("/packages", {"name": "bad", "disk_bytes": "much"}, "disk_bytes"),
    ("/packages", {"name": "bad", "disk_bytes": 2**70}, "disk_bytes"),
    ("/sites", {"account_id": "ACCOUNT", "domain": "fine.example", "aliases": ["no..pe"]}, "aliases"),
    ("/sites", {"account_id": "ACCOUNT", "domain": "fine.example", "document_root": "../../etc"}, "document_root"),
    ("/sites", {"account_id": "ACCOUNT", "domain": "fine.example", "document_root": "/etc"}, "document_root"),
    ("/sites", {"account_id": "ACCOUNT", "domain": "fine.example", "php_version": "5.6"}, "php_version"),
    ("/sites", {"account_id": "ACCOUNT", "domain": "fine.example", "extra_directives": "a\u0000b;"}, "extra_directives"),
    ("/clients", {"name": "x", "email": "not-an-address"}, "email"),
]  # fmt: skip


def test_bad_input_when_sent_names_the_field_and_changes_nothing(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    ids = {"ACCOUNT": account["id"], "CLIENT": fleet.client(), "PACKAGE": fleet.package()}
    before = state_of_node(fleet, node)
    lists = ("accounts", "sites", "packages", "clients", "domains", "jobs")
    counts = {noun: len(fleet.api.call("GET", f"/{noun}?limit=200")["items"]) for noun in lists}

    for path, body, wanted_field in BAD_BODIES:
        sent = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
        answer = fleet.ask("POST", path, sent)
        assert answer.status_code == 400, (path, body, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        named = [error["field"] for error in problem["errors"]]
        assert len(named) == 1, (body, problem)
        assert named[0].startswith(wanted_field), (body, problem)
        assert problem["request_id"] == answer.headers["X-Request-Id"]

    assert state_of_node(fleet, node) == before
    assert {noun: len(fleet.api.call("GET", f"/{noun}?limit=200")["items"]) for noun in lists} == counts


def test_domain_when_another_account_holds_it_is_refused(fleet: Fleet, node: str) -> None:
    holder = fleet.site(fleet.account(node))
    other = fleet.account(node)

    for domain in (holder["domain"], holder["domain"].upper(), f"{holder['domain']}."):
        answer = fleet.ask("POST", "/sites", {"account_id": other["id"], "domain": domain})
        assert (answer.status_code, answer.json()["code"]) == (409, "domain_taken"), answer.text


def test_site_when_named_with_an_idn_is_served(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)

    site = fleet.site(account, domain=f"Bücher-{account['name']}.example")

    assert site["domain"] == f"xn--bcher-{account['name']}-kva.example" or site["domain"].startswith("xn--")
    assert site["display_name"] == f"bücher-{account['name']}.example"
    assert fleet.get(node, site["domain"]).status_code == 200


def is_active(fleet: Fleet, node: str, unit: str) -> bool:
    return fleet.run(node, "/usr/bin/systemctl", "is-active", unit).stdout.strip() == "active"


def installed(fleet: Fleet, node: str) -> set[str]:
    """Names of the Debian packages that are fully installed."""
    argv = ["/usr/bin/dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"]
    lines = fleet.run(node, *argv).check().stdout.splitlines()
    return {line.split()[1] for line in lines if line.startswith("ii")}


def test_module_when_disabled_and_enabled_stops_and_serves_again(fleet: Fleet, each_node: str) -> None:
    path = f"/nodes/{fleet.node_id(each_node)}/modules/web"
    site = fleet.site(fleet.account(each_node))

    fleet.change("POST", f"{path}/disable")
    try:
        assert fleet.api.call("GET", f"{path}/status")["observed_status"] == "disabled"
        assert not is_active(fleet, each_node, "nginx.service")
        assert "nginx" in installed(fleet, each_node)
    finally:
        fleet.change("POST", f"{path}/enable")

    assert fleet.api.call("GET", f"{path}/status")["observed_status"] == "enabled"
    assert is_active(fleet, each_node, "nginx.service")
    assert fleet.get(each_node, site["domain"]).status_code == 200
