"""The peer: a Salt master with its minions on loopback, asked by one long-lived client process.

Salt comes from PyPI into a virtual environment of its own, outside of the checkout. What is timed is Salt's own client
API (`LocalClient.cmd`) in a process that has imported everything and holds its connection, as our client does: the
`salt` command takes a second to start, which would flatter us.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.bench.framework import BenchError
from tests.e2e.fleet import free_port

CACHE = Path(os.environ.get("WCP360_BENCH_CACHE", "/var/cache/wcp360-bench"))
SALT = "salt==3007.15"
INSTALL_SECONDS = 600.0
START_SECONDS = 240.0
STOP_SECONDS = 20.0

MINION_CONFIG = {
    "master": "127.0.0.1",
    "open_mode": True,
    "log_level": "warning",
    "grains_cache": True,
    "enable_fqdns_grains": False,
    "enable_gpu_grains": False,
    "multiprocessing": False,
    "acceptance_wait_time": 1,
    "auth_timeout": 5,
    "random_startup_delay": 0,
}
"""Salt's defaults, but for what makes twenty minions start quickly on one machine, and threads instead of a new process
for each job: that is the faster way for Salt."""

ASKER = """
import json, sys, time
import salt.client
client = salt.client.LocalClient(sys.argv[1])
print(json.dumps({"is_ready": True}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    began = time.perf_counter()
    answers = client.cmd(ask["target"], "test.ping", tgt_type=ask["kind"], timeout=ask["timeout"])
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "answered": sum(value is True for value in answers.values())}), flush=True)
"""


def ensure_salt() -> Path:
    """The virtual environment's Python, made at the first use.

    Raises:
        BenchError: pip cannot install it; the message is pip's.
    """
    home = CACHE / "salt"
    python = home / "bin" / "python"
    if not (home / "bin" / "salt-master").exists():
        shutil.rmtree(home, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SALT])
    return python


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv[:6])} failed: {done.stderr[-600:]}")


@dataclass
class SaltFleet:
    """A master, its minions, and the process that asks."""

    asker: subprocess.Popen[str]
    names: tuple[str, ...]

    def ping(self, names: tuple[str, ...], *, timeout_seconds: int = 10) -> tuple[float, int]:
        """Seconds that `test.ping` of these minions took, and how many answered."""
        target = {"target": ",".join(names), "kind": "list", "timeout": timeout_seconds}
        answer = _ask(self.asker, target)
        return float(answer["seconds"]), int(answer["answered"])


def _ask(asker: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    if asker.stdin is None or asker.stdout is None:
        raise BenchError("the asking process has no pipes")
    asker.stdin.write(json.dumps(question) + "\n")
    asker.stdin.flush()
    return _read(asker.stdout)


def _read(stream: IO[str]) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise BenchError("Salt's client has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextmanager
def salt_fleet(folder: Path, count: int) -> Iterator[SaltFleet]:
    """A master and `count` minions, all answering; everything ends with the block."""
    python = ensure_salt()
    names = tuple(f"minion-{number}" for number in range(1, count + 1))
    with contextlib.ExitStack() as stack:
        master_dir = _write_master(folder)
        # The minions' processes are Salt's own, so they are ended by their ids (below), as any other process is here.
        _start(stack, [str(python.with_name("salt-master")), "-c", str(master_dir)], folder / "master.log")
        for name in names:
            config = _write_minion(folder, name, master_dir)
            _start(stack, [str(python.with_name("salt-minion")), "-c", str(config)], folder / f"{name}.log")
        asker = _start_asker(stack, python, folder, master_dir)
        fleet = SaltFleet(asker, names)
        _wait_all(fleet)
        yield fleet


def _write_master(folder: Path) -> Path:
    config = folder / "master"
    config.mkdir(parents=True)
    values = {
        "interface": "127.0.0.1",
        "publish_port": free_port(),
        "ret_port": free_port(),
        "root_dir": str(folder / "master-root"),
        "pki_dir": str(folder / "master-root" / "pki"),
        "cachedir": str(folder / "master-root" / "cache"),
        "sock_dir": str(folder / "master-root" / "s"),
        "log_file": str(folder / "master-file.log"),
        "pidfile": str(folder / "master.pid"),
        "user": "root",
        "auto_accept": True,
        "open_mode": True,
        "log_level": "warning",
    }
    (config / "master").write_text(json.dumps(values))  # JSON is YAML
    return config


def _write_minion(folder: Path, name: str, master_dir: Path) -> Path:
    master = json.loads((master_dir / "master").read_text())
    config = folder / name
    config.mkdir()
    values = {
        **MINION_CONFIG,
        "id": name,
        "master_port": master["ret_port"],
        "publish_port": master["publish_port"],
        "root_dir": str(folder / f"{name}-root"),
        "pki_dir": str(folder / f"{name}-root" / "pki"),
        "cachedir": str(folder / f"{name}-root" / "cache"),
        "sock_dir": str(folder / f"{name}-root" / "s"),
        "log_file": str(folder / f"{name}-file.log"),
        "pidfile": str(folder / f"{name}.pid"),
        "user": "root",
    }
    (config / "minion").write_text(json.dumps(values))
    return config


def _start(stack: contextlib.ExitStack, argv: list[str], log_path: Path) -> None:
    with log_path.open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    stack.callback(end_tree, process)


def _start_asker(stack: contextlib.ExitStack, python: Path, folder: Path, master_dir: Path) -> subprocess.Popen[str]:
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "master-root" / "s" / "publish_pull.ipc").exists():
        if time.monotonic() > deadline:
            raise BenchError(f"salt-master did not start: {(folder / 'master.log').read_text()[-600:]}")
        time.sleep(0.2)
    argv = [str(python), "-c", ASKER, str(master_dir / "master")]
    with (folder / "asker.log").open("ab") as log:
        asker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    stack.callback(end_tree, asker)
    if asker.stdout is None:
        raise BenchError("the asking process has no pipes")
    _read(asker.stdout)
    return asker


def _wait_all(fleet: SaltFleet) -> None:
    deadline = time.monotonic() + START_SECONDS
    while fleet.ping(fleet.names, timeout_seconds=5)[1] < len(fleet.names):
        if time.monotonic() > deadline:
            raise BenchError(f"not all of {len(fleet.names)} minions answered within {START_SECONDS:.0f} s")


def end_tree(process: subprocess.Popen[Any]) -> None:
    """End a process that we started and all that it started, by their ids."""
    import psutil  # noqa: PLC0415 - the smoke test of the framework runs without it

    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(timeout=STOP_SECONDS)
