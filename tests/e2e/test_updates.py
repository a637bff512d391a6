"""Agents of two versions in one fleet, and a real node that updates itself, goes back, and survives a power cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api import Api
from process import ControllerProcess
from wcplab import Lab

from tests.e2e.conftest import LAB
from tests.e2e.fleet import Fleet, free_port, stop_fleet, wait_until
from tests.e2e.update_fleet import STUCK_LINK, build_bundle_of, copy_sources, visiting

OLD_NODE = f"{LAB}u-1"
"""Debian 12, enrolled with the agent of capability 1."""
NEW_NODE = f"{LAB}u-2"
"""Debian 13, enrolled with the present agent."""
UPDATE_SECONDS = 120.0
RETURN_SECONDS = 330.0
"""120 s for the welcome that never comes, and what systemd takes to stop a service that is not ready."""


class UpdateFleet:
    """The two nodes, and what the controller's bundle folder holds."""

    def __init__(self, fleet: Fleet, run_dir: Path) -> None:
        self.fleet = fleet
        self.bundles = run_dir / "bundles"
        self.work = run_dir / "sources"

    @property
    def api(self) -> Api:
        return self.fleet.api

    def publish(self, version: str, *, is_stuck: bool = False) -> dict[str, Any]:
        """Build the present sources as another version, and register it."""
        sources = copy_sources(self.work / version, version=version)
        if is_stuck:
            with (sources / "agent/link/main.py").open("a") as file:
                file.write(STUCK_LINK)
        build_bundle_of(sources, self.bundles)
        release: dict[str, Any] = self.api.call("POST", "/releases", {"note": f"e2e {version}"})
        return release

    def build_on(self, name: str) -> str:
        """Which version runs on the node."""
        return self.fleet.run(name, "/usr/bin/readlink", "/opt/wcp360/current").stdout.strip().rpartition("/")[2]

    def roll_out(self, release: dict[str, Any], *names: str, **options: Any) -> str:
        body = {
            "kind": "agent_update", "release_id": release["id"], "soak_seconds": 0,
            "node_ids": [self.fleet.node_id(name) for name in names], "waves": ["100%"], **options,
        }  # fmt: skip
        rollout_id: str = self.api.call("POST", "/rollouts", body)["id"]
        return rollout_id

    def ended(self, rollout_id: str, *, timeout_seconds: float) -> dict[str, Any]:
        """The rollout, once it has finished or stopped itself."""
        return wait_until(
            lambda: (found := self.api.call("GET", f"/rollouts/{rollout_id}"))["state"] != "running" and found,
            timeout_seconds=timeout_seconds,
            what=f"rollout {rollout_id} has ended",
        )

    def node_of(self, rollout_id: str, name: str) -> dict[str, Any]:
        nodes = self.api.call("GET", f"/rollouts/{rollout_id}/nodes")["items"]
        found: dict[str, Any] = next(node for node in nodes if node["node_name"] == name)
        return found


@pytest.fixture(scope="module")
def update_fleet(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpdateFleet]:
    """Starts as a fleet of capability 1; then the controller's bundle becomes the present one."""
    run_dir = tmp_path_factory.mktemp("updates")
    build_bundle_of(copy_sources(run_dir / "golden", golden=1), run_dir / "bundles")
    controller = ControllerProcess(
        run_dir,
        api_port=free_port(),
        gateway_port=free_port(),
        settings={"WCP360_HEARTBEAT_SECONDS": "2", "WCP360_METRICS_SECONDS": "5", "WCP360_LOG_FORMAT": "json"},
    )
    lab = Lab(f"{LAB}u", progress=lambda _line: None)
    lab.down()
    lab.up(2, suites=["bookworm", "trixie"])
    controller.start()
    fleet = Fleet(controller=controller, lab=lab, api=controller.sign_in())
    try:
        fleet.enrol(OLD_NODE)
        build_bundle_of(copy_sources(run_dir / "present"), run_dir / "bundles")
        fleet.enrol(NEW_NODE)
        yield UpdateFleet(fleet, run_dir)
    finally:
        stop_fleet(fleet)


@pytest.fixture(scope="module")
def sites(update_fleet: UpdateFleet) -> list[tuple[str, str]]:
    """A PHP site on each of the two."""
    made = []
    for name in (OLD_NODE, NEW_NODE):
        account = update_fleet.fleet.account(name)
        version = {OLD_NODE: "8.2", NEW_NODE: "8.4"}[name]
        site = update_fleet.fleet.site(account, php_version=version)
        made.append((name, site["domain"]))
    return made


def test_fleet_when_two_releases_are_in_it_serves_sites_on_both(
    update_fleet: UpdateFleet, sites: list[tuple[str, str]]
) -> None:
    found = {node["name"]: node for node in update_fleet.api.call("GET", "/nodes")["items"]}

    assert found[OLD_NODE]["agent_build"] == ""
    assert found[NEW_NODE]["agent_build"] == update_fleet.build_on(NEW_NODE)
    for name, host in sites:
        assert update_fleet.fleet.get(name, host).status_code == 200


