"""Health and metrics of a process without an API, over plain HTTP on an address that only monitoring reaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from controller.api.handlers.health import Probes
from controller.metrics.registry import MEDIA_TYPE
from shared.version import __version__

_JSON: Final = "application/json"

Message = MutableMapping[str, Any]
Answer = tuple[int, bytes, str]


class StatusApp:
    """An ASGI application with three addresses: /healthz, /readyz, /metrics."""

    def __init__(self, role: str, probes: Probes) -> None:
        self._role = role
        self._probes = probes

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        _receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        status, body, media_type = await self._answer(scope["path"] if scope["method"] == "GET" else "")
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str) -> Answer:
        if path == "/healthz":
            live = {"status": "live", "role": self._role, "version": __version__}
            return 200, msgspec.json.encode(live), _JSON
        if path == "/readyz":
            checks = await self._probes.run()
            is_ready = set(checks.values()) <= {"ok"}
            view = {"status": "ready" if is_ready else "not_ready", "role": self._role, "checks": checks}
            return 200 if is_ready else 503, msgspec.json.encode(view), _JSON
        if path == "/metrics":
            return 200, await self._probes.render_metrics(), MEDIA_TYPE
        return 404, b"{}", _JSON
