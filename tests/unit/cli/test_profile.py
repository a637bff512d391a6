from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.profile import Profile, ProfileStore, config_path, load_profiles, parse_controller

HERE, THERE = "https://here.test:8360", "https://there.test:8360"


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    profiles = {"default": Profile(HERE, "/ca.pem", "secret"), "east": Profile(THERE)}
    return ProfileStore(path=tmp_path / "config" / "cli.json", profiles=profiles)


def test_save_when_read_back_is_the_same(store: ProfileStore) -> None:
    store.save()

    assert load_profiles(store.path) == store


def test_save_when_file_was_readable_for_others_is_for_the_owner_only(store: ProfileStore) -> None:
    store.path.parent.mkdir()
    store.path.write_text("{}")
    store.path.chmod(0o666)

    store.save()

    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert [item.name for item in store.path.parent.iterdir()] == ["cli.json"]  # nothing half-written stays


def test_save_when_directory_is_new_is_closed_to_others(store: ProfileStore) -> None:
    store.save()

    assert stat.S_IMODE(store.path.parent.stat().st_mode) & 0o077 == 0


def test_save_when_place_is_no_directory_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CommandFailedError, match="cannot be written") as raised:
        ProfileStore(path=tmp_path / "file" / "cli.json").save()

    assert "WCP360_CLI_CONFIG" in (raised.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"profiles": {}}', '{"current": "x", "profiles": []}',
        '{"current": "x", "profiles": {"x": 5}}', '{"current": "x", "profiles": {"x": {"controller": 5}}}',
        '{"current": "x", "profiles": {"x": {"unknown": "y"}}}',
    ],
)  # fmt: skip
def test_load_when_file_is_damaged_says_which_and_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cli.json"
    path.write_text(text)

    with pytest.raises(CommandFailedError, match=r"cli\.json is damaged") as raised:
        load_profiles(path)

    assert raised.value.exit_code is ExitCode.USAGE
    assert "wcp360 login" in (raised.value.hint or "")


def test_load_when_file_is_missing_is_empty(tmp_path: Path) -> None:
    assert load_profiles(tmp_path / "none.json").profiles == {}


def test_load_when_path_is_a_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="cannot be read: Is a directory"):
        load_profiles(tmp_path)


def test_get_when_environment_names_others_takes_them(store: ProfileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCP360_CONTROLLER", f"{THERE}/")
    monkeypatch.setenv("WCP360_CA_FILE", "/other.pem")
    monkeypatch.setenv("WCP360_TOKEN", " wcp_other\n")

    assert store.get(None) == Profile(THERE, "/other.pem", "wcp_other")


@pytest.mark.parametrize("way", ["option", "environment"])
def test_get_when_controller_is_another_keeps_the_token_at_home(
    store: ProfileStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "environment":
        monkeypatch.setenv("WCP360_CONTROLLER", THERE)

    assert store.get(None, controller=THERE if way == "option" else None).token == ""
    assert store.get(None, controller=HERE).token == "secret"


def test_require_known_when_name_is_unknown_lists_the_known(store: ProfileStore) -> None:
    store.require_known(None)
    store.require_known("east")
    with pytest.raises(CommandFailedError, match="no profile 'west' \\(known: default, east\\)"):
        store.require_known("west")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("panel.example.com", "https://panel.example.com:8360"),
        ("panel.example.com:443", "https://panel.example.com:443"),
        ("https://panel.example.com/", "https://panel.example.com"),
        ("[::1]", "https://[::1]:8360"),
        ("[::1]:9000", "https://[::1]:9000"),
        ("http://127.0.0.1:8360", "http://127.0.0.1:8360"),
    ],
)
def test_parse_controller_when_it_is_short_completes_it(text: str, expected: str) -> None:
    assert parse_controller(text) == expected


@pytest.mark.parametrize(
    "text", ["ftp://x", "https://", "https://user:pw@host", "https://ho st", "https://x:99999", "https://[::1", "a\nb"]
)
def test_parse_controller_when_it_is_no_address_shows_one(text: str) -> None:
    with pytest.raises(CommandFailedError, match="is not the address of a controller") as raised:
        parse_controller(text)

    assert raised.value.exit_code is ExitCode.USAGE


def test_parse_controller_when_password_would_go_in_clear_refuses() -> None:
    with pytest.raises(CommandFailedError, match="by https only"):
        parse_controller("http://panel.example.com:8360")


def test_config_path_when_variables_are_set_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path() == Path(os.environ["HOME"]) / ".config" / "wcp360" / "cli.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert config_path() == Path("/xdg/wcp360/cli.json")
    monkeypatch.setenv("WCP360_CLI_CONFIG", "/else/where.json")
    assert config_path() == Path("/else/where.json")


def test_save_when_written_is_json_that_people_can_read(store: ProfileStore) -> None:
    store.save()

    assert json.loads(store.path.read_text())["profiles"]["east"]["controller"] == THERE
