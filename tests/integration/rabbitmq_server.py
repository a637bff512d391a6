"""A throwaway RabbitMQ from Debian's program: free ports of loopback, files of its own, gone when the block ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.integration.live import free_port

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_SECONDS = 120.0


def find_rabbitmq() -> Path | None:
    """The server's program; None when it is not installed."""
    return _PROGRAM if _PROGRAM.exists() else None


@dataclass
class RabbitServer:
    """A server that can be ended and started again with its queues."""

    folder: Path
    port: int
    dist_port: int
    epmd_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def _environment(self) -> dict[str, str]:
        config = self.folder / "rabbitmq.conf"
        config.write_text("disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 256MB\n")
        plugins = self.folder / "enabled_plugins"
        plugins.write_text("[].\n")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": f"wcp{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [_PROGRAM], env=self._environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
        )
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "server.log").read_text()[-3000:])
            time.sleep(0.1)

    def _answers(self) -> bool:
        """The port is open a while before the server speaks; it greets whoever says nothing with its own protocol."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            line.settimeout(2)
            line.sendall(b"AMQP\x00\x00\x09\x01")
            return line.recv(1) == b"\x01"
        return False

    def stop(self) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        self.process = None

    def close(self) -> None:
        self.stop()
        epmd = shutil.which("epmd")
        if epmd is not None:
            argv = [epmd, "-port", str(self.epmd_port), "-kill"]
            end = time.monotonic() + 20
            # It does not let itself be ended before it has noticed that the server is gone.
            while subprocess.run(argv, capture_output=True, timeout=20, check=False, env=self._environment).returncode:
                if time.monotonic() > end:
                    raise RuntimeError(f"epmd on port {self.epmd_port} lives on")
                time.sleep(0.1)


@contextmanager
def start_rabbitmq() -> Iterator[RabbitServer]:
    """A server of the block's own; it takes some ten seconds to start."""
    folder = Path(tempfile.mkdtemp(prefix="wcp-mq-", dir="/tmp"))
    server = RabbitServer(folder, free_port(), free_port(), free_port())
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
