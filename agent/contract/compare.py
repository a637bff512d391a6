"""Does the host already hold what an action would bring about? Pure; every planner asks the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.contract.actions import EnsureDirectory, EnsureUnit, WriteFile, content_hash
from agent.contract.facts import PathFact, Probe, UnitFact

PathFacts = Mapping[str, PathFact | None]


async def read_paths(probe: Probe, paths: Iterable[str]) -> dict[str, PathFact | None]:
    """What lies at each of these paths."""
    return {path: await probe.path(path) for path in paths}


async def read_units(probe: Probe, names: Iterable[str]) -> dict[str, UnitFact]:
    """The state of each of these units."""
    return {name: await probe.unit(name) for name in names}


def holds_directory(fact: PathFact | None, wanted: EnsureDirectory) -> bool:
    """True when the directory is there with this owner, group and mode."""
    return (
        fact is not None
        and fact.kind == "directory"
        and (fact.owner, fact.group, fact.mode) == (wanted.owner, wanted.group, wanted.mode)
    )


def holds_file(fact: PathFact | None, wanted: WriteFile) -> bool:
    """True when the file is there with this content, owner, group and mode."""
    return (
        fact is not None
        and fact.kind == "file"
        and (fact.owner, fact.group, fact.mode) == (wanted.owner, wanted.group, wanted.mode)
        and fact.content_hash == content_hash(wanted.content)
    )


def holds_unit(fact: UnitFact, wanted: EnsureUnit) -> bool:
    """True when the unit is as far up and as enabled as wanted; what is None is left alone."""
    return wanted.is_running in (None, fact.is_running) and wanted.is_enabled in (None, fact.is_enabled)


def missing_directories(facts: PathFacts, wanted: Iterable[EnsureDirectory]) -> tuple[EnsureDirectory, ...]:
    """Those that the host does not hold, in the given order."""
    return tuple(action for action in wanted if not holds_directory(facts[action.path], action))


def stale_files(facts: PathFacts, wanted: Iterable[WriteFile]) -> tuple[WriteFile, ...]:
    """Those that the host does not hold, in the given order."""
    return tuple(action for action in wanted if not holds_file(facts[action.path], action))


def unmet_units(facts: Mapping[str, UnitFact], wanted: Iterable[EnsureUnit]) -> tuple[EnsureUnit, ...]:
    """Those that are in another state, in the given order."""
    return tuple(action for action in wanted if not holds_unit(facts[action.unit], action))
