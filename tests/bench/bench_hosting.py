"""How long a new PHP site takes from POST to its first 200, and what an idle agent costs. Real node, own controller.

Run: .venv/bin/python -m tests.bench.bench_hosting [--runs 20]. Prints one table and appends nothing anywhere.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "packaging" / "quickstart"), str(ROOT / "packaging" / "lab")]

from tests.e2e.fleet import Fleet, php_version, start_fleet, stop_fleet  # noqa: E402 - needs the two folders above

LAB = "bench"
NODE = f"{LAB}-1"
POLL_SECONDS = 0.005
GIVE_UP_SECONDS = 30.0
SETTLE_SECONDS = 20.0


def seconds_to_first_200(fleet: Fleet) -> float:
    """POST of an account and of its PHP site, then ask nginx until the site answers."""
    number = next(fleet.numbers)
    client_id, package_id, node_id = fleet.client(), fleet.package(), fleet.node_id(NODE)
    domain = f"b{number}.example"
    began = time.perf_counter()
    body = {"name": f"b{number}", "client_id": client_id, "package_id": package_id, "node_id": node_id}
    account = fleet.api.call("POST", "/accounts", body)["resource"]
    site = {"account_id": account["id"], "domain": domain, "php_version": php_version(fleet.node(NODE))}
    fleet.api.call("POST", "/sites", site)
    while fleet.get(NODE, domain).status_code != 200:
        if time.perf_counter() - began > GIVE_UP_SECONDS:
            raise SystemExit(f"{domain} does not answer with 200 after {GIVE_UP_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def first_request_of_a_sleeping_site(fleet: Fleet, domain: str, uid: int) -> float:
    """Stop the account's PHP as its idle timer would, then time one request."""
    version = php_version(fleet.node(NODE))
    unit = f"wcp-php{version}@{uid}.service"
    fleet.run(NODE, "/usr/bin/systemctl", "stop", unit)
    # Twenty starts within seconds are this benchmark's doing: systemd's start limit is not what it measures.
    fleet.run(NODE, "/usr/bin/systemctl", "reset-failed", unit)
    began = time.perf_counter()
    answer = fleet.get(NODE, domain)
    assert answer.status_code == 200, answer.status_code
    return time.perf_counter() - began


def resident_bytes(fleet: Fleet, unit: str) -> int:
    """Resident memory of a unit's main process; 0 when it does not run."""
    pid = fleet.run(NODE, "/usr/bin/systemctl", "show", "-P", "MainPID", unit).stdout.strip()
    if pid == "0":
        return 0
    text = fleet.run(NODE, "/usr/bin/cat", f"/proc/{pid}/status").stdout
    line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def row(name: str, values: list[float], unit: str) -> str:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"{name:<52} median {statistics.median(ordered):8.3f}  p95 {p95:8.3f}  max {ordered[-1]:8.3f} {unit}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        fleet = start_fleet(Path(folder), LAB, ["bookworm"])
        try:
            times = [seconds_to_first_200(fleet) for _ in range(runs)]
            account = fleet.account(NODE)
            site = fleet.site(account, php_version=php_version(fleet.node(NODE)))
            page = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"
            fleet.write_as(NODE, account["name"], page, "<?php echo 1;")
            wakes = [first_request_of_a_sleeping_site(fleet, site["domain"], account["uid"]) for _ in range(runs)]
            time.sleep(SETTLE_SECONDS)
            print(row(f"account + PHP site, POST to first 200 ({runs} runs)", times, "s"))
            print(row(f"first request of a sleeping account ({runs} runs)", wakes, "s"))
            print(f"{'wcp-agent resident, idle':<52} {resident_bytes(fleet, 'wcp-agent.service') / 2**20:.1f} MiB")
            executor = resident_bytes(fleet, "wcp-executor.service")
            print(f"{'wcp-executor resident, idle':<52} {executor / 2**20:.1f} MiB (0: not running)")
        finally:
            stop_fleet(fleet)


if __name__ == "__main__":
    main()