def test_update_when_a_release_is_rolled_out_runs_on_the_node_and_sites_serve_all_along(
    update_fleet: UpdateFleet, sites: list[tuple[str, str]]
) -> None:
    release = update_fleet.publish("0.2.0")
    with visiting(update_fleet.fleet, *sites) as visits:
        rollout = update_fleet.roll_out(release, OLD_NODE, NEW_NODE)
        ended = update_fleet.ended(rollout, timeout_seconds=UPDATE_SECONDS)

    assert ended["state"] == "finished"
    assert update_fleet.build_on(NEW_NODE) == release["build"]
    old = update_fleet.node_of(rollout, OLD_NODE)
    assert (old["state"], "run the installer" in old["note"]) == ("skipped", True)
    assert [visit.failures for visit in visits] == [[], []]
    assert all(visit.count > 20 for visit in visits)
    # The updated agent does its work: a change goes through.
    account = update_fleet.fleet.account(NEW_NODE)
    site = update_fleet.fleet.site(account)
    assert update_fleet.fleet.get(NEW_NODE, site["domain"]).status_code == 200


def test_old_agent_when_the_installer_runs_again_is_brought_up(
    update_fleet: UpdateFleet, sites: list[tuple[str, str]]
) -> None:
    """An agent of capability 1 has no updater; the same one-shot line replaces it, and the site never stops."""
    line = update_fleet.fleet.install_command(OLD_NODE)
    with visiting(update_fleet.fleet, sites[0]) as visits:
        result = update_fleet.fleet.run(OLD_NODE, "/bin/sh", "-c", line, timeout_seconds=300)
        assert result.exit_code == 0, result.stdout + result.stderr
        update_fleet.fleet.wait_ready(OLD_NODE)

    assert update_fleet.build_on(OLD_NODE) == update_fleet.build_on(NEW_NODE)
    assert visits[0].failures == []
    node = update_fleet.api.find("nodes", OLD_NODE)
    assert node is not None and node["agent_build"] == update_fleet.build_on(OLD_NODE)


def test_updater_unit_when_judged_by_systemd_is_tight(update_fleet: UpdateFleet) -> None:
    for name in (OLD_NODE, NEW_NODE):
        argv = ("/usr/bin/systemd-analyze", "security", "--no-pager", "wcp-updater.service")
        judged = update_fleet.fleet.run(name, *argv)
        level = float(judged.stdout.strip().splitlines()[-1].partition("wcp-updater.service: ")[2].split()[0])
        assert level <= 1.5, judged.stdout


def test_fault_30_power_loss_in_the_switch_when_the_node_boots_again_one_version_runs(
    update_fleet: UpdateFleet, sites: list[tuple[str, str]]
) -> None:
    before = update_fleet.build_on(NEW_NODE)
    release = update_fleet.publish("0.3.0")
    rollout = update_fleet.roll_out(release, NEW_NODE)
    node = update_fleet.fleet.node(NEW_NODE)
    state = "/var/lib/wcp360-updater/state.json"
    wait_until(
        lambda: (
            "switching" in node.run(["/usr/bin/cat", state], timeout_seconds=30).stdout
            or "probation" in node.run(["/usr/bin/cat", state], timeout_seconds=30).stdout
        ),
        timeout_seconds=UPDATE_SECONDS,
        what="the switch has begun",
    )
    node.kill()
    node.start()
    update_fleet.fleet.wait_ready(NEW_NODE)
    update_fleet.ended(rollout, timeout_seconds=UPDATE_SECONDS + 120)

    # The agent says hello a moment before the updater has written down that it did.
    wait_until(
        lambda: node.run(["/usr/bin/test", "-e", state], timeout_seconds=30).exit_code == 1,
        timeout_seconds=60,
        what="the attempt has ended",
    )
    outcome = json.loads(node.run(["/usr/bin/cat", "/var/lib/wcp360-updater/outcome.json"], timeout_seconds=30).stdout)
    assert update_fleet.build_on(NEW_NODE) == {"updated": release["build"], "rolled_back": before}[outcome["state"]]
    result = update_fleet.node_of(rollout, NEW_NODE)
    assert result["state"] == {"updated": "succeeded", "rolled_back": "failed"}[outcome["state"]]
    assert update_fleet.fleet.get(*sites[1]).status_code == 200
    if outcome["state"] == "rolled_back":
        update_fleet.api.call("POST", f"/rollouts/{rollout}/abort")


def test_fault_30_bad_binary_when_it_never_connects_goes_back_and_the_rollout_halts(
    update_fleet: UpdateFleet, sites: list[tuple[str, str]]
) -> None:
    # Which of the two is the canary is the plan's choice, and they need not run the same build here.
    before = {name: update_fleet.build_on(name) for name in (NEW_NODE, OLD_NODE)}
    release = update_fleet.publish("0.4.0", is_stuck=True)
    with visiting(update_fleet.fleet, *sites) as visits:
        rollout = update_fleet.roll_out(release, NEW_NODE, OLD_NODE, waves=["1", "100%"])
        ended = update_fleet.ended(rollout, timeout_seconds=RETURN_SECONDS)
        first = next(
            node for node in update_fleet.api.call("GET", f"/rollouts/{rollout}/nodes")["items"] if node["wave"] == 1
        )
        name = first["node_name"]
        wait_until(lambda: update_fleet.fleet.is_ready(name), timeout_seconds=60, what="the old agent is back")

    assert (ended["state"], first["state"], first["error_code"]) == ("halted", "failed", "update_failed")
    assert "no welcome" in first["note"]
    assert update_fleet.build_on(name) == before[name]
    other = {NEW_NODE: OLD_NODE, OLD_NODE: NEW_NODE}[name]
    assert update_fleet.node_of(rollout, other)["state"] == "waiting"
    assert [visit.failures for visit in visits] == [[], []]
    update_fleet.api.call("POST", f"/rollouts/{rollout}/abort")
