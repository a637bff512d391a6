"""Starting a node's processes, and waiting until its systemd says that it is up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from wcplab import cgroups, network
from wcplab.disks import ACCOUNTS_MOUNT_POINT, NodeDisk
from wcplab.errors import LabError
from wcplab.paths import PACKAGE_DIRECTORY
from wcplab.process import CLEAN_ENVIRONMENT, Completed, run
from wcplab.state import NodeDefinition

LEADER_TIMEOUT_SECONDS = 20.0
RUNNING_TIMEOUT_SECONDS = 90.0
PROBE_TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.05
CONSOLE_TAIL_LINES = 15
PROPAGATE_DIRECTORY = Path("/run/systemd/nspawn/propagate")

UP_STATES = frozenset({"running", "degraded"})
"""Source: systemctl(1), is-system-running: every other state is on the way up or down."""


def launcher_argv(directories: Sequence[Path], program: Sequence[str], *, keeper: Sequence[Path] = ()) -> list[str]:
    """Return the argument list that starts a program as a member of these cgroups.

    `keeper` names the cgroups of a process that stays and starts the program again when it reboots; empty: none stays.
    """
    options = [word for directory in directories for word in ("--cgroup", str(directory))]
    options += [word for directory in keeper for word in ("--keeper", str(directory))]
    return [sys.executable, "-I", "-S", str(PACKAGE_DIRECTORY / "launch.py"), *options, "--", *program]


def nspawn_argv(node: NodeDefinition, subnet: int, disk: NodeDisk) -> list[str]:
    """Return the argument list that boots a node.

    Source: systemd-nspawn(1), systemd 252. `--register=no --keep-unit`: works where systemd is not this machine's init.
    """
    argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--link-journal=no"]
    argv += ["--resolv-conf=off", "--timezone=off", "--console=read-only"]
    argv += [f"--machine={network.machine_name(subnet, node.index)}", f"--hostname={node.name}"]
    argv += [f"--network-bridge={network.bridge_name(subnet)}", f"--directory={disk.root}"]
    if node.storage == "btrfs":
        argv += [f"--bind={disk.accounts}:{ACCOUNTS_MOUNT_POINT}"]
    # Not --boot, which goes straight to systemd: our first process makes cgroup v1 writable and then becomes systemd.
    return [*argv, "/usr/local/lib/wcp-lab/init"]


def start(node: NodeDefinition, subnet: int, disk: NodeDisk) -> None:
    """Start a node's processes in its cgroup and return at once.

    Changes: makes the node's cgroup and link, overwrites its console log.
    """
    remove_traces(node, subnet)
    path = cgroups.node_path(network.bridge_name(subnet), node.name)
    # Two groups, as cgroup v2 allows processes in the leaves of the tree only and nspawn makes leaves of its own.
    guest, keeper = cgroups.create(path / "guest"), cgroups.create(path / "keeper")
    with disk.console_log.open("wb") as console:
        subprocess.Popen(
            launcher_argv(guest, nspawn_argv(node, subnet, disk), keeper=keeper),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=dict(CLEAN_ENVIRONMENT),
            start_new_session=True,
        )


def remove_traces(node: NodeDefinition, subnet: int) -> None:
    """Remove what an nspawn that was killed could not: its link, and its empty directory in /run."""
    link = network.link_name(subnet, node.index)
    if network.exists(link):
        run(["ip", "link", "delete", "dev", link], timeout_seconds=PROBE_TIMEOUT_SECONDS)
    directory = PROPAGATE_DIRECTORY / network.machine_name(subnet, node.index)
    try:
        directory.rmdir()
    except OSError:
        # Not there, the usual case.
        return


def wait_for_leader(path: Path, disk: NodeDisk) -> int:
    """Return the node's init, as soon as there is one.

    Raises:
        LabError: nspawn ended instead; the message has the console's last lines.
    """
    deadline = time.monotonic() + LEADER_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        leader = cgroups.find_leader(cgroups.list_pids(path))
        if leader is not None:
            return leader
        time.sleep(POLL_SECONDS)
    hint = f"see {disk.console_log}; is the machine able to boot nodes (`wcp-lab check`)?"
    raise LabError("not_started", f"{path.name} did not start: {console_tail(disk)}", hint=hint)


def wait_until_up(path: Path, disk: NodeDisk) -> str:
    """Wait until the node's systemd is done starting; return `running`, or `degraded` when a unit failed.

    Raises:
        LabError: it is not done within the time limit, or ended.
    """
    wait_for_leader(path, disk)
    deadline = time.monotonic() + RUNNING_TIMEOUT_SECONDS
    state = "unknown"
    while time.monotonic() < deadline:
        leader = cgroups.find_leader(cgroups.list_pids(path))
        if leader is None:
            break
        state = read_system_state(leader)
        if state in UP_STATES:
            return state
        time.sleep(POLL_SECONDS)
    raise LabError("not_up", f"{path.name} is {state}: {console_tail(disk)}", hint=f"see {disk.console_log}")


def read_system_state(leader: int) -> str:
    """Return what the node's systemd says of itself, or `unknown` while it does not answer."""
    answer = run_inside(leader, ["systemctl", "is-system-running"], timeout_seconds=PROBE_TIMEOUT_SECONDS)
    return answer.stdout.strip() or "unknown"


def list_failed_units(leader: int) -> list[str]:
    """Return the units that failed."""
    argv = ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"]
    lines = run_inside(leader, argv, timeout_seconds=PROBE_TIMEOUT_SECONDS).stdout.splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def inside_argv(leader: int, argv: Sequence[str]) -> list[str]:
    """Return the argument list that runs a command in the node: all its namespaces, its root, its cgroup."""
    enter = ["nsenter", "--target", str(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
    return launcher_argv(cgroups.leader_cgroups(leader), [*enter, "--root", "--wd", "--", *argv])


def run_inside(
    leader: int,
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    stdin: bytes | None = None,
    environment: Mapping[str, str] = CLEAN_ENVIRONMENT,
) -> Completed:
    """Run a command in the node to its end."""
    try:
        full = inside_argv(leader, argv)
    except OSError as error:
        raise LabError("node_down", "the node went down meanwhile", hint="`wcp-lab start` boots it again") from error
    done = run(full, timeout_seconds=timeout_seconds, stdin=stdin, environment=environment)
    return Completed(tuple(argv), done.exit_code, done.stdout_bytes, done.stderr_bytes)


def console_tail(disk: NodeDisk) -> str:
    """Return the last lines of the node's console."""
    try:
        lines = disk.console_log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return "no console output"
    return "\n".join(lines[-CONSOLE_TAIL_LINES:])
