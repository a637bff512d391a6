"""Bundles of other versions, made of a copy of the sources, and a visitor who notices every request that fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.fleet import Fleet
from tests.golden.golden_agents import unpack_golden_agent

REPOSITORY = Path(__file__).resolve().parents[2]
STUCK_LINK = """

def run_link(_arguments: argparse.Namespace) -> int:
    import time

    time.sleep(3600)
    return 0
"""
"""A release whose self-test passes and that never says a word."""


def copy_sources(target: Path, *, version: str | None = None, golden: int | None = None) -> Path:
    """A checkout to build a bundle of: the present agent with another version, or a golden one."""
    shutil.copytree(REPOSITORY / "packaging", target / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(REPOSITORY / "LICENSE", target / "LICENSE")
    if golden is not None:
        return unpack_golden_agent(golden, target)
    for package in ("agent", "shared"):
        shutil.copytree(REPOSITORY / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    if version is not None:
        (target / "shared/version.py").write_text(f'"""The version."""\n\n__version__ = "{version}"\n')
    return target


def build_bundle_of(sources: Path, out: Path) -> None:
    argv = [sys.executable, str(sources / "packaging/bundle/build_bundle.py"), "--out", str(out)]
    completed = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert completed.returncode == 0, completed.stderr


@dataclass
class Visits:
    """What visitors of one site got."""

    url: str
    host: str
    count: int = 0
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=5.0) as client:
            while not self.stop.is_set():
                try:
                    status = client.get(self.url, headers={"Host": self.host}).status_code
                    if status != 200:
                        self.failures.append(f"HTTP {status}")
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                self.count += 1
                time.sleep(0.05)


@contextmanager
def visiting(fleet: Fleet, *sites: tuple[str, str]) -> Iterator[list[Visits]]:
    """Ask each (node, host) about twenty times a second until the block ends."""
    visits = [Visits(f"http://{fleet.node(node).address}/", host) for node, host in sites]
    threads = [threading.Thread(target=visit.run, daemon=True) for visit in visits]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        for visit in visits:
            visit.stop.set()
        for thread in threads:
            thread.join(timeout=10)
