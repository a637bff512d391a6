"""RealHost on real Debian nodes, in the executor's own sandbox: users, limits, quotas, packages, units, configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import build_bundle
from wcplab import Lab, Node

from tests.e2e.system.scenarios import SCENARIOS, TWO_PARTS

LAB = "system"
SUITES = {"bookworm": f"{LAB}-1", "trixie": f"{LAB}-2"}
TARGET = "/opt/wcp-scenario"
UNIT = "wcp-scenario.service"
EXECUTOR_UNIT = Path(__file__).resolve().parents[2] / "packaging/systemd/wcp-executor.service"
NOT_SANDBOX = ("Type", "ExecStart", "Environment", "Restart", "RestartSec", "WatchdogSec")
SCENARIO_TIMEOUT_SECONDS = 240.0


def sandbox_unit(name: str, python_tag: str) -> str:
    """The executor's unit with nothing changed but what it runs."""
    service = EXECUTOR_UNIT.read_text(encoding="utf-8").partition("[Service]\n")[2].splitlines()
    kept = [line for line in service if line.partition("=")[0] not in NOT_SANDBOX]
    path = f"{TARGET}:{TARGET}/lib/{python_tag}:{TARGET}/lib/common"
    head = [
        "[Service]",
        "Type=oneshot",
        f"ExecStart=/usr/bin/python3 -P -m tests.e2e.system.scenarios {name}",
        f"Environment=PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1",
    ]
    return "\n".join([*head, *kept]) + "\n"


def run_scenario(node: Node, name: str) -> None:
    tag = {"bookworm": "py311", "trixie": "py313"}[node.suite]
    node.write_text(f"/etc/systemd/system/{UNIT}", sandbox_unit(name, tag))
    node.run(["systemctl", "daemon-reload"]).check()
    ended = node.run(["systemctl", "start", UNIT], timeout_seconds=SCENARIO_TIMEOUT_SECONDS)
    if ended.exit_code != 0:
        journal = node.run(["journalctl", "--boot", f"--unit={UNIT}", "--output=cat", "--lines=60"]).stdout
        node.run(["systemctl", "reset-failed", UNIT])
        pytest.fail(f"{name} on {node.name}:\n{journal}")


def prepare(node: Node, bundle: Path) -> None:
    node.run(
        ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "python3"], timeout_seconds=240
    ).check()
    node.push(bundle, "/tmp/agent.tar.gz")
    node.run(["mkdir", "--parents", f"{TARGET}/tests/e2e"]).check()
    node.run(["tar", "--extract", "--gzip", f"--directory={TARGET}", "--file=/tmp/agent.tar.gz"]).check()
    node.push(Path(__file__).with_name("system"), f"{TARGET}/tests/e2e/system")


@pytest.fixture(scope="module")
def lab(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("system")
    build_bundle(folder)
    started = Lab(LAB, progress=lambda _line: None)
    started.down()
    started.up(len(SUITES), suites=list(SUITES))
    for node in started.nodes:
        prepare(node, folder / "bundles/agent.tar.gz")
    yield started
    started.down()


@pytest.fixture(params=list(SUITES))
def node(lab: Lab, request: pytest.FixtureRequest) -> Node:
    return lab.node(SUITES[request.param])


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in TWO_PARTS])
def test_real_host(node: Node, name: str) -> None:
    run_scenario(node, name)


def test_slice_limits_when_power_is_lost_are_back_after_boot(lab: Lab, node: Node) -> None:
    before, after = TWO_PARTS
    run_scenario(node, before)

    lab.kill_node(node.name)
    lab.start_node(node.name)

    run_scenario(node, after)
