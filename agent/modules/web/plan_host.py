"""nginx itself: from the module's spec and facts to actions."""

from __future__ import annotations

from agent.contract.actions import (
    Action,
    EnsureDirectory,
    EnsureUnit,
    InstallPackages,
    PublishConfig,
    ReloadSystemd,
    ReloadUnit,
    RemoveFile,
    RemovePackages,
    RemoveTree,
    WriteFile,
)
from agent.contract.compare import holds_unit, missing_directories, stale_files
from agent.contract.module import Plan
from agent.modules.web import layout, render
from agent.modules.web.facts import HOST_FOLDERS, OWN_PACKAGES, PACKAGE, PAGES, ROTATION_PACKAGE, WebHostFacts
from shared.errors import PlanError
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec


def plan_host(spec: ModuleSpec, presence: Presence, facts: WebHostFacts) -> Plan:
    if spec.settings:
        raise PlanError(f"the web module has no settings; {', '.join(sorted(spec.settings))} is unknown")
    if presence is Presence.ABSENT:
        return _plan_removal(facts)
    is_up = presence is Presence.ENABLED
    actions: list[Action] = [*_plan_packages(facts), *_plan_files(facts)]
    unit = EnsureUnit(
        unit=layout.UNIT,
        is_running=is_up,
        is_enabled=is_up,
        reason="the web server serves" if is_up else "the web module is switched off",
    )
    # A package that comes now enables its unit, whatever the facts of before say.
    if not holds_unit(facts.unit, unit) or PACKAGE not in facts.installed:
        actions.append(unit)
    word = "serves" if is_up else "is switched off"
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"nginx {word} as wanted", risks=_risks(facts))


def _risks(facts: WebHostFacts) -> tuple[str, ...]:
    foreign = tuple(name for name in facts.foreign_sites if name != "default")
    if not foreign or facts.paths[layout.OUR_DIR] is not None:
        return ()
    risk = (
        f"nginx was here before: {len(foreign)} sites in /etc/nginx/sites-enabled are no longer served "
        f"({', '.join(foreign[:5])}); their files stay."
    )
    return (risk,)


def _plan_packages(facts: WebHostFacts) -> list[Action]:
    wanted = (PACKAGE, ROTATION_PACKAGE) if facts.is_rotation_offered else (PACKAGE,)
    missing = tuple(name for name in wanted if name not in facts.installed)
    return [InstallPackages(names=missing, reason="the web server and the rotation of its logs")] if missing else []


def _plan_files(facts: WebHostFacts) -> list[Action]:
    actions: list[Action] = [*missing_directories(facts.paths, _wanted_folders(facts))]
    included = stale_files(facts.paths, _included_files(facts))
    main = stale_files(facts.paths, (_main_file(facts),))
    drop_in = stale_files(facts.paths, (_static(layout.UNIT_DROP_IN, "unit_drop_in.conf.j2", "limits of the unit"),))
    actions += [*included, *stale_files(facts.paths, _quiet_files())]
    # Last of the files: it names the others, and nginx judges all of them with it.
    if main:
        actions.append(PublishConfig(tree=layout.MAIN_TREE.name, files=main, reason="the main configuration"))
    elif included:
        actions.append(ReloadUnit(unit=layout.UNIT, reason="files that every site includes have changed"))
    if drop_in:
        actions += [*drop_in, ReloadSystemd(reason="the unit has changed")]
    return actions


def _wanted_folders(facts: WebHostFacts) -> tuple[EnsureDirectory, ...]:
    """Ours with owner and mode; those of others only where they are missing."""
    ours = (layout.OUR_DIR, layout.SITES_DIR, layout.PAGES_DIR, layout.UNIT_DROP_IN_DIR, layout.SITE_LOGS_DIR)
    return tuple(
        EnsureDirectory(path=path, reason="a folder of the web module")
        for path in HOST_FOLDERS
        if path in ours or facts.paths[path] is None
    )


def _included_files(facts: WebHostFacts) -> tuple[WriteFile, ...]:
    listen = render.render_listen(has_ipv6=facts.has_ipv6)
    return (
        WriteFile(path=layout.LISTEN_FILE, content=listen, reason="the addresses of every site"),
        _static(layout.FASTCGI_FILE, "fastcgi.conf.j2", "what PHP is told"),
    )


def _quiet_files() -> tuple[WriteFile, ...]:
    """Files that nginx or logrotate read when they need them."""
    pages = (_static(f"{layout.PAGES_DIR}/{page}", f"{page}.j2", "a page for visitors") for page in PAGES)
    return (*pages, _static(layout.LOG_ROTATION_FILE, "logrotate.j2", "logs are rotated"))


def _main_file(facts: WebHostFacts) -> WriteFile:
    content = render.render_main(has_ipv6=facts.has_ipv6)
    return WriteFile(path=layout.MAIN_FILE, content=content, reason="the main configuration")


def _static(path: str, template: str, reason: str) -> WriteFile:
    return WriteFile(path=path, content=render.render_static(template), reason=reason)


def _plan_removal(facts: WebHostFacts) -> Plan:
    if facts.sites:
        raise PlanError(
            f"{len(facts.sites)} sites are served by this node, the first is {facts.sites[0].removesuffix('.conf')}",
            hint="Move or delete the sites first, or disable the module.",
        )
    actions: list[Action] = []
    off = EnsureUnit(unit=layout.UNIT, is_running=False, is_enabled=False, reason="the web module goes")
    if not holds_unit(facts.unit, off):
        actions.append(off)
    if facts.paths[layout.UNIT_DROP_IN] is not None:
        actions += [RemoveFile(path=layout.UNIT_DROP_IN, reason="ours"), ReloadSystemd(reason="the unit has changed")]
    loose = (layout.LOG_ROTATION_FILE, layout.MAIN_FILE)
    actions += [RemoveFile(path=path, reason="ours") for path in loose if facts.paths[path] is not None]
    packages = tuple(name for name in OWN_PACKAGES if name in facts.installed)
    if packages:
        actions.append(RemovePackages(names=packages, reason="the web module goes"))
    trees = (layout.UNIT_DROP_IN_DIR, layout.OUR_DIR)
    actions += [RemoveTree(path=path, reason="ours") for path in trees if facts.paths[path] is not None]
    risks = ("nginx is purged with all configuration that it has on this node.",) if packages else ()
    return Plan(actions=tuple(actions), noop_reason="" if actions else "nothing of the web module is here", risks=risks)
