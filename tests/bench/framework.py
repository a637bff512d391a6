"""What a benchmark is, and what it measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

Better = Literal["higher", "lower"]


class BenchError(RuntimeError):
    """A benchmark cannot go on; the message says why and ends up in the table."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    ours: float | None
    """None: it could not be measured; `note` says why."""
    peer: float | None
    """What the comparison measured in the same run; None where the bar is absolute."""
    unit: str
    ratio: float | None
    """How many times better than the peer; for a bar without a peer, the bar divided by ours or ours by the bar, so that
    1 and more is met. None where nothing was measured."""
    bar: str
    met: bool
    note: str = ""


def judge(name: str, ours: float, unit: str, *, bar: float, better: Better = "lower", note: str = "") -> Measurement:
    """A measurement against an absolute bar."""
    is_met = ours <= bar if better == "lower" else ours >= bar
    best, worst = (bar, ours) if better == "lower" else (ours, bar)
    words = f"{'at most' if better == 'lower' else 'at least'} {bar:g} {unit}"
    ratio = best / worst if worst else None
    return Measurement(name=name, ours=ours, peer=None, unit=unit, ratio=ratio, bar=words, met=is_met, note=note)


def compare(name: str, ours: float, peer: float, unit: str, *, times: float, note: str = "") -> Measurement:
    """A duration against the peer's: ours must be `times` shorter."""
    ratio = peer / ours
    bar = f"at least {times:g} times faster"
    return Measurement(name=name, ours=ours, peer=peer, unit=unit, ratio=ratio, bar=bar, met=ratio >= times, note=note)


def failed(name: str, bar: str, reason: str) -> Measurement:
    """A row that could not be measured."""
    return Measurement(name=name, ours=None, peer=None, unit="", ratio=None, bar=bar, met=False, note=reason)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed (nearest rank)."""
    if not values:
        raise BenchError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Options:
    """How much of it."""

    is_quick: bool
    """Small numbers: whether it works, not how fast it is."""
    work_dir: Path
    """Empty; gone afterwards."""

    def pick(self, whole: int, quick: int) -> int:
        """A number of things to do."""
        return quick if self.is_quick else whole


@dataclass(frozen=True)
class Benchmark:
    """One module's worth of rows."""

    name: str
    bars: tuple[tuple[str, str], ...]
    """Row and bar, in order: what stands in the table when it fails."""
    run: Callable[[Options], list[Measurement]]
    limit_seconds: float
    needs_root: bool = False
