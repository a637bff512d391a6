"""Settings: one file, overridable from the environment, and every mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.settings import Settings, list_unknown_variables, load_settings, parse_settings
from shared.errors import InvalidInputError


def test_settings_when_nothing_is_set_are_complete() -> None:
    settings = parse_settings({})

    assert settings.api_port == 8360
    assert settings.effective_database_url == "sqlite+aiosqlite:////var/lib/wcp360/controller.db"
    assert settings.effective_bundle_dir == Path("/var/lib/wcp360/bundles")
    assert {"localhost", "127.0.0.1"} <= set(settings.effective_public_names)


def test_settings_from_file_are_overridden_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('api_port = 1111\nlog_level = "debug"\npublic_names = ["a.example.com", "192.0.2.1"]\n')

    settings = load_settings({"WCP360_CONFIG": str(file), "WCP360_API_PORT": "2222"})

    assert (settings.api_port, settings.log_level) == (2222, "debug")
    assert settings.effective_controller_url == "https://a.example.com:2222"
    assert settings.effective_gateway_url == "wss://a.example.com:8443/agent/v1"


def test_settings_list_from_the_environment_is_separated_by_commas() -> None:
    settings = load_settings({"WCP360_PUBLIC_NAMES": "a.example.com, 2001:db8::1"})

    assert settings.public_names == ("a.example.com", "2001:db8::1")


def test_settings_url_of_an_ipv6_name_has_brackets() -> None:
    settings = parse_settings({"public_names": ["2001:db8::1"]})

    assert settings.effective_controller_url == "https://[2001:db8::1]:8360"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"api_prot": 1}, "api_prot"),
        ({"api_port": 70_000}, "api_port"),
        ({"api_port": "many"}, "api_port"),
        ({"data_dir": "relative/path"}, "data_dir"),
        ({"log_level": "loud"}, "log_level"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds"),
        ({"database_url": "mysql://localhost/x"}, "database_url"),
        ({"controller_url": "http://plain.example.com"}, "controller_url"),
        ({"gateway_url": "https://gateway.example.com"}, "gateway_url"),
    ],
)
def test_settings_with_a_mistake_name_it(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_settings(values)

    assert raised.value.field == field
    assert field in raised.value.message


def test_settings_from_a_file_that_is_not_there_say_so() -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_settings({"WCP360_CONFIG": "/nonexistent/controller.toml"})


def test_settings_from_a_file_that_is_no_toml_say_so(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text("api_port: 1")

    with pytest.raises(InvalidInputError, match="is not TOML"):
        load_settings({"WCP360_CONFIG": str(file)})


def test_unknown_variables_are_listed_and_those_of_others_are_not() -> None:
    variables = {"WCP360_API_PROT": "1", "WCP360_API_PORT": "1", "WCP360_CONFIG": "x", "HOME": "/root"}

    assert list_unknown_variables(variables) == ["WCP360_API_PROT"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().api_port = 1  # type: ignore[misc]
