"""One pool: from its spec and facts to actions."""

from __future__ import annotations

from agent.contract.actions import (
    Action,
    EnsureDirectory,
    EnsureUnit,
    PublishConfig,
    ReloadSystemd,
    ReloadUnit,
    RemoveFile,
    RemoveTree,
    WriteFile,
)
from agent.contract.compare import holds_directory, holds_file, holds_unit
from agent.contract.module import Plan
from agent.modules.php import layout, render
from agent.modules.php.facts import PoolFacts
from shared.errors import ModuleUnavailableError
from shared.specs.base import Presence
from shared.specs.php_pool import PhpPoolSpec


def plan_pool(spec: PhpPoolSpec, presence: Presence, facts: PoolFacts) -> Plan:
    if presence is Presence.ABSENT:
        return _plan_removal(spec, facts)
    _require_version(spec, presence, facts)
    config = WriteFile(
        path=layout.pool_file(spec.version, spec.uid),
        content=render.render_pool(spec),
        group=spec.account,
        mode=0o640,
        reason=f"PHP {spec.version} of {spec.account}",
    )
    fence = _plan_fence(spec, facts)
    actions: list[Action] = [*_plan_settings(spec, facts), *fence]
    if not holds_file(facts.config, config):
        actions.append(PublishConfig(tree=layout.tree_name(spec.version), files=(config,), reason=config.reason))
    is_up = presence is Presence.ENABLED
    if is_up and fence and facts.service.is_running:
        actions.append(_stop_for("what it may run has changed", spec))
    is_asleep = bool(fence) or not facts.service.is_running
    actions += (
        _plan_start(spec, facts, is_changed=bool(actions), is_asleep=is_asleep) if is_up else _plan_stop(spec, facts)
    )
    word = "listens" if is_up else "is switched off"
    reason = "" if actions else f"PHP {spec.version} of {spec.account} {word} as wanted"
    return Plan(actions=tuple(actions), noop_reason=reason)


def _plan_settings(spec: PhpPoolSpec, facts: PoolFacts) -> list[Action]:
    """What sites have chosen, in a file that only this account's PHP reads; none where none has chosen anything."""
    path = layout.settings_file(spec.version, spec.uid)
    if not spec.chosen:
        gone = RemoveFile(path=path, reason="no site has PHP settings of its own")
        return [gone] if facts.settings is not None else []
    folder = EnsureDirectory(
        path=layout.settings_dir(spec.version, spec.uid),
        group=spec.account,
        mode=0o750,
        reason="PHP settings of the account's sites",
    )
    wanted = WriteFile(
        path=path,
        content=render.render_settings(spec),
        group=spec.account,
        mode=0o640,
        reason=f"{len(spec.chosen)} sites have PHP settings of their own",
    )
    actions: list[Action] = [] if holds_directory(facts.settings_dir, folder) else [folder]
    return actions if holds_file(facts.settings, wanted) else [*actions, wanted]


def _require_version(spec: PhpPoolSpec, presence: Presence, facts: PoolFacts) -> None:
    if not facts.is_version_present:
        raise ModuleUnavailableError(
            f"PHP {spec.version} is not installed on this node",
            hint=f"Install the module php with version {spec.version} on this node, or choose another version.",
        )
    if presence is Presence.ENABLED and not facts.is_module_enabled:
        raise ModuleUnavailableError(
            "the php module is not enabled on this node", hint="Enable the module php on this node."
        )


def _plan_fence(spec: PhpPoolSpec, facts: PoolFacts) -> list[Action]:
    """What keeps PHP from running programs; a reload does not change it, so the master is stopped for it."""
    path = layout.fence_file(spec.version, spec.uid)
    if spec.is_strict is not True:
        gone = RemoveFile(path=path, reason="PHP may start programs")
        return [gone, ReloadSystemd(reason="units have changed")] if facts.fence is not None else []
    folder = EnsureDirectory(path=layout.fence_dir(spec.version, spec.uid), reason="PHP may start no program")
    wanted = WriteFile(
        path=path, content=render.render_unit("strict.conf.j2", spec.version), reason="PHP may start no program"
    )
    if holds_directory(facts.fence_dir, folder) and holds_file(facts.fence, wanted):
        return []
    return [folder, wanted, ReloadSystemd(reason="units have changed")]


def _stop_for(reason: str, spec: PhpPoolSpec) -> Action:
    return EnsureUnit(unit=layout.pool_service_unit(spec.version, spec.uid), is_running=False, reason=reason)


def _plan_start(spec: PhpPoolSpec, facts: PoolFacts, *, is_changed: bool, is_asleep: bool) -> list[Action]:
    """The socket up, and after every change the master once: a configuration that cannot start shows it now."""
    socket_unit = layout.pool_socket_unit(spec.version, spec.uid)
    service_unit = layout.pool_service_unit(spec.version, spec.uid)
    listening = EnsureUnit(unit=socket_unit, is_running=True, is_enabled=True, reason="PHP wakes on this socket")
    proof = EnsureUnit(unit=service_unit, is_running=True, reason="to see that it starts; it sleeps again when idle")
    if holds_unit(facts.socket, listening):
        if not is_changed:
            return []
        reload = ReloadUnit(unit=service_unit, reason="its configuration has changed")
        return [proof if is_asleep else reload]
    actions: list[Action] = []
    if not is_asleep and not facts.socket.is_running:
        # systemd does not open a socket whose service runs.
        actions.append(_stop_for("its socket must be opened again", spec))
    return [*actions, listening, proof]


def _plan_stop(spec: PhpPoolSpec, facts: PoolFacts) -> list[Action]:
    """The socket first, or the next request would wake the master again."""
    reason = "the account's PHP is switched off"
    wanted = (
        (
            facts.socket,
            EnsureUnit(
                unit=layout.pool_socket_unit(spec.version, spec.uid), is_running=False, is_enabled=False, reason=reason
            ),
        ),
        (
            facts.service,
            EnsureUnit(unit=layout.pool_service_unit(spec.version, spec.uid), is_running=False, reason=reason),
        ),
    )
    return [action for fact, action in wanted if not holds_unit(fact, action)]


def _plan_removal(spec: PhpPoolSpec, facts: PoolFacts) -> Plan:
    actions = _plan_stop(spec, facts)
    path = layout.pool_file(spec.version, spec.uid)
    if facts.config is not None and facts.is_version_present:
        tree = layout.tree_name(spec.version)
        actions.append(PublishConfig(tree=tree, removals=(path,), reason="the account's PHP goes"))
    elif facts.config is not None:
        actions.append(RemoveFile(path=path, reason="the account's PHP goes"))
    if facts.fence is not None:
        fence = layout.fence_file(spec.version, spec.uid)
        actions += [
            RemoveFile(path=fence, reason="the account's PHP goes"),
            ReloadSystemd(reason="units have changed"),
        ]
    if facts.fence_dir is not None:
        actions.append(RemoveTree(path=layout.fence_dir(spec.version, spec.uid), reason="the account's PHP goes"))
    if facts.settings_dir is not None:
        actions.append(RemoveTree(path=layout.settings_dir(spec.version, spec.uid), reason="the account's PHP goes"))
    reason = "" if actions else f"PHP {spec.version} of {spec.account} is not here"
    return Plan(actions=tuple(actions), noop_reason=reason)
