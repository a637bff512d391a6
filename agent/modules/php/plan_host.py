"""PHP on the node: from the module's spec and facts to actions."""

from __future__ import annotations

from collections.abc import Iterable

from agent.contract.actions import (
    Action,
    EnsureDirectory,
    EnsureUnit,
    InstallPackages,
    ReloadSystemd,
    RemoveFile,
    RemovePackages,
    RemoveTree,
    WriteFile,
)
from agent.contract.compare import holds_unit, missing_directories, stale_files, unmet_units
from agent.contract.module import Plan
from agent.modules.php import layout, render
from agent.modules.php.facts import STATIC_FILES, PhpHostFacts
from agent.modules.php.versions import choose_versions, parse_versions
from shared.errors import PlanError
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec


def plan_host(spec: ModuleSpec, presence: Presence, facts: PhpHostFacts) -> Plan:
    named = parse_versions(spec)
    if presence is Presence.ABSENT:
        return _plan_removal(facts)
    versions = choose_versions(named, facts.present, facts.available, frozenset(facts.installed))
    leaving = tuple(version for version in facts.present if version not in versions)
    _require_unused(leaving, facts)
    is_up = presence is Presence.ENABLED
    actions: list[Action] = [
        *_plan_packages(versions, facts),
        *missing_directories(facts.paths, _wanted_folders(versions, facts)),
        *_plan_files(versions, leaving, facts),
        *_plan_units(facts, is_up=is_up),
        *_plan_package_removal(leaving, facts),
        *(RemoveTree(path=layout.version_dir(version), reason="no pool is left in it") for version in leaving),
    ]
    word = "serves" if is_up else "is switched off"
    reason = "" if actions else f"PHP {', '.join(versions)} {word} as wanted"
    return Plan(actions=tuple(actions), noop_reason=reason, risks=_risks(leaving))


def _risks(leaving: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"All packages of PHP {version} are purged, also for programs outside WCP360." for version in leaving)


def _require_unused(versions: Iterable[str], facts: PhpHostFacts) -> None:
    for version in versions:
        if facts.pools.get(version, 0):
            raise PlanError(
                f"{facts.pools[version]} accounts of this node still use PHP {version}",
                hint="Give their sites another PHP version first.",
            )


def _plan_packages(versions: tuple[str, ...], facts: PhpHostFacts) -> list[Action]:
    """Packages, and Debian's own master for all pools off: it starts with the host as soon as it is installed."""
    wanted = (name for version in versions for name in _wanted_packages(version, facts))
    missing = tuple(name for name in wanted if name not in facts.installed)
    actions: list[Action] = []
    if missing:
        actions.append(InstallPackages(names=missing, reason=f"PHP {', '.join(versions)} with its usual extensions"))
    for version in versions:
        off = EnsureUnit(
            unit=layout.debian_unit(version),
            is_running=False,
            is_enabled=False,
            reason="each account has a master of its own instead",
        )
        if f"php{version}-fpm" in missing or not holds_unit(facts.units[off.unit], off):
            actions.append(off)
    return actions


def _wanted_packages(version: str, facts: PhpHostFacts) -> tuple[str, ...]:
    extensions = (name for name in layout.extension_packages(version) if name in facts.offered)
    return (*layout.program_packages(version), *extensions)


def _wanted_folders(versions: tuple[str, ...], facts: PhpHostFacts) -> tuple[EnsureDirectory, ...]:
    ours = (layout.CONFIG_DIR, *map(layout.version_dir, versions))
    # The agent's own folder: made where it is missing, else left as it is.
    paths = ours if facts.paths[layout.CONFIG_ROOT] is not None else (layout.CONFIG_ROOT, *ours)
    return tuple(EnsureDirectory(path=path, reason="a folder of the php module") for path in paths)


def _plan_files(versions: tuple[str, ...], leaving: tuple[str, ...], facts: PhpHostFacts) -> list[Action]:
    stale = stale_files(facts.paths, _wanted_files(versions))
    gone = [path for version in leaving for path in _templates(version) if facts.paths[path] is not None]
    actions: list[Action] = [*stale, *(RemoveFile(path=path, reason="its PHP version goes") for path in gone)]
    if any(action.target.startswith(layout.UNIT_DIR) for action in actions):
        actions.append(ReloadSystemd(reason="units have changed"))
    return actions


def _wanted_files(versions: tuple[str, ...]) -> tuple[WriteFile, ...]:
    static = (
        WriteFile(path=path, content=render.render_static(_template_name(path)), reason="the php module's own")
        for path in STATIC_FILES
    )
    units = (
        WriteFile(path=path, content=render.render_unit(template, version), reason=f"masters of PHP {version}")
        for version in versions
        for path, template in zip(_templates(version), ("pool.socket.j2", "pool.service.j2"), strict=True)
    )
    return (*static, *units)


def _template_name(path: str) -> str:
    return f"{path.rpartition('/')[2]}.j2"


def _templates(version: str) -> tuple[str, str]:
    return layout.socket_template(version), layout.service_template(version)


def _plan_units(facts: PhpHostFacts, *, is_up: bool) -> tuple[EnsureUnit, ...]:
    reason = "PHP serves" if is_up else "the php module is switched off"
    wanted = (
        EnsureUnit(unit=unit, is_running=is_up, is_enabled=is_up, reason=reason)
        for unit in (layout.TARGET, layout.SLEEP_TIMER)
    )
    return unmet_units(facts.units, wanted)


def _plan_package_removal(versions: tuple[str, ...], facts: PhpHostFacts) -> list[Action]:
    candidates = (name for version in versions for name in layout.removable_packages(version))
    names = tuple(name for name in candidates if name in facts.installed)
    return [RemovePackages(names=names, reason="no account uses this PHP version")] if names else []


def _plan_removal(facts: PhpHostFacts) -> Plan:
    _require_unused(facts.present, facts)
    actions: list[Action] = [*_plan_units(facts, is_up=False)]
    templates = [path for version in facts.present for path in _templates(version)]
    files = [path for path in (*STATIC_FILES, *templates) if facts.paths[path] is not None]
    actions += [RemoveFile(path=path, reason="the php module goes") for path in files]
    if any(path.startswith(layout.UNIT_DIR) for path in files):
        actions.append(ReloadSystemd(reason="units have changed"))
    actions += _plan_package_removal(facts.present, facts)
    trees = (layout.CONFIG_DIR, layout.SOCKETS_ROOT)
    actions += [RemoveTree(path=path, reason="ours") for path in trees if facts.paths[path] is not None]
    reason = "" if actions else "nothing of the php module is here"
    return Plan(actions=tuple(actions), noop_reason=reason, risks=_risks(facts.present))
