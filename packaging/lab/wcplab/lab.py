"""One lab: its nodes together, their bridge, and what is left when it is gone (nothing)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from time import monotonic

from wcplab import boot, cgroups, check, image, locks, mounts, network, recipe, state
from wcplab.errors import LabError, UsageError
from wcplab.image_build import Progress
from wcplab.node import Node, NodeStatus
from wcplab.paths import LOCK_DIRECTORY, require_lab_name
from wcplab.state import LabDefinition, NodeDefinition

LAB_LOCK_TIMEOUT_SECONDS = 600.0
SUBNET_LOCK_TIMEOUT_SECONDS = 60.0
DEFAULT_SUITES = ("bookworm",)
DEFAULT_STORAGE = "btrfs"


def print_progress(line: str) -> None:
    """Print a progress line where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


class Lab:
    """A handle on one lab, existing or to be made by `up`."""

    def __init__(self, name: str, *, progress: Progress = print_progress) -> None:
        self.name = require_lab_name(name)
        self.progress = progress

    @property
    def definition(self) -> LabDefinition | None:
        """What was asked for, or None when there is no such lab."""
        return state.find(self.name)

    @property
    def host_address(self) -> str:
        """This machine's address in the lab, where a controller listens; nodes know it as `controller`."""
        return network.host_address(self._require().subnet)

    @property
    def nodes(self) -> list[Node]:
        """Its nodes in order."""
        definition = self._require()
        return [Node(node, definition.subnet, self.name) for node in definition.nodes]

    def node(self, name: str) -> Node:
        """Return a node by its name (run-1).

        Raises:
            LabError: the lab has no such node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError("no_such_node", f"{self.name} has no node {name}", hint="`wcp-lab status` lists them")

    def up(
        self,
        nodes: int,
        *,
        suites: Sequence[str] | None = None,
        storage: str | None = None,
    ) -> list[Node]:
        """Make sure that this many nodes are up. Idempotent: what is up stays, what is down boots from its disk.

        `suites` are Debian releases, one per node, started over when there are fewer than nodes. `storage` is what
        /srv/accounts is: `btrfs` (a volume with quotas) or `plain` (a directory). None takes nodes that exist as they
        are, and bookworm and btrfs for new ones.

        Raises:
            CannotBootError: this machine cannot boot nodes.
            LabError: a node does not come up, or exists with another suite or storage.
        """
        check.require_machine()
        wanted = plan_nodes(self.name, nodes, suites or DEFAULT_SUITES, storage or DEFAULT_STORAGE)
        with self._lock():
            known = {node.index: node for node in (self.definition.nodes if self.definition else ())}
            require_same(wanted, known, has_suites=suites is not None, has_storage=storage is not None)
            missing = [node for node in wanted if node.index not in known]
            if missing:
                self._add(missing)
            chosen = [node for node in self.nodes if node.definition.index <= nodes]
            self._boot(chosen)
            if missing and known:
                self._refresh_hosts()
        return chosen

    def _add(self, missing: Sequence[NodeDefinition]) -> None:
        image.ensure_images([node.suite for node in missing], self.progress)
        with locks.locked(LOCK_DIRECTORY / "subnets.lock", timeout_seconds=SUBNET_LOCK_TIMEOUT_SECONDS):
            definition = self.definition
            if definition is None:
                used = state.list_subnets() | network.read_used_subnets()
                definition = LabDefinition(self.name, network.choose_subnet(self.name, used), ())
            for node in missing:
                definition = definition.with_node(node)
            # The bridge is made under the lock: labs in other state directories see it in the routes.
            network.ensure_bridge(definition.subnet)
            state.write(definition)

    def _boot(self, nodes: Sequence[Node]) -> None:
        down = [node for node in nodes if node.leader_pid is None]
        if down:
            network.ensure_bridge(down[0].subnet)
            self._in_parallel(self._start_node, down)

    def _start_node(self, node: Node) -> None:
        began = monotonic()
        self.progress(f"{node.name}: booting {node.suite} at {node.address}")
        found = node.start()
        failed = ""
        if found == "degraded":
            failed = f", failed: {', '.join(boot.list_failed_units(node.require_leader()))}"
        self.progress(f"{node.name}: {found} after {monotonic() - began:.1f} s{failed}")

    def _refresh_hosts(self) -> None:
        for node in self.nodes:
            if node.leader_pid is not None:
                node.write_text("/etc/hosts", node.hosts_file())

    def status(self) -> list[NodeStatus]:
        """Return what each node is doing; empty when there is no such lab."""
        return [node.status() for node in self.nodes] if self.definition else []

    def stop(self) -> None:
        """Shut every node down and keep the disks. Idempotent."""
        with self._lock():
            self._in_parallel(lambda node: node.stop(), self.nodes)

    def down(self) -> None:
        """Remove the lab and everything it made on this machine. Idempotent, also after a crash half-way."""
        with self._lock():
            definition = self.definition
            if definition:
                self._in_parallel(_remove_node, self.nodes)
                network.remove_bridge(definition.subnet)
                cgroups.remove_group(network.bridge_name(definition.subnet))
            directory = state.lab_directory(self.name)
            if directory.exists():
                mounts.unmount_all(directory)
                # The definition goes last of all, so that an interrupted `down` can be repeated.
                for path in directory.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                shutil.rmtree(directory)

    def start_node(self, name: str) -> None:
        """Boot one node from its disk. Idempotent."""
        with self._lock():
            self._start_node(self.node(name))

    def kill_node(self, name: str) -> None:
        """Cut one node's power. Idempotent."""
        with self._lock():
            self.node(name).kill()

    def reset_node(self, name: str) -> Node:
        """Give one node a fresh disk on the current image of its suite, and boot it."""
        with self._lock():
            node = self.node(name)
            _remove_node(node)
            image.ensure_images([node.suite], self.progress)
            fresh = replace(node.definition, image_key=recipe.image_key(node.suite))
            state.write(self._require().with_node(fresh))
            node = self.node(name)
            self._start_node(node)
        return node

    def _require(self) -> LabDefinition:
        definition = self.definition
        if definition is None:
            raise LabError(
                "no_such_lab", f"there is no lab {self.name}", hint=f"`wcp-lab up --lab {self.name}` makes it"
            )
        return definition

    def _lock(self) -> AbstractContextManager[None]:
        path = LOCK_DIRECTORY / f"lab-{self.name}.lock"
        return locks.locked(path, timeout_seconds=LAB_LOCK_TIMEOUT_SECONDS)

    def _in_parallel(self, action: Callable[[Node], None], nodes: Sequence[Node]) -> None:
        """Do something with all nodes at once; all are tried, then the first failure is raised."""
        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            running = [pool.submit(action, node) for node in nodes]
        for future in running:
            future.result()


