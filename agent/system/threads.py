"""Blocking work beside the loop that cannot be given up half way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

END_SECONDS: Final = 60.0
"""How long a cancelled caller waits for its thread; one that hangs in the kernel (a dead disk) never ends."""


async def in_thread(work: Callable[[], T]) -> T:
    """Run the work in a thread and return what it returns.

    Unlike with asyncio.to_thread, a cancelled caller waits until the thread has ended: whoever undoes a change must not
    race with the rest of it. Raises whatever the work raises.
    """
    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait({thread}, timeout=END_SECONDS)
        if thread.done() and not thread.cancelled():
            thread.exception()  # seen, so that asyncio does not complain; the cancellation is what the caller hears
        raise
