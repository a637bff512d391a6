"""What is shown of the use of the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.core.api_usage.models import TOOK_COLUMNS, TOOK_MS

Milliseconds = Annotated[float | None, Meta(description="Estimated from classes of time; null: no request.")]


class UsageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests, how they ended and how long they took."""

    requests: int
    client_errors: Annotated[int, Meta(description="Answered 400 to 499, except 429.")]
    server_errors: Annotated[int, Meta(description="Answered 500 and more.")]
    limited: Annotated[int, Meta(description="Answered 429: refused by a rate limit.")]
    p50_ms: Milliseconds
    p95_ms: Milliseconds


class UsagePeriod(UsageFigures, frozen=True, kw_only=True):
    """One hour or day."""

    starts_at: datetime


class UsedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """An address that requests came from."""

    address: str
    requests: int
    last_seen_at: datetime


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a token was used for, the newest first."""

    items: tuple[UsagePeriod, ...]
    next_cursor: str | None
    addresses: Annotated[tuple[UsedFrom, ...], Meta(description="The latest ten it was used from.")]


class TopUse(UsageFigures, frozen=True, kw_only=True):
    """A token, user or route, with all its requests."""

    subject: Annotated[str, Meta(description="Id of the token or user, or method and route.")]
    name: Annotated[str, Meta(description="Of the token or user; of a route as its subject. Empty: it is gone.")]
    username: Annotated[str, Meta(description="Whose token; empty for a route.")]


class TopUses(msgspec.Struct, frozen=True, kw_only=True):
    """Those that asked most, first."""

    items: tuple[TopUse, ...]
    next_cursor: str | None


def figures_of(counts: Mapping[str, int]) -> dict[str, int | float | None]:
    """The fields of UsageFigures, of the columns of a row or of their sums."""
    took = [counts[name] for name in TOOK_COLUMNS]
    return {
        **{name: counts[name] for name in ("requests", "client_errors", "server_errors", "limited")},
        "p50_ms": estimate(took, 0.5),
        "p95_ms": estimate(took, 0.95),
    }


def estimate(took: list[int], share: float) -> float | None:
    """The time in milliseconds that this share of the requests did not exceed, evenly spread within its class.

    What took longer than the last class counts as its end.
    """
    wanted = share * sum(took)
    if not wanted:
        return None
    below = 0
    for start, end, count in zip((0, *TOOK_MS), (*TOOK_MS, TOOK_MS[-1]), took, strict=True):
        if count and below + count >= wanted:
            return round(start + (end - start) * (wanted - below) / count, 2)
        below += count
    return float(TOOK_MS[-1])
