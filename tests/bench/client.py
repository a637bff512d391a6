"""A client of the controller's API that costs little itself: raw HTTP/1.1 over kept TLS connections.

An ordinary HTTP library takes longer for a request than the controller does; what is measured shall be the controller.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.framework import BenchError

REQUEST_SECONDS = 60.0


class Connection:
    """One kept connection; one request at a time."""

    def __init__(self, port: int, context: ssl.SSLContext, token: str) -> None:
        self._port, self._context = port, context
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one answer; a connection that the server closed meanwhile is opened again once."""
        content = b"" if body is None else json.dumps(body).encode()
        status, raw = await self._exchange(method, f"/api/v1{path}", content)
        return status, json.loads(raw) if raw else None

    async def read_text(self, path: str) -> str:
        """A GET outside of the API."""
        _, raw = await self._exchange("GET", path, b"")
        return raw.decode()

    async def _exchange(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        try:
            return await asyncio.wait_for(self._attempt(method, path, content), REQUEST_SECONDS)
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            return await asyncio.wait_for(self._attempt(method, path, content), REQUEST_SECONDS)

    async def _attempt(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        reader, writer = self._streams
        kind = "Content-Type: application/json\r\n" if content else ""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        raw = await reader.readexactly(length) if length else b""
        return int(lines[0].split(" ")[1]), raw

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class BenchClient:
    """Requests from a pool of connections."""

    def __init__(self, port: int, context: ssl.SSLContext, token: str, connections: int) -> None:
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(connections):
            self._idle.put_nowait(Connection(port, context, token))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a good answer."""
        connection = await self._idle.get()
        try:
            status, answer = await connection.call(method, path, body)
        finally:
            self._idle.put_nowait(connection)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {str(answer)[:300]}")
        return answer

    async def ping(self, node_ids: Sequence[str], *, wait_seconds: float = 30.0) -> float:
        """Have these nodes answer a signed no-op; seconds from the request to the answer that all results are committed.

        Raises:
            BenchError: One of them did not answer.
        """
        began = time.perf_counter()
        answer = await self.call("POST", "/nodes/ping", {"node_ids": list(node_ids), "wait_seconds": wait_seconds})
        seconds = time.perf_counter() - began
        answered = sum(item["has_answered"] for item in answer["items"])
        if answered < len(node_ids):
            raise BenchError(f"{answered} of {len(node_ids)} nodes answered a ping")
        return seconds

    async def wait_connected(self, count: int, *, timeout_seconds: float) -> None:
        """Until so many nodes have a session.

        Raises:
            TimeoutError: They have not within the time.
        """
        async with asyncio.timeout(timeout_seconds):
            while await self.count_connected() < count:  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(1.0)  # a scrape of ten thousand nodes is no small request

    async def count_connected(self) -> int:
        """Sessions of the controller, from its own metrics."""
        connection = await self._idle.get()
        try:
            text = await connection.read_text("/metrics")
        finally:
            self._idle.put_nowait(connection)
        found = re.search(r"^wcp360_nodes_connected (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def list_all(self, path: str) -> list[Any]:
        """Every item of a paged list."""
        items: list[Any] = []
        cursor = ""
        while True:
            glue = "&" if "?" in path else "?"
            page = await self.call("GET", f"{path}{glue}limit=200{cursor}")
            items += page["items"]
            if not page["next_cursor"]:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    async def close(self) -> None:
        while not self._idle.empty():
            await self._idle.get_nowait().close()


@asynccontextmanager
async def connected(port: int, ca_file: str, token: str, *, connections: int = 8) -> AsyncIterator[BenchClient]:
    """A client with so many connections, until the block ends. Not fewer than there are tasks that use it."""
    client = BenchClient(port, ssl.create_default_context(cafile=ca_file), token, connections)
    try:
        yield client
    finally:
        await client.close()
