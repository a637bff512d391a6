"""One node: what tests and the command line do with it."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wcplab import boot, cgroups, files, image, network, state
from wcplab.disks import NodeDisk
from wcplab.errors import LabError
from wcplab.process import CLEAN_ENVIRONMENT, Completed
from wcplab.state import NodeDefinition

POWER_OFF_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.03
READ_TIMEOUT_SECONDS = 30.0
COPY_TIMEOUT_SECONDS = 600.0
POWER_OFF_SIGNAL = signal.SIGRTMIN + 4
"""Source: systemd(1), SIGRTMIN+4: powers off the machine via poweroff.target."""


@dataclass(frozen=True)
class NodeStatus:
    """A node as the kernel sees it now."""

    name: str
    suite: str
    address: str
    state: str
    """down, booting, or what systemctl is-system-running says (running, degraded, stopping ...)."""
    is_cut: bool
    leader_pid: int | None
    uptime_seconds: float | None


class Node:
    """A handle on one node. Holds no state of the node: everything is read when it is asked for."""

    def __init__(self, definition: NodeDefinition, subnet: int, lab: str) -> None:
        self.definition = definition
        self.subnet = subnet
        self.lab = lab
        self.disk = NodeDisk(state.lab_directory(lab) / definition.name)
        self.cgroup = cgroups.node_path(network.bridge_name(subnet), definition.name)

    @property
    def name(self) -> str:
        """The node's name and host name, as run-1."""
        return self.definition.name

    @property
    def suite(self) -> str:
        """The Debian release it runs."""
        return self.definition.suite

    @property
    def address(self) -> str:
        """Its address on the lab's bridge."""
        return network.node_address(self.subnet, self.definition.index)

    @property
    def link(self) -> str:
        """The host's end of its cable."""
        return network.link_name(self.subnet, self.definition.index)

    @property
    def leader_pid(self) -> int | None:
        """Its init's process id on this machine, or None when it is down."""
        return cgroups.find_leader(cgroups.list_pids(self.cgroup))

    def require_leader(self) -> int:
        """Return its init's process id.

        Raises:
            LabError: it is down.
        """
        leader = self.leader_pid
        if leader is None:
            raise LabError("node_down", f"{self.name} is down", hint=f"`wcp-lab start {self.name}` boots it")
        return leader

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float = 60.0,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command in the node as root, in its namespaces and cgroup, with a clean environment.

        `environment` is added to the clean one. Call `.check()` on the result to raise when the command failed; exit
        code 124 means that time ran out.

        Raises:
            LabError: the node is down.
        """
        merged = {**CLEAN_ENVIRONMENT, **(environment or {})}
        leader = self.require_leader()
        return boot.run_inside(leader, argv, timeout_seconds=timeout_seconds, stdin=stdin, environment=merged)

    def status(self) -> NodeStatus:
        """Return what the node is doing."""
        leader = self.leader_pid
        uptime = None
        if leader is None:
            current = "booting" if cgroups.list_pids(self.cgroup) else "down"
        else:
            answer = boot.read_system_state(leader)
            current = "booting" if answer in {"unknown", "offline", "initializing", "starting"} else answer
            uptime = read_uptime_seconds(leader)
        return NodeStatus(self.name, self.suite, self.address, current, network.is_cut(self.link), leader, uptime)

    def start(self) -> str:
        """Boot the node from its disk and wait until it is up; does nothing when it is up already.

        Returns:
            `running`, or `degraded` when a unit failed.

        Raises:
            LabError: it does not come up.
        """
        if self.leader_pid is None:
            cgroups.kill(self.cgroup)
            self.prepare_disk()
            network.ensure_bridge(self.subnet)
            boot.start(self.definition, self.subnet, self.disk)
        return boot.wait_until_up(self.cgroup, self.disk)

    def prepare_disk(self) -> None:
        """Mount the node's disk, after making it when it is new. A disk whose making was cut short is made anew."""
        found = image.find_image(self.definition.image_key)
        if found is None:
            hint = f"`wcp-lab reset {self.name}` gives it a new disk on the current image"
            raise LabError("image_gone", f"the image {self.definition.image_key} of {self.name} is gone", hint=hint)
        is_new = not self.disk.is_created
        if is_new:
            self.disk.remove()
        self.disk.mount(Path(found.root), self.definition.storage)
        if is_new:
            self.disk.personalise(self.name, self.address, self.hosts_file())

    def hosts_file(self) -> str:
        """Return the node's /etc/hosts: itself, the controller's machine, and every node of its lab."""
        definition = state.find(self.lab)
        others = definition.nodes if definition else (self.definition,)
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        lines += [f"{network.host_address(self.subnet)} controller"]
        lines += [f"{network.node_address(self.subnet, other.index)} {other.name}" for other in others]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """Shut the node down as its power button would, and keep its disk. Idempotent."""
        leader = self.leader_pid
        if leader is not None:
            os.kill(leader, POWER_OFF_SIGNAL)
            deadline = time.monotonic() + POWER_OFF_TIMEOUT_SECONDS
            while cgroups.list_pids(self.cgroup) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        self.kill()
        self.disk.unmount()

    def kill(self) -> None:
        """Cut its power: every process dies at once, nothing is shut down. The disk is kept. Idempotent."""
        cgroups.kill(self.cgroup)
        boot.remove_traces(self.definition, self.subnet)

    def cut(self) -> None:
        """Pull its network cable. The node keeps running; a boot plugs the cable in again."""
        self.require_leader()
        network.ip("link", "set", "dev", self.link, "down")

    def heal(self) -> None:
        """Plug its network cable in again. Idempotent."""
        self.require_leader()
        network.ip("link", "set", "dev", self.link, "up")

    def push(self, source: Path, destination: str) -> None:
        """Copy a file or directory into the node, owned by root, under exactly the name given.

        A directory is laid over what is there already.
        """
        self._unpack(files.pack(source, PurePosixPath(destination).name), destination)

    def pull(self, source: str, destination: Path) -> None:
        """Copy a file or directory out of the node, under exactly the name given."""
        path = PurePosixPath(source)
        argv = ["tar", "--create", "--numeric-owner", "--directory", str(path.parent), "--file=-", "--", path.name]
        packed = self.run(argv, timeout_seconds=COPY_TIMEOUT_SECONDS).check()
        files.unpack(packed.stdout_bytes, path.name, destination)

    def read_text(self, path: str) -> str:
        """Return the text of a file in the node.

        Raises:
            LabError: there is no such file.
        """
        return self.run(["cat", "--", path], timeout_seconds=READ_TIMEOUT_SECONDS).check().stdout

    def write_text(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in the node, owned by root; its directory is made when missing."""
        content = text.encode()
        member = tarfile.TarInfo(PurePosixPath(path).name)
        member.size, member.mode, member.mtime = len(content), mode, int(time.time())
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.addfile(member, io.BytesIO(content))
        self._unpack(packed.getvalue(), path)

    def _unpack(self, packed: bytes, destination: str) -> None:
        directory = str(PurePosixPath(destination).parent)
        self.run(["mkdir", "--parents", "--", directory], timeout_seconds=READ_TIMEOUT_SECONDS).check()
        argv = ["tar", "--extract", "--overwrite", "--preserve-permissions", "--numeric-owner"]
        argv += ["--directory", directory, "--file=-"]
        self.run(argv, timeout_seconds=COPY_TIMEOUT_SECONDS, stdin=packed).check()


def read_uptime_seconds(pid: int) -> float | None:
    """Return how long a process has lived, or None when it is gone.

    Source: proc_pid_stat(5), field 22, starttime in clock ticks after boot; proc_uptime(5).
    """
    fields = cgroups.read_stat_fields(pid)
    if not fields:
        return None
    since_boot = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return round(since_boot - int(fields[19]) / os.sysconf("SC_CLK_TCK"), 1)
