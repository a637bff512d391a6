"""Routes, compiled once for each set of them.

Compiling some 260 routes takes half a second and depends on nothing but the routes. What a controller is made of comes
along with each request instead (given.py), so that every application of a process shares what was compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers.base import BaseRouteHandler

from controller.api.body import StrictRequest
from controller.api.errors import answer_error
from controller.api.given import bound_given
from controller.api.openapi import openapi_config
from controller.core.http import API_ROOT

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_SETS_KEPT: Final = 4
"""A process serves one set of routes; tests make a few more."""

Asked = tuple[tuple[str, Callable[..., Any]], ...]
"""Names of parameters, and what finds their values in the request."""


@lru_cache(maxsize=_SETS_KEPT)
def compile_routes(
    api_routes: tuple[Any, ...], root_routes: tuple[Any, ...], names: frozenset[str], asked: Asked
) -> Litestar:
    """An application of these routes that is no controller's own: it answers with what is bound to the request's task.

    Its own lifespan is not to be used, for the same reason.

    Args:
        api_routes: Handlers below /api/v1.
        root_routes: Handlers with paths of their own.
        names: Of the parameters that are in `Given.values`.
        asked: Of the parameters that come from the request.
    """
    return Litestar(
        route_handlers=[Router(API_ROOT, route_handlers=list(api_routes)), *root_routes],
        dependencies={
            **{name: _provide(name) for name in sorted(names)},
            **{name: Provide(find, sync_to_thread=False) for name, find in asked},
        },
        exception_handlers={Exception: answer_error},
        after_exception=[_note_refusal],
        guards=[_guard],
        logging_config=None,
        openapi_config=openapi_config(),
        request_class=StrictRequest,
        request_max_body_size=MAX_BODY_BYTES,
    )


def _provide(name: str) -> Provide:
    # It takes no parameter, because Litestar parses those anew for every dependency of every request.
    def find() -> Any:
        return bound_given().values[name]

    return Provide(find, sync_to_thread=False)


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    await bound_given().guard(connection, handler)


async def _note_refusal(error: Exception, scope: Any) -> None:
    await bound_given().note_refusal(error, scope)
