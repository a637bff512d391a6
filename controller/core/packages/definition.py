"""A package's fields as one flat mapping, so that inheritance, versions and differences are operations on mappings.

`own` holds what a package itself says: a field that is absent is inherited (from the parent, else its default), and
null is a value, "unlimited". Names of fields are dotted: `memory_bytes`, `limits.sites`, `flags.ssh`, `storage.driver`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from controller.core.limits.registry import LimitKind, LimitRegistry
from controller.core.packages.terms import STRICTNESS, Terms
from controller.core.packages.views import LimitValue, OverusePolicy, SecurityPolicy, StorageOptions
from shared.errors import InvalidInputError
from shared.specs.account import MIB

Values = dict[str, Any]
"""Name of a field to its value, as JSON has it."""

COLUMNS: Final[Mapping[str, Any]] = {
    "cpu_percent": None,
    "memory_bytes": None,
    "processes_max": None,
    "io_weight": None,
    "disk_bytes": None,
    "php_versions": None,
    "php_children_max": 5,
    "php_memory_bytes": 128 * MIB,
    "upload_max_bytes": 64 * MIB,
}
"""Fields with a column of their own, and what a package has that says nothing: exactly what a node is told."""
OPTIONS: Final[Mapping[str, Any]] = {
    "storage.driver": "local",
    "storage.has_snapshots": False,
    "security.is_two_factor_required": False,
    "security.api_rate_tier": "standard",
    "security.sessions_max": None,
    "security.allowed_networks": [],
    STRICTNESS: "standard",
    "overuse.action": "alert",
    "overuse.grace_hours": 72,
}
_GROUPS: Final = {"storage": StorageOptions, "security": SecurityPolicy, "overuse": OverusePolicy}


def defaults(registry: LimitRegistry) -> Values:
    """What a package has that says nothing, field by field: every field there is."""
    limits = {f"limits.{kind.key}": None for kind in registry.limits}
    flags = {f"flags.{kind.key}": kind.is_on_by_default for kind in registry.flags}
    return {**COLUMNS, **limits, **flags, **OPTIONS}


def node_fields(registry: LimitRegistry) -> frozenset[str]:
    """Fields that a node has to know: accounts converge when one of them changes."""
    return frozenset({*COLUMNS, STRICTNESS, *(f"flags.{kind.key}" for kind in registry.flags if kind.is_told_to_nodes)})


def merge(chain: Sequence[Mapping[str, Any]], registry: LimitRegistry) -> Values:
    """Effective values of what each says itself, the most remote ancestor first."""
    known = defaults(registry)
    merged = dict(known)
    for own in chain:
        merged.update({name: value for name, value in own.items() if name in known})
    return merged


def parse_given(given: Mapping[str, Any], registry: LimitRegistry) -> Values:
    """What a body says of the terms, as flat values.

    Args:
        given: Fields of a PackageCreate or PackageUpdate; UNSET for what was left out. Others are passed over.
        registry: Says which limits and features there are.

    Raises:
        InvalidInputError: A value is none; `field` names it.
    """
    values: Values = {name: _plain(name, given[name]) for name in COLUMNS if given.get(name, UNSET) is not UNSET}
    for key, raw in (given.get("limits") or {}).items():
        kind = registry.require_limit(key, field=f"limits.{key[:40]}")
        values[f"limits.{key}"] = _parse_limit(kind, raw)
    for key, is_on in (given.get("flags") or {}).items():
        registry.require_flag(key, field=f"flags.{key[:40]}")
        values[f"flags.{key}"] = is_on
    for group in _GROUPS:
        options = given.get(group, UNSET)
        if options is UNSET:
            continue
        for name, value in msgspec.structs.asdict(options).items():
            if value is not UNSET:
                values[f"{group}.{name}"] = _plain(f"{group}.{name}", value)
    return values


def require_field(name: str, registry: LimitRegistry) -> str:
    """The name of a field, if there is one of this name.

    Raises:
        InvalidInputError: There is none.
    """
    if name not in defaults(registry):
        raise InvalidInputError(f"there is no field {name[:60]!r} to inherit", field="inherit")
    return name


def require_sound(values: Mapping[str, Any], package_name: str) -> None:
    """Pass when the effective values fit each other.

    Raises:
        InvalidInputError: A soft value is above the hard one.
    """
    for name, value in values.items():
        if not name.startswith("limits.") or value is None or value["soft"] is None:
            continue
        hard = values.get(name.removeprefix("limits."), value["hard"])
        if hard is not None and value["soft"] > hard:
            words = f"the soft value {value['soft']} is above the hard one {hard}"
            raise InvalidInputError(f"{name} of {package_name!r}: {words}", field=name)


def fill(row: Terms, values: Mapping[str, Any]) -> None:
    """Put effective values into the row's columns; new objects, so that the change of a JSON column is seen."""
    for name in COLUMNS:
        setattr(row, name, values[name])
    row.limits = {
        name.removeprefix("limits."): value
        for name, value in values.items()
        if name.startswith("limits.") and value is not None
    }
    row.flags = {name.removeprefix("flags."): value for name, value in values.items() if name.startswith("flags.")}
    row.options = {name: values[name] for name in OPTIONS}


def values_of(row: Terms, registry: LimitRegistry) -> Values:
    """The row's effective values, field by field."""
    values = defaults(registry)
    values.update({name: getattr(row, name) for name in COLUMNS})
    values.update({name: row.limits.get(name.removeprefix("limits.")) for name in values if name.startswith("limits.")})
    stored = {f"flags.{key}": value for key, value in row.flags.items()} | row.options
    values.update({name: value for name, value in stored.items() if name in values})
    return values


def option_of(row: Terms, name: str) -> Any:
    """One of OPTIONS."""
    return row.options.get(name, OPTIONS[name])


def group_of(row: Terms, group: str) -> dict[str, Any]:
    """The options of storage, security or overuse by their short names."""
    names = [name for name in OPTIONS if name.startswith(f"{group}.")]
    return {name.partition(".")[2]: option_of(row, name) for name in names}


def _parse_limit(kind: LimitKind, raw: LimitValue | int | None) -> dict[str, int | None] | None:
    if raw is None:
        return None
    value = LimitValue(hard=raw) if isinstance(raw, int) else raw
    name = f"limits.{kind.key}"
    for number in (value.soft, value.hard):
        if number is not None and not 0 <= number <= kind.maximum:
            raise InvalidInputError(f"{name} is 0 to {kind.maximum} {kind.unit}; {number} is not", field=name)
    if kind.is_node_enforced and value.hard is not None:
        raise InvalidInputError(f"say the hard value as {kind.key}; here is only the soft one", field=name)
    return {"soft": value.soft, "hard": value.hard}


def _plain(name: str, value: Any) -> Any:
    if name == "php_versions" and value is not None:
        if len(set(value)) != len(value):
            raise InvalidInputError("a PHP version is named twice", field=name)
        return list(value)
    if name == "security.allowed_networks":
        return [_network(name, raw) for raw in value]
    return value


def _network(name: str, raw: str) -> str:
    try:
        return str(ipaddress.ip_network(raw))
    except ValueError as error:
        raise InvalidInputError(f"{raw[:60]!r} is not a network such as 192.0.2.0/24", field=name) from error
