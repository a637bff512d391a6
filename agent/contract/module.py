"""What a module hands to core.

A module has one `Converger` for its own presence on the node (kind `module`) and one for each kind of resource that it
knows. All five lifecycle verbs (install, enable, disable, remove, status) are the same observe and plan: the first four
differ in the wanted presence only, and status is "the plan is empty".
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from agent.contract.actions import Action, ConfigTree
from agent.contract.facts import Probe
from shared.protocol.health import ModuleHealth
from shared.protocol.job import Proof
from shared.specs.base import Presence, Spec
from shared.specs.module import ModuleSpec

SpecT = TypeVar("SpecT", bound=Spec)
FactsT = TypeVar("FactsT")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be done, in order, for one resource."""

    actions: tuple[Action, ...] = ()
    noop_reason: str = ""
    """Said when there is nothing to do; a plan has actions or a reason, never neither."""
    risks: tuple[str, ...] = ()
    """What a person should know before it happens."""

    def __post_init__(self) -> None:
        if not self.actions and not self.noop_reason:
            raise ValueError("a plan without actions says why")
        reversible_after = [action for action in self.actions if not action.IS_IRREVERSIBLE]
        first_irreversible = next((i for i, action in enumerate(self.actions) if action.IS_IRREVERSIBLE), None)
        if first_irreversible is not None and first_irreversible < len(reversible_after):
            raise ValueError("what cannot be undone comes last in a plan")


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the promise to the user holds now."""

    is_good: bool
    note: str
    """What was looked at and seen."""
    proofs: tuple[Proof, ...] = ()


class Converger(Protocol[SpecT, FactsT]):
    """Knows one kind of spec."""

    spec_type: type[SpecT]

    async def observe(self, spec: SpecT, probe: Probe) -> FactsT:
        """Read what planning needs. Changes nothing.

        Raises:
            FactError: Something could not be read.
        """
        ...

    def plan(self, spec: SpecT, presence: Presence, facts: FactsT) -> Plan:
        """Compare and decide. Pure, total and deterministic: no clock, randomness, I/O or logging.

        Applying the plan and observing again gives an empty plan.

        Raises:
            PlanError: It cannot be done on this host, whatever is done first.
        """
        ...

    async def verify(self, spec: SpecT, presence: Presence, probe: Probe) -> Verification:
        """Judge what the user was promised, not only that units run. Changes nothing, and may be called at any time."""
        ...


class HealthReader(Protocol):
    """Knows how one module's service is doing."""

    async def check_health(self, spec: ModuleSpec, probe: Probe) -> ModuleHealth:
        """Look. Changes nothing, and may be called at any time while the module is enabled.

        Raises:
            FactError: Something could not be read.
        """
        ...


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A module as core sees it."""

    name: str
    version: str
    host: Converger[Any, Any]
    """For ModuleSpec: the module's own packages, main configuration and services."""
    convergers: tuple[Converger[Any, Any], ...] = ()
    config_trees: tuple[ConfigTree, ...] = ()
    health: HealthReader | None = None
    """None: its health is whether `host.verify` is content."""