def _remove_node(node: Node) -> None:
    node.kill()
    node.disk.remove()


def plan_nodes(lab: str, count: int, suites: Sequence[str], storage: str) -> list[NodeDefinition]:
    """Return the nodes that a lab of this size has, numbered from 1.

    Raises:
        UsageError: the size, a suite or the storage is not possible.
    """
    if not 1 <= count <= network.MAX_NODES:
        raise UsageError("bad_count", f"{count} nodes", hint=f"1 to {network.MAX_NODES}")
    if storage not in state.STORAGES:
        raise UsageError("bad_storage", f"no storage {storage!r}", hint=f"one of {', '.join(state.STORAGES)}")
    chosen = [recipe.require_suite(suite) for suite in suites]
    keys = {suite: recipe.image_key(suite) for suite in chosen}
    cycled = [chosen[position % len(chosen)] for position in range(count)]
    return [
        NodeDefinition(f"{lab}-{index}", index, suite, storage, keys[suite])
        for index, suite in enumerate(cycled, start=1)
    ]


def require_same(
    wanted: Sequence[NodeDefinition], known: dict[int, NodeDefinition], *, has_suites: bool, has_storage: bool
) -> None:
    """Refuse to turn an existing node into another kind. A newer image is fine: the node keeps its disk.

    Suites (and storage) that were not asked for are not compared: existing nodes are taken as they are.

    Raises:
        LabError: a node exists with another suite or storage.
    """
    for node in wanted:
        found = known.get(node.index)
        if found is None:
            continue
        if (has_suites and found.suite != node.suite) or (has_storage and found.storage != node.storage):
            hint = "remove the lab with `wcp-lab down`, or ask for what it has"
            message = f"{node.name} exists with {found.suite} and {found.storage} storage"
            raise LabError("other_kind", message, hint=hint)
