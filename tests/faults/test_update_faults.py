"""Fault 30: a bad binary, power loss in the switch, a rollback attack with an older signed manifest, a frozen one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from agent.update.faults import POINTS
from shared.errors import FleetError, RefusedError
from shared.faults import EXIT_STATUS, VARIABLE
from shared.protocol.update import UpdateState
from tests.faults.update_bench import OLD, UpdateNode, make_bundle, make_node

NEW = "1.1.0-bbbbbbbbbbbb"
REPOSITORY = Path(__file__).resolve().parents[2]

GOOD_POINTS = [point for point in POINTS if point.startswith("update.")]
RETURN_POINTS = [point for point in POINTS if point.startswith("return.")]
PROVEN = {"update.after_committing", "update.after_floor", "update.after_own_link", "update.after_outcome"}
"""After these the new version has reached the controller, and that is on the disk."""
BROKEN = {"agent/broken.py": b""}
DEAF = {"agent/deaf.py": b""}


@pytest.fixture
def node(tmp_path: Path) -> UpdateNode:
    return make_node(tmp_path / "node")


def run_child(node: UpdateNode, *arguments: str, fault: str | None = None) -> int:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **({VARIABLE: fault} if fault else {})}
    argv = [sys.executable, "-m", "tests.faults.update_child", str(node.paths.root), *arguments]
    return subprocess.run(argv, env=environment, timeout=60, check=False, capture_output=True).returncode


def write_request(node: UpdateNode, tmp_path: Path, bundle: bytes) -> tuple[str, str]:
    request, archive = tmp_path / "request", tmp_path / "bundle"
    request.write_bytes(msgspec.msgpack.encode(node.publisher.sign(node.publisher.manifest(NEW, bundle))))
    archive.write_bytes(bundle)
    return str(request), str(archive)


async def update(node: UpdateNode, bundle: bytes, build: str = NEW, **changes: object) -> UpdateState:
    updater = node.updater()
    judged = node.judged(updater, build, bundle, **changes)
    node.receive(updater, bundle)
    return (await updater.carry_out("attempt-1", judged)).state


def require_whole(node: UpdateNode, build: str) -> None:
    """One version runs, with its own units, and nothing of the attempt is left."""
    assert node.running == build
    assert all(text == f"# {name} of {build}\n" for name, text in node.units.items())
    assert not (node.paths.updater_state_dir / "state.json").exists()
    assert not (node.paths.updater_state_dir / "incoming").exists()
    assert not [name for name in node.versions if name.startswith(".")]


async def test_fault_30_good_release_when_offered_runs_and_the_one_before_stays(node: UpdateNode) -> None:
    assert await update(node, make_bundle(NEW, "1.1.0")) is UpdateState.UPDATED

    require_whole(node, NEW)
    assert node.versions == {OLD, NEW}
    assert (node.paths.program_dir / "updater").readlink().name == NEW


async def test_fault_30_bad_binary_when_it_never_connects_is_taken_back(node: UpdateNode) -> None:
    assert await update(node, make_bundle(NEW, "1.1.0", extra=DEAF)) is UpdateState.ROLLED_BACK

    require_whole(node, OLD)
    assert node.versions == {OLD}
    outcome = node.updater().files.find_outcome()
    assert outcome is not None and outcome.error is not None
    assert "the gateway's port is closed" in outcome.error.message
    assert (node.paths.program_dir / "updater").readlink().name == OLD


async def test_fault_30_bad_binary_when_its_self_test_fails_never_runs(node: UpdateNode) -> None:
    assert await update(node, make_bundle(NEW, "1.1.0", extra=BROKEN)) is UpdateState.REFUSED

    require_whole(node, OLD)
    assert node.versions == {OLD}


@pytest.mark.parametrize("point", GOOD_POINTS)
def test_fault_30_power_loss_in_an_update_when_it_starts_again_leaves_one_whole_version(
    node: UpdateNode, tmp_path: Path, point: str
) -> None:
    request = write_request(node, tmp_path, make_bundle(NEW, "1.1.0"))

    assert run_child(node, *request, fault=point) == EXIT_STATUS
    is_over = not (node.paths.updater_state_dir / "state.json").exists()
    assert run_child(node) == 0

    is_new = point in PROVEN | {
        "update.after_end",
        "update.after_probation",
        "update.after_start",
        "update.after_welcome",
    }
    require_whole(node, NEW if is_new else OLD)
    if not is_over:
        outcome = node.updater().files.find_outcome()
        assert outcome is not None and outcome.attempt_id == "attempt-1"
        assert (outcome.state is UpdateState.UPDATED) is is_new
    # Whatever it was, the same release can be asked for again and then runs.
    assert run_child(node, *request) == 0
    require_whole(node, NEW)


@pytest.mark.parametrize("point", RETURN_POINTS)
def test_fault_30_power_loss_on_the_way_back_when_it_starts_again_ends_with_the_old_version(
    node: UpdateNode, tmp_path: Path, point: str
) -> None:
    request = write_request(node, tmp_path, make_bundle(NEW, "1.1.0", extra=DEAF))

    assert run_child(node, *request, fault=point) == EXIT_STATUS
    assert run_child(node) == 0

    require_whole(node, OLD)
    outcome = node.updater().files.find_outcome()
    assert outcome is not None and outcome.state is UpdateState.ROLLED_BACK


@pytest.mark.parametrize("point", ["update.after_probation", "update.after_start"])
def test_fault_30_power_loss_when_the_new_version_is_bad_still_goes_back(
    node: UpdateNode, tmp_path: Path, point: str
) -> None:
    request = write_request(node, tmp_path, make_bundle(NEW, "1.1.0", extra=DEAF))

    assert run_child(node, *request, fault=point) == EXIT_STATUS
    assert run_child(node) == 0

    require_whole(node, OLD)


@pytest.mark.parametrize("first", RETURN_POINTS[:4])
@pytest.mark.parametrize("second", RETURN_POINTS[:4])
def test_fault_30_power_loss_twice_when_it_starts_a_third_time_ends_with_the_old_version(
    node: UpdateNode, tmp_path: Path, first: str, second: str
) -> None:
    request = write_request(node, tmp_path, make_bundle(NEW, "1.1.0", extra=DEAF))

    assert run_child(node, *request, fault=first) == EXIT_STATUS
    assert run_child(node, fault=second) == EXIT_STATUS
    assert run_child(node) == 0

    require_whole(node, OLD)


def judge_code(node: UpdateNode, build: str, **changes: object) -> str:
    """Why the release is refused."""
    bundle = make_bundle(build, build.partition("-")[0])
    with pytest.raises(FleetError) as caught:
        node.judged(node.updater(), build, bundle, **changes)
    return caught.value.code


def test_fault_30_rollback_attack_when_the_manifest_is_older_is_refused(node: UpdateNode) -> None:
    assert judge_code(node, "0.9.0-cccccccccccc") == "stale_release"


async def test_fault_30_rollback_attack_when_the_number_is_behind_is_refused(node: UpdateNode) -> None:
    assert await update(node, make_bundle(NEW, "1.1.0"), number=7) is UpdateState.UPDATED

    assert judge_code(node, "1.1.0-cccccccccccc", number=6) == "stale_release"
    assert judge_code(node, "1.1.0-cccccccccccc", number=7) == "stale_release"


def test_fault_30_rollback_attack_when_the_keys_are_behind_is_refused(node: UpdateNode) -> None:
    bundle = make_bundle(NEW, "1.1.0")
    manifest = node.publisher.manifest(NEW, bundle)
    updater = node.updater()
    updater.judge(node.publisher.sign(manifest, node.publisher.keys(version=9)))

    with pytest.raises(RefusedError) as caught:
        updater.judge(node.publisher.sign(manifest, node.publisher.keys(version=8)))

    assert caught.value.code == "stale_release"


def test_fault_30_frozen_manifest_when_expired_is_refused(node: UpdateNode) -> None:
    assert judge_code(node, NEW, expires_at=time.time() - 1) == "release_expired"


def test_fault_30_frozen_manifest_when_the_clock_is_set_back_is_still_refused(node: UpdateNode) -> None:
    """The node once saw a document of today, so the clock of last year does not make an old one good."""
    bundle = make_bundle(NEW, "1.1.0")
    node.judged(node.updater(), NEW, bundle)
    year_ago = time.time() - 365 * 86_400
    updater = node.updater(clock=lambda: year_ago)

    with pytest.raises(RefusedError) as caught:
        node.judged(updater, NEW, bundle, issued_at=year_ago, expires_at=year_ago + 86_400)

    assert caught.value.code == "release_expired"


def test_fault_30_manifest_when_signed_by_somebody_else_is_refused(node: UpdateNode, tmp_path: Path) -> None:
    stranger = make_node(tmp_path / "other")
    bundle = make_bundle(NEW, "1.1.0")
    ours = node.publisher.sign(node.publisher.manifest(NEW, bundle))
    theirs = stranger.publisher.sign(stranger.publisher.manifest(NEW, bundle))

    for forged in (
        theirs,
        msgspec.structs.replace(ours, manifest=theirs.manifest),
        msgspec.structs.replace(ours, keys=theirs.keys),
        msgspec.structs.replace(ours, keys=ours.manifest),
        msgspec.structs.replace(ours, manifest=ours.keys),
    ):
        with pytest.raises(RefusedError) as caught:
            node.updater().judge(forged)
        assert caught.value.code in ("bad_signature", "wrong_type")


def test_fault_30_manifest_when_of_another_cluster_is_refused(node: UpdateNode) -> None:
    assert judge_code(node, NEW, cluster_id="another") == "wrong_cluster"


def test_fault_30_manifest_when_of_another_architecture_is_refused(node: UpdateNode) -> None:
    assert judge_code(node, NEW, architecture="riscv64") == "wrong_architecture"


def test_fault_30_manifest_when_the_step_is_too_far_is_refused(node: UpdateNode) -> None:
    assert judge_code(node, "3.0.0-dddddddddddd", min_from="2.0.0") == "update_too_far"


async def test_fault_30_update_when_the_executor_is_never_idle_is_refused(node: UpdateNode) -> None:
    (node.paths.root / "busy").touch()

    assert await update(node, make_bundle(NEW, "1.1.0")) is UpdateState.REFUSED

    require_whole(node, OLD)
    outcome = node.updater().files.find_outcome()
    assert outcome is not None and outcome.error is not None and outcome.error.code == "node_busy"


async def test_fault_30_bundle_when_it_is_another_build_than_signed_is_refused(node: UpdateNode) -> None:
    bundle = make_bundle("1.1.0-eeeeeeeeeeee", "1.1.0")

    assert await update(node, bundle) is UpdateState.REFUSED

    require_whole(node, OLD)
