"""What the controller runs with, and where each value comes from: for the API, so that nobody has to log in to look."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from controller.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, FILE_SUFFIX, Settings, read_config_file

_HIDDEN: Final = "***"
_DEFAULTS: Final = {field.name: field.default for field in msgspec.structs.fields(Settings)}


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of this process."""

    name: Annotated[str, Meta(description="As in the configuration file; WCP360_<NAME> in the environment.")]
    value: Annotated[str, Meta(description="As text; the password of a URL is left out.")]
    source: Annotated[str, Meta(description="default, file, environment, or command: the program that started it.")]


class SettingList(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the process that answers."""

    items: tuple[SettingView, ...]


def list_settings(settings: Settings, variables: Mapping[str, str] | None = None) -> SettingList:
    """Every setting in the order of the documentation.

    Raises:
        InvalidInputError: The configuration file cannot be read any more.
    """
    environment = os.environ if variables is None else variables
    in_file = read_config_file(environment.get(CONFIG_VARIABLE))
    values = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    items = (
        SettingView(name=name, value=_render(value), source=_source_of(name, value, environment, in_file))
        for name, value in values.items()
    )
    return SettingList(items=tuple(items))


def _source_of(name: str, value: Any, environment: Mapping[str, str], in_file: Mapping[str, Any]) -> str:
    variable = ENVIRONMENT_PREFIX + name.upper()
    if variable in environment or variable + FILE_SUFFIX in environment:
        return "environment"
    return "file" if name in in_file else "default" if value == _DEFAULTS[name] else "command"


def _render(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, Path):
        return str(value)
    return _without_password(value) if isinstance(value, str) else str(value)


def _without_password(text: str) -> str:
    """The URL with what stands between its user and its host left out; any other text as it is."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    user, has_password, _password = parts.netloc.rpartition("@")[0].partition(":")
    if not has_password:
        return text
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{user}:{_HIDDEN}@{host}", parts.path, parts.query, parts.fragment))
