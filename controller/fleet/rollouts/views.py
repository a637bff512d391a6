"""Rollouts as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from controller.fleet.rollouts.models import Rollout, RolloutKind, RolloutNode, RolloutNodeState, RolloutState
from controller.fleet.rollouts.plan import DEFAULT_WAVES, MAX_WAVES
from shared.specs.base import Presence


class RolloutCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change for many nodes, in waves."""

    kind: Annotated[RolloutKind, Meta(description="agent_update or module_settings.")]
    name: Annotated[str, Meta(max_length=100, examples=["November release"])] = ""
    release_id: Annotated[str | None, Meta(description="Of agent_update; left out: the newest release.")] = None
    module: Annotated[str, Meta(max_length=40, description="Of module_settings.", examples=["php"])] | None = None
    presence: Annotated[Presence | None, Meta(description="How much of the module each node shall have.")] = None
    settings: Annotated[
        Annotated[dict[str, str], Meta(max_length=64)] | None,
        Meta(description="Of the module; left out: each node keeps what it has."),
    ] = None
    node_ids: Annotated[list[str], Meta(max_length=1000, description="Only these; empty: every active node.")] = (
        msgspec.field(default_factory=list)
    )
    roles: Annotated[list[str], Meta(max_length=16, description="Only nodes with all of these roles.")] = msgspec.field(
        default_factory=list
    )
    labels: Annotated[dict[str, str], Meta(max_length=16, description="Only nodes with all of these labels.")] = (
        msgspec.field(default_factory=dict)
    )
    waves: Annotated[
        list[str],
        Meta(max_length=MAX_WAVES, description="Numbers of nodes or shares of them, each counted from the first node."),
    ] = msgspec.field(default_factory=lambda: list(DEFAULT_WAVES))
    soak_seconds: Annotated[
        int, Meta(ge=0, le=604_800, description="How long all has to be well before the next wave begins.")
    ] = 300
    max_failures: Annotated[int, Meta(ge=0, le=20_000, description="With one more it halts.")] = 0
    node_timeout_seconds: Annotated[
        int, Meta(ge=60, le=86_400, description="A node that has not answered by then has failed.")
    ] = 1200
    deadline_hours: Annotated[
        int, Meta(ge=1, le=2160, description="Until then nodes that were away are picked up when they come back.")
    ] = 168


class RolloutResume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to go on."""

    is_retrying: Annotated[bool, Meta(description="Try the nodes that failed again.")] = False


class WaveView(msgspec.Struct, frozen=True, kw_only=True):
    """One wave."""

    size: Annotated[str, Meta(examples=["5%"])]
    nodes: int
    waiting: int
    sent: int
    succeeded: int
    failed: int
    skipped: int


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """One change on its way over the fleet."""

    id: str
    kind: RolloutKind
    name: str
    state: RolloutState
    release_id: str | None
    change: dict[str, Any]
    wave: Annotated[int, Meta(description="The wave that is under way, counted from 1.")]
    waves: tuple[WaveView, ...]
    blocked_by: Annotated[str, Meta(description="What it waits for, or why it stopped.")]
    soak_seconds: int
    max_failures: int
    node_timeout_seconds: int
    deadline_at: datetime
    actor: Annotated[str, Meta(description="user/ID or token/ID.")]
    created_at: datetime
    finished_at: datetime | None


class RolloutPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rollouts, newest first."""

    items: tuple[RolloutView, ...]
    next_cursor: str | None


class RolloutNodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a rollout."""

    id: str
    node_id: str
    node_name: str
    wave: Annotated[int, Meta(description="Counted from 1.")]
    state: RolloutNodeState
    note: Annotated[str, Meta(description="Why it waits, was skipped, or failed.")]
    error_code: str | None
    job_id: str | None
    before: Annotated[str, Meta(description="What the node had.")]
    sent_at: datetime | None
    finished_at: datetime | None


class RolloutNodePage(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of a rollout."""

    items: tuple[RolloutNodeView, ...]
    next_cursor: str | None


def render_rollout(row: Rollout, counts: dict[tuple[int, RolloutNodeState], int]) -> RolloutView:
    """The view of a rollout; `counts` is wave and state to the number of nodes."""
    waves = tuple(_render_wave(size, index, counts) for index, size in enumerate(row.waves))
    kept = set(RolloutView.__struct_fields__) - {"waves", "wave"}
    return RolloutView(wave=row.wave + 1, waves=waves, **{name: getattr(row, name) for name in kept})


def _render_wave(size: str, index: int, counts: dict[tuple[int, RolloutNodeState], int]) -> WaveView:
    by_state = {state.value: counts.get((index, state), 0) for state in RolloutNodeState}
    return WaveView(size=size, nodes=sum(by_state.values()), **by_state)


def render_rollout_node(row: RolloutNode, node_name: str) -> RolloutNodeView:
    """The view of one node of a rollout."""
    kept = set(RolloutNodeView.__struct_fields__) - {"node_name", "wave"}
    return RolloutNodeView(node_name=node_name, wave=row.wave + 1, **{name: getattr(row, name) for name in kept})
