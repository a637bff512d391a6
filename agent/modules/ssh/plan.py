"""From specs and facts to actions."""

from __future__ import annotations

from agent.contract.actions import (
    Action,
    EnsureDirectory,
    EnsureUnit,
    InstallPackages,
    PublishConfig,
    RemoveFile,
    RemoveTree,
    WriteFile,
)
from agent.contract.compare import holds_directory, holds_file, holds_unit
from agent.contract.module import Plan
from agent.modules.ssh import layout, render
from agent.modules.ssh.facts import AccessFacts, SshHostFacts
from shared.errors import ModuleUnavailableError, PlanError
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from shared.specs.ssh_access import SshAccessSpec

KEYS_DIR_MODE = 0o711
"""sshd reads a key file as the user who logs in; nobody sees who else has one."""


def plan_host(spec: ModuleSpec, presence: Presence, facts: SshHostFacts) -> Plan:
    """Sshd with our rules. Switched off it still runs, for those who look after the node, and lets no tenant in."""
    if spec.settings:
        raise PlanError(f"the ssh module has no settings; {', '.join(sorted(spec.settings))} is unknown")
    if presence is Presence.ABSENT:
        return _plan_removal(facts)
    is_open = presence is Presence.ENABLED
    missing = tuple(name for name in layout.PACKAGES if name not in facts.installed)
    actions: list[Action] = []
    if missing:
        actions.append(InstallPackages(names=missing, reason="sshd, and what puts a login into its account's slice"))
    folder = EnsureDirectory(path=layout.KEYS_DIR, mode=KEYS_DIR_MODE, reason="the keys of the accounts")
    if not holds_directory(facts.paths[layout.KEYS_DIR], folder):
        actions.append(folder)
    drop_in = WriteFile(
        path=layout.DROP_IN,
        content=render.render_drop_in(is_open=is_open),
        reason="what tenants may do" if is_open else "no tenant logs in",
    )
    if not holds_file(facts.paths[layout.DROP_IN], drop_in):
        actions += [
            *_plan_privilege_folder(facts),
            PublishConfig(tree=layout.TREE.name, files=(drop_in,), reason=drop_in.reason),
        ]
    unit = EnsureUnit(unit=layout.UNIT, is_running=True, is_enabled=True, reason="sshd takes logins")
    if is_open and (missing or not holds_unit(facts.unit, unit)):
        actions.append(unit)
    word = "lets accounts with keys in" if is_open else "lets no account in"
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"sshd {word}, as wanted")


def _plan_privilege_folder(facts: SshHostFacts) -> list[Action]:
    if facts.paths[layout.PRIVILEGE_DIR] is not None:
        return []
    return [EnsureDirectory(path=layout.PRIVILEGE_DIR, reason="sshd judges its configuration only with this folder")]


def _plan_removal(facts: SshHostFacts) -> Plan:
    """Our rules and folder. sshd stays: it is how people reach their servers, and may have been here before us."""
    if facts.accounts:
        raise PlanError(
            f"{len(facts.accounts)} accounts of this node have SSH keys, the first is {facts.accounts[0]}",
            hint="Delete the keys first, or disable the module.",
        )
    actions: list[Action] = []
    if facts.paths[layout.DROP_IN] is not None:
        if layout.PACKAGES[0] in facts.installed:
            actions += [
                *_plan_privilege_folder(facts),
                PublishConfig(tree=layout.TREE.name, removals=(layout.DROP_IN,), reason="the ssh module goes"),
            ]
        else:
            actions.append(RemoveFile(path=layout.DROP_IN, reason="the ssh module goes"))
    if facts.paths[layout.KEYS_DIR] is not None:
        actions.append(RemoveTree(path=layout.KEYS_DIR, reason="no account has a key"))
    return Plan(actions=tuple(actions), noop_reason="" if actions else "nothing of the ssh module is here")


def plan_access(spec: SshAccessSpec, presence: Presence, facts: AccessFacts) -> Plan:
    """The account's key file, or none: a suspended account has none, so that no key of it is even tried."""
    if presence is not Presence.ENABLED or not spec.keys:
        if facts.config is None:
            return Plan(noop_reason=f"no key opens {spec.account}")
        return Plan(
            actions=(RemoveFile(path=layout.keys_file(spec.account), reason=f"no key shall open {spec.account}"),)
        )
    if not facts.is_module_there:
        raise ModuleUnavailableError(
            "the ssh module is not installed on this node", hint="Enable the module ssh on this node."
        )
    wanted = WriteFile(
        path=layout.keys_file(spec.account),
        content=render.render_keys(spec),
        group=spec.account,
        mode=0o640,
        reason=f"{len(spec.keys)} keys open {spec.account}",
    )
    if holds_file(facts.config, wanted):
        return Plan(noop_reason=f"{len(spec.keys)} keys open {spec.account}, as wanted")
    return Plan(actions=(wanted,))
