"""Reads a case file: what is known of the host and wanted, and what must be planned.

A case declares everything that the planner reads, so that it documents it. Short forms, anywhere in the facts:
`"none"` is None, `"directory OWNER GROUP MODE"` and `"symlink ..."` are path facts, `"file OWNER GROUP MODE CONTENT"` is
one whose content is `rendered` (what the plan would write) or any other word (something else), and
`"unit running|stopped|failed|missing enabled|disabled"` is a unit fact.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.actions import Action, PublishConfig, WriteFile, content_hash
from agent.contract.module import Converger, Module, Plan
from agent.modules.account.facts import AccountFacts
from agent.modules.account.facts import HostFacts as AccountHostFacts
from agent.modules.account.module import MODULE as ACCOUNT
from agent.modules.php.facts import PhpHostFacts, PoolFacts
from agent.modules.php.module import MODULE as PHP
from agent.modules.ssh.facts import AccessFacts, SshHostFacts
from agent.modules.ssh.module import MODULE as SSH
from agent.modules.web.facts import SiteFacts, WebHostFacts
from agent.modules.web.module import MODULE as WEB
from shared.errors import FleetError
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import AnySpec
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec
from shared.specs.ssh_access import SshAccessSpec

MODULES: dict[str, Module] = {module.name: module for module in (ACCOUNT, PHP, SSH, WEB)}
HOST_FACTS: dict[str, Any] = {
    "account": AccountHostFacts,
    "php": PhpHostFacts,
    "ssh": SshHostFacts,
    "web": WebHostFacts,
}
FACTS: dict[type, Any] = {
    AccountSpec: AccountFacts,
    PhpPoolSpec: PoolFacts,
    SiteSpec: SiteFacts,
    SshAccessSpec: AccessFacts,
}
EXPECTATIONS = ("actions", "noop_reason", "error")
CASE_KEYS = {"about", "presence", "spec", "facts", "message_has", "risks_have", *EXPECTATIONS}


class CaseError(Exception):
    """The case itself is wrong."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One file, converted."""

    about: str
    spec: AnySpec
    presence: Presence
    facts: Any
    raw: dict[str, Any]

    def plan(self) -> Plan:
        return find_converger(self.spec).plan(self.spec, self.presence, self.facts)


def find_converger(spec: AnySpec) -> Converger[Any, Any]:
    if isinstance(spec, ModuleSpec):
        return MODULES[spec.name].host
    return next(c for module in MODULES.values() for c in module.convergers if c.spec_type is type(spec))


def read_case(path: Path) -> Case:
    """Read and convert a case.

    Raises:
        CaseError: It has an unknown key, none or several expectations, or facts that it does not declare.
    """
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = sorted(set(raw) - CASE_KEYS)
    if unknown or sum(key in raw for key in EXPECTATIONS) != 1:
        raise CaseError(f"{path}: unknown keys {unknown}, or not exactly one of {EXPECTATIONS}")
    spec: AnySpec = msgspec.convert(raw["spec"], AnySpec)
    facts_type = HOST_FACTS[spec.name] if isinstance(spec, ModuleSpec) else FACTS[type(spec)]
    missing = list_undeclared(raw["facts"], facts_type)
    if missing:
        raise CaseError(f"{path}: the case does not declare the facts {', '.join(missing)}")
    presence = Presence(raw["presence"])
    facts = _resolve(raw["facts"], spec, presence, facts_type)
    return Case(about=raw["about"], spec=spec, presence=presence, facts=facts, raw=raw)


def list_undeclared(declared: dict[str, Any], facts_type: Any) -> list[str]:
    """Fields of the facts that a case leaves out."""
    return [field.name for field in msgspec.structs.fields(facts_type) if field.name not in declared]


def _resolve(raw: dict[str, Any], spec: AnySpec, presence: Presence, facts_type: Any) -> Any:
    """Convert the facts; `rendered` becomes the hash of what the plan writes where nothing is there yet."""
    blank = msgspec.convert(_expand(raw, {}), facts_type)
    if not _has_rendered(raw):
        return blank
    try:
        actions = find_converger(spec).plan(spec, presence, blank).actions
    except FleetError:
        # The case is about the refusal.
        return blank
    written = {file.path: content_hash(file.content) for action in actions for file in list_written(action)}
    settings = next((path for path in written if path.endswith("/sites.ini")), "")
    config = next((path for path in written if path != settings), "")
    hashes = {**written, "config": written.get(config, ""), "settings": written.get(settings, "")}
    return msgspec.convert(_expand(raw, hashes), facts_type)


def list_written(action: Action) -> tuple[WriteFile, ...]:
    if isinstance(action, WriteFile):
        return (action,)
    return action.files if isinstance(action, PublishConfig) else ()


def _has_rendered(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_rendered(item) for item in value.values())
    return isinstance(value, str) and value.startswith("file ") and value.endswith(" rendered")


def _expand(value: Any, hashes: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _expand(item, hashes, name) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    words = value.split()
    if value == "none":
        return None
    if words[:1] == ["unit"]:
        return _expand_unit(words)
    if words[:1] in (["directory"], ["file"], ["symlink"]) and len(words) >= 4:
        content = hashes.get(key, "0" * 64) if words[-1] == "rendered" else "f" * 64
        digest = content if words[0] == "file" else None
        return {
            "kind": words[0],
            "owner": words[1],
            "group": words[2],
            "mode": int(words[3], 8),
            "content_hash": digest,
        }
    return value


def _expand_unit(words: list[str]) -> dict[str, bool]:
    return {
        "is_loaded": words[1] != "missing",
        "is_running": words[1] == "running",
        "is_enabled": words[2:] == ["enabled"],
        "has_failed": words[1] == "failed",
    }
