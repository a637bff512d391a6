"""How a rollout goes on, decided from what is known of its nodes: pure, so every case is a test without a fleet.

What goes over accounts in waves (controller.core.packages.rollouts) is decided here as well: `noun` says what is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from controller.fleet.rollouts.models import RolloutNodeState
from shared.errors import InvalidInputError

DEFAULT_WAVES: Final = ("1", "5%", "20%", "100%")
"""One node first; then a twentieth, a fifth and the rest of the fleet."""
MAX_WAVES: Final = 20
_WAVE: Final = re.compile(r"^([1-9][0-9]{0,5})(%?)$", re.ASCII)


def parse_waves(waves: Sequence[str], *, field: str = "waves") -> tuple[str, ...]:
    """The waves as they are kept; the last one always reaches every node.

    Args:
        waves: As somebody gave them.
        field: Name of the field that they came in.

    Raises:
        InvalidInputError: One is neither a number of nodes nor a share, or they do not grow.
    """
    last_share = 0
    for wave in waves:
        found = _WAVE.match(wave)
        share = int(found[1]) if found is not None and found[2] else None
        if found is None or (share is not None and share > 100):
            raise InvalidInputError(f"{wave[:20]!r} is neither a number nor a share such as 5%", field=field)
        if share is not None and share <= last_share:
            raise InvalidInputError(f"{wave} comes after {last_share}%: waves grow", field=field)
        last_share = share or last_share
    complete = tuple(waves) if last_share == 100 else (*waves, "100%")
    if len(complete) > MAX_WAVES:
        raise InvalidInputError(f"at most {MAX_WAVES} waves", field=field)
    return complete


def assign_waves(waves: Sequence[str], count: int) -> list[int]:
    """Wave of each of so many nodes, in their order; a wave counts the nodes from the first one on."""
    ends, reached = [], 0
    for wave in waves:
        share = math.ceil(count * int(wave[:-1]) / 100) if wave.endswith("%") else int(wave)
        reached = max(reached, min(share, count))
        ends.append(reached)
    return [next(index for index, end in enumerate(ends) if place < end) for place in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the decision needs to know of one node (or account)."""

    name: str
    wave: int
    state: RolloutNodeState
    is_connected: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the rollout itself stands."""

    wave: int
    healthy_since: datetime | None
    soak: timedelta
    failures_allowed: int
    """`max_failures` and those that somebody went on with."""
    noun: str = "node"
    """What one of those is called that the change reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows."""

    wave: int
    healthy_since: datetime | None
    blocked_by: str = ""
    is_finished: bool = False
    halt_reason: str = ""


def judge_progress(nodes: Sequence[Standing], progress: Progress, *, now: datetime) -> Verdict:
    """Halt, wait, begin the next wave, or end."""
    failed = [node for node in nodes if node.state is RolloutNodeState.FAILED]
    if len(failed) > progress.failures_allowed:
        worst = failed[-1]
        counts = f"{_count(failed, progress.noun)} failed, {progress.failures_allowed} allowed"
        reason = f"{counts}; the last: {worst.name}: {worst.note}"
        return Verdict(wave=progress.wave, healthy_since=None, halt_reason=reason, blocked_by=reason)
    if all(node.state not in (RolloutNodeState.WAITING, RolloutNodeState.SENT) for node in nodes):
        return Verdict(wave=progress.wave, healthy_since=progress.healthy_since, is_finished=True)
    reason = _what_blocks(nodes, progress)
    if reason:
        return Verdict(wave=progress.wave, healthy_since=None, blocked_by=reason)
    following = sorted({node.wave for node in nodes if node.wave > progress.wave})
    if not following:
        waiting = [node for node in nodes if node.state is RolloutNodeState.WAITING]
        said = f"{_count(waiting, progress.noun)} to come back: {_name_some(waiting)}"
        return Verdict(wave=progress.wave, healthy_since=progress.healthy_since, blocked_by=said)
    since = progress.healthy_since or now
    if now - since < progress.soak:
        left = math.ceil((progress.soak - (now - since)).total_seconds())
        return Verdict(
            wave=progress.wave, healthy_since=since, blocked_by=f"all is well; the next wave begins in {left} s"
        )
    return Verdict(wave=following[0], healthy_since=None)


def _what_blocks(nodes: Sequence[Standing], progress: Progress) -> str:
    """Why the wave is not done and healthy; empty when it is."""
    wave, noun = progress.wave, progress.noun
    begun = [node for node in nodes if node.wave <= wave]
    sent = [node for node in begun if node.state is RolloutNodeState.SENT]
    if sent:
        return f"{_count(sent, noun)} at work: {_name_some(sent)}"
    ready = [node for node in begun if node.state is RolloutNodeState.WAITING and not node.note]
    if ready:
        return f"{_count(ready, noun)} about to be asked: {_name_some(ready)}"
    lost = [node for node in begun if node.state is RolloutNodeState.SUCCEEDED and not node.is_connected]
    if lost:
        return f"{_count(lost, noun)} not connected since the change: {_name_some(lost)}"
    present = [node for node in nodes if node.wave == wave]
    waiting = [node for node in present if node.state is RolloutNodeState.WAITING]
    has_proof = any(node.state is RolloutNodeState.SUCCEEDED for node in present)
    if waiting and not has_proof:
        # A wave that nobody was there for proves nothing about the next one.
        return f"no {noun} of wave {wave + 1} can take it now: {_name_some(waiting)}"
    return ""


def _count(nodes: Sequence[Standing], noun: str) -> str:
    return f"1 {noun}" if len(nodes) == 1 else f"{len(nodes)} {noun}s"


def _name_some(nodes: Sequence[Standing]) -> str:
    named = [f"{node.name} ({node.note})" if node.note else node.name for node in nodes[:3]]
    return ", ".join(named) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
