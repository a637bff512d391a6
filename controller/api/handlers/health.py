"""Whether the controller lives, can work, and how it does: for load balancers and monitoring."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
import structlog
from litestar import Request, Response, get
from litestar.di import NamedDependency

from controller.api import scopes
from controller.api.guards import PUBLIC, require_identity
from controller.metrics.registry import MEDIA_TYPE
from shared.version import __version__

_TAGS = ["health"]
_CHECK_SECONDS: Final = 5.0
_log = structlog.get_logger("controller.health")

Check = Callable[[], Awaitable[None]]
"""Returns when all is well, raises when not."""


class Probes:
    """The named checks of readiness and the numbers for /metrics; bootstrap fills it."""

    def __init__(self, checks: Mapping[str, Check], render_metrics: Callable[[], Awaitable[bytes]]) -> None:
        self._checks = dict(checks)
        self.render_metrics = render_metrics

    async def run(self) -> dict[str, str]:
        """Check name to `ok` or what is wrong. A check that takes longer than five seconds has failed."""
        answers = await asyncio.gather(*(self._run_one(name, check) for name, check in self._checks.items()))
        return dict(zip(self._checks, answers, strict=True))

    async def _run_one(self, name: str, check: Check) -> str:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001 - a boundary: whatever a check raises is its answer
            _log.warning("readiness.failed", check=name, exc_info=error)
            return "failed"
        return "ok"


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str
    version: str


class ReadyView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the controller can work."""

    status: Annotated[str, msgspec.Meta(description="ready or not_ready.")]
    checks: Annotated[
        dict[str, str],
        msgspec.Meta(description="Check to ok or failed; the log says why.", examples=[{"database": "ok"}]),
    ]


@get("/healthz", operation_id="show-health", tags=_TAGS, opt={PUBLIC: True}, summary="Is the process alive?")
async def show_health() -> LiveView:
    """Answer as long as the event loop turns."""
    return LiveView(status="live", version=__version__)


@get("/readyz", operation_id="show-readiness", tags=_TAGS, opt={PUBLIC: True}, summary="Can the controller work?")
async def show_readiness(probes: NamedDependency[Probes]) -> Response[ReadyView]:
    """Check database, signer and gateway; 503 when one of them fails."""
    checks = await probes.run()
    is_ready = set(checks.values()) <= {"ok"}
    view = ReadyView(status="ready" if is_ready else "not_ready", checks=checks)
    return Response(view, status_code=200 if is_ready else 503)


@get("/metrics", opt={PUBLIC: True}, include_in_schema=False)
async def show_metrics(request: Request[Any, Any, Any], probes: NamedDependency[Probes]) -> Response[bytes]:
    """Prometheus metrics: for this machine without, for others with a token that may read metrics."""
    if not _is_loopback(request) or scopes.is_credential_rejected(request.scope):
        require_identity(request).actor.require("metrics", "read")
    return Response(await probes.render_metrics(), media_type=MEDIA_TYPE)


def _is_loopback(request: Request[Any, Any, Any]) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


ROUTES = (show_health, show_readiness, show_metrics)
