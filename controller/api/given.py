"""The objects of the controller that a request came to: bound by the edge, found by whatever the compiled routes call.

Bound to the task instead of to the routes, so that all applications of a process share the compiled routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from controller.api.guards import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one controller gives to the handlers of its requests."""

    values: Mapping[str, Any]
    """By the name of the handler's parameter."""
    guard: Guard
    note_refusal: Callable[[Exception, Any], Awaitable[None]]


_bound: ContextVar[Given] = ContextVar("wcp_given")


def bind_given(given: Given) -> None:
    """From here on requests of this task are answered with these."""
    _bound.set(given)


def bound_given() -> Given:
    """What was bound last in this task.

    Raises:
        LookupError: Nothing: the request did not come through the edge.
    """
    return _bound.get()
