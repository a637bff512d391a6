"""The ASGI lifespan of an application: what starts before its first request and ends after its last.

Litestar's own belongs to the compiled routes, which all applications of a process share.
Source: ASGI lifespan protocol 2.0.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


async def serve_lifespan(lifespans: Sequence[Lifespan], receive: Any, send: Any) -> None:
    """Enter all of them in their order, tell the server, leave them in the opposite order when it says so."""
    await receive()
    phase = "startup"
    try:
        async with AsyncExitStack() as stack:
            for lifespan in lifespans:
                await stack.enter_async_context(lifespan())
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            await receive()
    except BaseException:
        await send({"type": f"lifespan.{phase}.failed", "message": traceback.format_exc()})
        raise
    await send({"type": "lifespan.shutdown.complete"})
