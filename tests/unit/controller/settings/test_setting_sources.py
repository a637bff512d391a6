"""What an administrator is shown of the settings: where each comes from, and no password."""

from __future__ import annotations

from pathlib import Path

from controller.setting_sources import SettingView, list_settings
from controller.settings import Settings, load_settings


def shown(settings: Settings, variables: dict[str, str]) -> dict[str, SettingView]:
    return {item.name: item for item in list_settings(settings, variables).items}


def test_settings_when_listed_say_where_each_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('log_level = "debug"\napi_port = 9000\n')
    variables = {"WCP360_CONFIG": str(file), "WCP360_API_PORT": "9001", "WCP360_PUBLIC_NAMES": "a.example,b.example"}

    found = shown(load_settings(variables), variables)

    assert set(found) == set(Settings.__struct_fields__)
    assert (found["log_level"].value, found["log_level"].source) == ("debug", "file")
    assert (found["api_port"].value, found["api_port"].source) == ("9001", "environment")
    assert found["public_names"].value == "a.example, b.example"
    assert (found["heartbeat_seconds"].value, found["heartbeat_seconds"].source) == ("20.0", "default")
    assert found["signer_socket"].value == ""


def test_settings_when_a_url_holds_a_password_show_it_without(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+asyncpg://wcp:s3cret@db.example:5432/wcp\n")
    variables = {"WCP360_DATABASE_URL_FILE": str(secret), "WCP360_REDIS_URL": "rediss://:s3cret@redis.example/0"}

    found = shown(load_settings(variables), variables)

    assert found["database_url"].value == "postgresql+asyncpg://wcp:***@db.example:5432/wcp"
    assert found["database_url"].source == "environment"
    assert found["redis_url"].value == "rediss://:***@redis.example/0"
    assert "s3cret" not in str(found)


def test_settings_when_a_program_gave_them_say_so(tmp_path: Path) -> None:
    found = shown(Settings(data_dir=tmp_path), {})

    assert found["data_dir"].source == "command"
