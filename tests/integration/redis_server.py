"""A throwaway Redis from Debian's binary: on a free port of loopback, in memory only, gone when the block ends."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.integration.live import free_port

_START_SECONDS = 20.0


def find_redis() -> str | None:
    """The server's program; None when it is not installed."""
    return shutil.which("redis-server")


@dataclass
class RedisServer:
    """A server that can be ended and started again on the same port, empty."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=5)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def start(self) -> None:
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + _START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except RedisConnectionError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None


@contextmanager
def start_redis() -> Iterator[RedisServer]:
    """A server of the block's own."""
    server = RedisServer(free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()
