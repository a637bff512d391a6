"""What was asked for: one small file per lab. What is running is never written down, it is read from the kernel."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wcplab.errors import LabError
from wcplab.paths import state_directory

STORAGES = ("btrfs", "plain")


@dataclass(frozen=True)
class NodeDefinition:
    """A node as it was asked for."""

    name: str
    index: int
    """Number in the lab, from 1; decides the address."""
    suite: str
    storage: str
    """btrfs: a volume with quotas at /srv/accounts; plain: a directory of the root disk."""
    image_key: str
    """The image its disk lies on; a newer recipe is used after `reset` only."""


@dataclass(frozen=True)
class LabDefinition:
    """A lab as it was asked for."""

    name: str
    subnet: int
    """Third byte of 10.86.K.0/24."""
    nodes: tuple[NodeDefinition, ...]

    def with_node(self, node: NodeDefinition) -> LabDefinition:
        """Return a copy in which this node replaces the one of the same number, or is added."""
        others = [known for known in self.nodes if known.index != node.index]
        return replace(self, nodes=tuple(sorted([*others, node], key=lambda known: known.index)))


def lab_directory(lab: str) -> Path:
    """Where a lab's definition and disks are."""
    return state_directory() / lab


def render(definition: LabDefinition) -> str:
    """Return the definition as it is written to disk."""
    return json.dumps(asdict(definition), indent=1)


def parse(text: str) -> LabDefinition:
    """Parse what `render` wrote.

    Raises:
        LabError: it is something else.
    """
    try:
        values = json.loads(text)
        nodes = tuple(NodeDefinition(**node) for node in values.pop("nodes"))
        return LabDefinition(**values, nodes=nodes)
    except (ValueError, TypeError, KeyError) as error:
        hint = "remove the lab's directory after `wcp-lab down`"
        raise LabError("bad_lab_file", "a lab's definition cannot be read", hint=hint) from error


def find(lab: str) -> LabDefinition | None:
    """Return a lab's definition, or None when there is no such lab."""
    path = lab_directory(lab) / "lab.json"
    return parse(path.read_text("utf-8")) if path.is_file() else None


def write(definition: LabDefinition) -> None:
    """Write a lab's definition, whole or not at all."""
    path = lab_directory(definition.name) / "lab.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(render(definition), encoding="utf-8")
    temporary.rename(path)


def list_labs() -> list[str]:
    """Return the names of all labs."""
    return sorted(path.parent.name for path in state_directory().glob("*/lab.json"))


def list_subnets() -> set[int]:
    """Return the subnets that labs own, stopped ones too."""
    definitions = (find(lab) for lab in list_labs())
    return {definition.subnet for definition in definitions if definition}
