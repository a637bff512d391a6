"""A module's own presence on a node: its packages, its main configuration, its services."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from shared.specs.base import Presence, Spec, Stage
from shared.types.names import ResourceKey, parse_module_name


class ModuleSpec(Spec, frozen=True, kw_only=True, tag="module"):
    """Whether a node has a module, and with which settings (defined by the module, all strings)."""

    STAGE: ClassVar[Stage] = Stage.MODULE

    name: str
    presence: Presence = Presence.ENABLED
    settings: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_module_name(self.name)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(f"module/{self.name}")
