"""What goes into a node image, and the key that changes when any of it does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from wcplab.errors import UsageError
from wcplab.paths import PACKAGE_DIRECTORY, RECIPE_DIRECTORY

SUITES = ("bookworm", "trixie")
"""Debian 12 (PHP 8.2) and 13 (PHP 8.4): two PHP versions, two systemd generations."""

MASKED_UNITS = (
    "console-getty.service",  # nobody sits at a node's console, and its log is a file
    "apt-daily.timer",  # a node must not start work of its own in the middle of a test
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-firstboot.service",
)
ENABLED_UNITS = ("wcp-lab-network.service",)
CODE_FILES = ("recipe.py", "image_build.py")
"""Code whose change makes another image."""
KEY_LENGTH = 12


def require_suite(suite: str) -> str:
    """Return a suite's name, checked.

    Raises:
        UsageError: it is none we build.
    """
    if suite not in SUITES:
        raise UsageError("unknown_suite", f"no image recipe for {suite!r}", hint=f"one of {', '.join(SUITES)}")
    return suite


def parse_packages(text: str, suite: str) -> dict[str, list[str]]:
    """Parse a package list: group name mapped to package names, in file order; "" is the group before any heading.

    A line is `name [suite] # why`; with `[suite]` the package is taken for that suite only. `[group]` alone starts one.
    """
    groups: dict[str, list[str]] = {}
    group = ""
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        heading = re.fullmatch(r"\[([a-z0-9-]+)\]", line)
        if heading:
            group = heading.group(1)
        elif line:
            name, _, only = line.partition(" ")
            if only.strip(" []") in {"", suite}:
                groups.setdefault(group, []).append(name)
    return groups


def read_packages(list_name: str, suite: str, directory: Path = RECIPE_DIRECTORY) -> dict[str, list[str]]:
    """Return the package list `base` or `offline` of a suite, by group."""
    return parse_packages((directory / "packages" / f"{list_name}.txt").read_text("utf-8"), suite)


def recipe_files(directory: Path = RECIPE_DIRECTORY, code_directory: Path = PACKAGE_DIRECTORY) -> list[Path]:
    """Return every file that decides what an image holds, in a stable order."""
    lists = sorted((directory / "packages").glob("*.txt"))
    node_files = sorted(path for path in (directory / "node-files").rglob("*") if path.is_file())
    return [*lists, *node_files, *(code_directory / name for name in CODE_FILES)]


def hash_recipe(suite: str, files: Iterable[tuple[str, bytes]]) -> str:
    """Return the key of an image: the same recipe always gives the same key, and any other gives another."""
    digest = hashlib.sha256(suite.encode())
    for name, content in files:
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:KEY_LENGTH]


def image_key(suite: str) -> str:
    """Return the name of a suite's current image, as bookworm-0123456789ab."""
    contents = ((str(path.relative_to(RECIPE_DIRECTORY)), path.read_bytes()) for path in recipe_files())
    return f"{suite}-{hash_recipe(suite, contents)}"
