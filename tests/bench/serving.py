"""The processes under measurement: one real controller and the processes that play its nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from process import ControllerProcess

from tests.bench.stock import Stock, make_stock

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


def fast_folder() -> Path:
    """Where the files of simulated agents lie: memory, since their disks are not what is measured."""
    return Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


@dataclass
class Bench:
    """A controller that serves, and its simulated nodes."""

    stock: Stock
    controller: ControllerProcess
    token: str
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def ca_file(self) -> str:
        return str(self.controller.ca_file)

    @property
    def port(self) -> int:
        return self.stock.api_port

    @property
    def process(self) -> psutil.Process:
        pid = self.controller.find_pid()
        if pid is None:
            raise RuntimeError("the controller has ended")
        return psutil.Process(pid)

    def resident_bytes(self) -> int:
        rss: int = self.process.memory_info().rss
        return rss

    def kill_controller(self) -> None:
        """As a power cut would end it."""
        process = self.process
        process.kill()
        process.wait(timeout=STOP_SECONDS)

    def start_controller(self) -> None:
        self.controller.start()

    def start_agents(self, first: int, count: int, *, processes: int = 1) -> None:
        """Have nodes `first` to `first + count - 1` of the stock dial."""
        names = self.stock.names[first : first + count]
        log_path = self.stock.run_dir / f"agents-{len(self.agents)}.log"
        self.agents.append(_start_simulator(self.stock, names, log_path, processes))

    def stop_agents(self) -> None:
        for process in self.agents:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.agents:
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=STOP_SECONDS)
        self.agents.clear()


def _start_simulator(stock: Stock, names: tuple[str, ...], log_path: Path, processes: int) -> subprocess.Popen[bytes]:
    url = f"https://127.0.0.1:{stock.api_port}"
    # Ten thousand names do not fit into one argument, so they come as a file.
    names_file = log_path.with_suffix(".names")
    names_file.write_text("\n".join(names))
    argv = [sys.executable, "-m", "agent", "simulate", "--controller", url, "--state-dir", str(stock.agents_dir)]
    argv += ["--names-file", str(names_file), "--in-memory", "--processes", str(processes)]
    with log_path.open("ab") as log:
        return subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment()
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float, what: str) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_seconds:.0f} s: {what}")
        time.sleep(0.05)


@contextmanager
def serving(
    count: int, *, database_url: str = "", settings: dict[str, str] | None = None, copy_of: Stock | None = None
) -> Iterator[Bench]:
    """A controller with `count` enrolled nodes, none of them connected yet; all of it ends with the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wcp360-bench-")))
        agents = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wcp360-bench-", dir=fast_folder())))
        stock = copy_of or make_stock(folder, agents, count, database_url=database_url)
        controller = ControllerProcess(
            stock.run_dir,
            api_port=stock.api_port,
            gateway_port=stock.gateway_port,
            settings={**stock.settings, **(settings or {})},
        )
        stack.callback(controller.stop)
        controller.start()
        api = controller.sign_in()
        token = api._http.headers["Authorization"].removeprefix("Bearer ")
        bench = Bench(stock, controller, token)
        stack.callback(bench.stop_agents)
        yield bench
