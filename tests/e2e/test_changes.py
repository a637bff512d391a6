"""Plans, parking and drift on a real node: nothing happens unannounced, and one bad resource hurts nobody else."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.fleet import Fleet, wait_until


def state_of_node(fleet: Fleet, node: str) -> str:
    """Names, owners, modes, sizes and times of everything that we could have touched."""
    script = (
        "find /etc /srv/accounts /var/log/wcp360 /run/wcp-php -printf '%p %u %g %m %s %T@\\n' 2>/dev/null | sort;"
        "cat /etc/passwd; cat /etc/nginx/wcp360/sites/* 2>/dev/null"
    )
    return fleet.run(node, "/bin/sh", "-c", script).check().stdout


def job_error(fleet: Fleet, answer: dict[str, Any]) -> dict[str, Any]:
    """The first job of a mutation, once it has ended badly."""
    job_id = answer["jobs"][0]["id"]
    return wait_until(
        lambda: (job := fleet.api.call("GET", f"/jobs/{job_id}"))["state"] == "failed" and job,
        timeout_seconds=30,
        what="the job failed",
    )


def test_dry_run_when_asked_shows_a_diff_and_touches_nothing(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    before = state_of_node(fleet, node)
    body = {"account_id": account["id"], "domain": "planned.example"}

    plan = fleet.api.call("POST", "/sites?dry_run=true", body)

    changes = plan["nodes"][0]["changes"]
    vhost = next(change for change in changes if "planned.example" in change["diff"])
    assert "server_name" in vhost["diff"]
    assert all(change["reason"] for change in changes)
    assert "nginx.service" in plan["nodes"][0]["reloads"]
    assert state_of_node(fleet, node) == before
    assert fleet.api.find("sites", "planned.example") is None
    assert fleet.api.call("GET", f"/accounts/{account['id']}")["desired_generation"] == account["desired_generation"]


def test_site_when_nginx_refuses_it_is_parked_and_others_serve(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    good = fleet.site(account)
    neighbour = fleet.site(fleet.account(node))
    body = {"account_id": account["id"], "domain": "broken.example", "extra_directives": "no_such_directive on;"}

    answer = fleet.api.call("POST", "/sites", body)

    job = job_error(fleet, answer)
    site = fleet.api.find("sites", "broken.example")
    assert site is not None
    assert 'unknown directive "no_such_directive"' in site["parked_message"]
    assert 'unknown directive "no_such_directive"' in str(job)
    for domain in (good["domain"], neighbour["domain"]):
        assert fleet.get(node, domain).status_code == 200
    later = fleet.site(account)
    assert fleet.get(node, later["domain"]).status_code == 200
    assert fleet.run(node, "/usr/sbin/nginx", "-t").exit_code == 0
    fleet.change("PATCH", f"/sites/{site['id']}", {"extra_directives": "add_header X-Mended yes;"})
    assert fleet.get(node, "broken.example").headers["X-Mended"] == "yes"
    assert fleet.api.call("GET", f"/sites/{site['id']}")["parked_message"] in (None, "")


def test_site_when_a_change_is_refused_keeps_serving_as_before(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account, extra_directives="add_header X-Version one;")

    answer = fleet.api.call("PATCH", f"/sites/{site['id']}", {"extra_directives": "add_header X-Version;"})

    job_error(fleet, answer)
    assert fleet.get(node, site["domain"]).headers["X-Version"] == "one"
    fleet.change("POST", f"/sites/{site['id']}/discard")
    assert fleet.get(node, site["domain"]).headers["X-Version"] == "one"
    assert "one" in fleet.api.call("GET", f"/sites/{site['id']}")["extra_directives"]


def test_drift_when_a_vhost_is_edited_is_found_and_repaired(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    path = f"/etc/nginx/wcp360/sites/{site['domain']}.conf"
    original = fleet.node(node).read_text(path)
    fleet.node(node).write_text(path, original + "# edited by hand\n")

    fleet.api.call("POST", f"/accounts/{account['id']}/drift-check")

    def findings() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = fleet.api.call("GET", f"/accounts/{account['id']}/drift")["items"]
        return [item for item in found if not item["resolved_at"]]

    found = wait_until(findings, timeout_seconds=30, what="the drift is reported")
    assert "edited by hand" in found[0]["diff"]
    fleet.change("POST", f"/drift/{found[0]['id']}/repair")
    assert fleet.node(node).read_text(path) == original
    wait_until(lambda: not findings(), timeout_seconds=30, what="the drift is resolved")


def test_drift_when_policy_is_repair_heals_by_itself(fleet: Fleet, node: str) -> None:
    node_id = fleet.node_id(node)
    fleet.change("PATCH", f"/nodes/{node_id}", {"drift_policy": "repair"})
    account = fleet.account(node)
    site = fleet.site(account)
    path = f"/etc/nginx/wcp360/sites/{site['domain']}.conf"
    fleet.run(node, "/usr/bin/rm", path).check()

    fleet.api.call("POST", f"/accounts/{account['id']}/drift-check")

    wait_until(
        lambda: fleet.run(node, "/usr/bin/test", "-f", path).exit_code == 0, timeout_seconds=30, what="the file is back"
    )
    wait_until(lambda: fleet.get(node, site["domain"]).status_code == 200, timeout_seconds=15, what="the site serves")
    fleet.change("PATCH", f"/nodes/{node_id}", {"drift_policy": "report"})


def test_limits_when_package_changes_reach_the_kernel(fleet: Fleet, node: str) -> None:
    package = fleet.package("growing", processes_max=50)
    account = fleet.account(node, package_id=package)

    fleet.change("PATCH", f"/packages/{package}", {"processes_max": 70})

    def enforced() -> int | None:
        proofs = fleet.api.call("GET", f"/accounts/{account['id']}/proofs")["items"]
        value: int | None = next(item["enforced"] for item in proofs if item["limit"] == "processes_max")
        return value

    wait_until(lambda: enforced() == 70, timeout_seconds=30, what="the kernel has the new limit")


def test_bad_input_when_sent_names_the_field_and_changes_nothing(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    before = state_of_node(fleet, node)
    token = fleet.api._http.headers["Authorization"]
    for domain in ("test..com", "a" * 300 + ".com", "a\nb.com", "../etc.com", "xn--.com", "-x.com", "1.2.3.4"):
        answer = httpx.post(
            f"{fleet.controller.url}/api/v1/sites",
            json={"account_id": account["id"], "domain": domain},
            headers={"Authorization": token},
            verify=str(fleet.controller.ca_file),
        )
        assert answer.status_code == 400, (domain, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["errors"][0]["field"] == "domain", answer.text

    assert state_of_node(fleet, node) == before


def test_module_when_taken_through_its_five_verbs_obeys(fleet: Fleet) -> None:
    node = fleet.lab.nodes[1].name
    path = f"/nodes/{fleet.node_id(node)}/modules/web"
    assert fleet.api.call("GET", f"{path}/status")["observed_status"] == "enabled"

    fleet.change("POST", f"{path}/disable")
    assert fleet.run(node, "/usr/bin/systemctl", "is-active", "nginx").stdout.strip() == "inactive"
    fleet.change("POST", f"{path}/enable")
    assert fleet.run(node, "/usr/bin/systemctl", "is-active", "nginx").stdout.strip() == "active"
