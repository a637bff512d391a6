"""What starts before an application's first request and ends after its last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from controller.api.lifespan import Lifespan, serve_lifespan


class Server:
    """The other side: says when to start and when to end, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.happened: list[str] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "lifespan.shutdown" if self.heard else "lifespan.startup"}

    async def send(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        self.happened.append(message["type"])

    def part(self, name: str, *, fails_at: str = "") -> Lifespan:
        """One that says when it begins and ends."""

        @asynccontextmanager
        async def run() -> AsyncIterator[None]:
            if fails_at == "start":
                raise OSError(f"{name} cannot start")
            self.happened.append(f"{name} begins")
            yield
            self.happened.append(f"{name} ends")
            if fails_at == "end":
                raise OSError(f"{name} cannot end")

        def make() -> AbstractAsyncContextManager[None]:
            return run()

        return make

    async def serve(self, parts: Sequence[Lifespan]) -> None:
        await serve_lifespan(parts, self.receive, self.send)


async def test_lifespan_begins_in_order_and_ends_in_the_opposite() -> None:
    server = Server()

    await server.serve([server.part("a"), server.part("b")])

    assert server.happened == [
        "a begins", "b begins", "lifespan.startup.complete", "b ends", "a ends", "lifespan.shutdown.complete",
    ]  # fmt: skip


async def test_lifespan_when_a_part_cannot_start_ends_the_others_and_says_why() -> None:
    server = Server()

    with pytest.raises(OSError, match="b cannot start"):
        await server.serve([server.part("a"), server.part("b", fails_at="start")])

    assert server.happened[0] == "a begins"
    assert [message["type"] for message in server.heard] == ["lifespan.startup.failed"]
    assert "b cannot start" in server.heard[0]["message"]


async def test_lifespan_when_a_part_cannot_end_ends_the_others_and_says_why() -> None:
    server = Server()

    with pytest.raises(OSError, match="b cannot end"):
        await server.serve([server.part("a"), server.part("b", fails_at="end")])

    assert server.happened[-2:] == ["b ends", "lifespan.shutdown.failed"]
    assert "b cannot end" in server.heard[-1]["message"]
