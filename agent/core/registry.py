"""Which module knows what. Built once by the composition root; core asks it and never imports a module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.contract.actions import ConfigTree
from agent.contract.module import Converger, Module
from shared.errors import BugError, ModuleUnavailableError
from shared.specs.manifest import AnySpec
from shared.specs.module import ModuleSpec


class Registry:
    """Modules by name, convergers by kind of spec, configuration trees by name."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules: dict[str, Module] = {}
        self._convergers: dict[type, Converger[Any, Any]] = {}
        self._trees: dict[str, ConfigTree] = {}
        for module in modules:
            self._add(module)

    def _add(self, module: Module) -> None:
        if module.name in self._modules:
            raise BugError(f"two modules are called {module.name}")
        self._modules[module.name] = module
        for converger in module.convergers:
            if converger.spec_type in self._convergers:
                raise BugError(f"two modules claim {converger.spec_type.__name__}")
            self._convergers[converger.spec_type] = converger
        for tree in module.config_trees:
            if tree.name in self._trees:
                raise BugError(f"two modules claim the configuration tree {tree.name}")
            self._trees[tree.name] = tree

    @property
    def versions(self) -> dict[str, str]:
        """Module name to version."""
        return {module.name: module.version for module in self._modules.values()}

    @property
    def config_trees(self) -> dict[str, ConfigTree]:
        """Name to configuration tree, of all modules."""
        return dict(self._trees)

    def find_module(self, name: str) -> Module | None:
        """The module of this name."""
        return self._modules.get(name)

    def require_converger(self, spec: AnySpec) -> Converger[Any, Any]:
        """The one that knows this kind of spec.

        Raises:
            ModuleUnavailableError: This agent has no module for it.
        """
        if isinstance(spec, ModuleSpec):
            module = self._modules.get(spec.name)
            if module is None:
                raise ModuleUnavailableError(f"this agent has no module {spec.name}", hint="Update the agent.")
            return module.host
        converger = self._convergers.get(type(spec))
        if converger is None:
            raise ModuleUnavailableError(f"no module of this agent knows {spec.key}", hint="Update the agent.")
        return converger
