"""Where a lab keeps things on the machine that runs it. Never in the checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wcplab.errors import UsageError

PACKAGE_DIRECTORY = Path(__file__).resolve().parent
RECIPE_DIRECTORY = PACKAGE_DIRECTORY.parent
"""packages/ and node-files/ are here: the recipe of an image."""

LOCK_DIRECTORY = Path("/run/lock/wcp360-lab")
"""One place for the whole machine, whatever the state directory is: bridges and subnets are the machine's."""

LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
NODE_NAME = re.compile(r"([a-z][a-z0-9-]{0,29})-([1-9][0-9]{0,2})")


def cache_directory() -> Path:
    """Where the node images are kept: $WCP_LAB_CACHE or /var/cache/wcp360-lab."""
    return Path(os.environ.get("WCP_LAB_CACHE") or "/var/cache/wcp360-lab")


def state_directory() -> Path:
    """Where labs and their nodes' disks are kept: $WCP_LAB_STATE or /var/lib/wcp360-lab; a real disk, no tmpfs."""
    return Path(os.environ.get("WCP_LAB_STATE") or "/var/lib/wcp360-lab")


def require_lab_name(name: str) -> str:
    """Return the name of a lab, checked.

    Raises:
        UsageError: it is not a lab name.
    """
    if not LAB_NAME.fullmatch(name):
        raise UsageError("bad_lab_name", f"{name!r} is no lab name", hint="a-z, 0-9 and -, at most 30")
    return name


def lab_of_node(node_name: str) -> str:
    """Return the lab a node belongs to, from its name (run-1 is in run).

    Raises:
        UsageError: it is not a node name.
    """
    match = NODE_NAME.fullmatch(node_name)
    if match is None:
        raise UsageError("bad_node_name", f"{node_name!r} is no node name", hint="LAB-NUMBER, as run-1")
    return match.group(1)
