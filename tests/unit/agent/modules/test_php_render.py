"""No value becomes anything but a value in PHP-FPM's configuration or in a unit."""

from __future__ import annotations

import configparser

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.modules.php import layout, render
from shared.errors import InvalidInputError, PlanError
from shared.specs.account import MIB
from shared.specs.php_pool import PhpPoolSpec, PhpSite
from shared.specs.php_settings import DIRECTIVES, RANGES, PhpSettings
from shared.types.names import DomainName, UnixName
from tests.unit.agent.modules.strategies import hostile_text

EXAMPLE = DomainName("example.com")


def make_pool(**fields: object) -> PhpPoolSpec:
    values = {"account": UnixName("alice"), "uid": 20001, "version": "8.2", **fields}
    return PhpPoolSpec(**values)  # type: ignore[arg-type] # the tests pass wrong types on purpose


def read_ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(comment_prefixes=(";", "#"), delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case-sensitive
    parser.read_string(text)
    return parser


@given(hostile_text)
@example('a"b')
@example("${HOME}")
@example("a;b")
def test_quote_ini_with_any_text_is_one_value_or_refused(text: str) -> None:
    try:
        quoted = render.quote_ini(text)
    except PlanError:
        return

    assert quoted == f'"{text}"'
    assert not set(text) & set("\"'\\$\n\r\x00")


@given(hostile_text)
def test_pool_spec_with_a_hostile_account_is_refused_or_harmless(text: str) -> None:
    try:
        spec = make_pool(account=text)
    except InvalidInputError:
        return

    assert read_ini(render.render_pool(spec)).sections() == ["global", text]


def test_render_pool_has_the_values_of_the_spec() -> None:
    spec = make_pool(children_max=7, memory_limit_bytes=96 * MIB, upload_max_bytes=8 * MIB, idle_seconds=30)

    pool = read_ini(render.render_pool(spec))["alice"]

    assert pool["listen"] == '"/run/wcp-php/8.2/20001.sock"'
    assert pool["pm.max_children"] == "7"
    assert pool["pm.process_idle_timeout"] == "30s"
    assert pool["php_admin_value[memory_limit]"] == str(96 * MIB)
    assert pool["php_admin_value[post_max_size]"] == str(9 * MIB)
    assert pool["php_value[session.save_path]"] == '"/srv/accounts/alice/tmp"'


def test_render_pool_keeps_the_tenant_at_home() -> None:
    pool = read_ini(render.render_pool(make_pool()))["alice"]

    folders = pool["php_admin_value[open_basedir]"].strip('"').split(":")
    assert "/srv/accounts/alice/" in folders
    assert not [folder for folder in folders if folder.startswith("/srv") and folder != "/srv/accounts/alice/"]


@pytest.mark.parametrize("template", ["pool.socket.j2", "pool.service.j2"])
def test_render_unit_with_something_that_is_no_version_is_refused(template: str) -> None:
    with pytest.raises(InvalidInputError):
        render.render_unit(template, "8.2\nExecStartPre=/bin/sh")


def test_render_unit_runs_the_master_as_the_tenant_in_its_slice() -> None:
    unit = read_ini(render.render_unit("pool.service.j2", "8.4"))["Service"]

    assert unit["User"] == unit["Group"] == "%i"
    assert unit["Slice"] == "user-%i.slice"
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["Environment"].split() == [
        "FPM_SOCKETS=/run/wcp-php/8.4/%i.sock=3",
        "PHP_INI_SCAN_DIR=:/etc/wcp360/php/8.4/%i.d",
    ]


def test_config_trees_judge_each_file_with_its_own_version() -> None:
    tree = layout.config_tree("8.4")

    assert tree.validator == ("/usr/sbin/php-fpm8.4", "-t", "-y", "{file}")
    assert tree.live_dir == "/etc/wcp360/php/8.4"


@given(hostile_text)
@example('Europe/Berlin"\nauto_prepend_file = /etc/passwd')
@example("[PATH=/srv/accounts/bob]")
@example("UTC]")
def test_settings_with_a_hostile_time_zone_are_refused_or_one_value(text: str) -> None:
    try:
        settings = PhpSettings(date_timezone=text)
    except InvalidInputError:
        return

    lines = render.render_settings(make_pool(sites=(PhpSite(domain=EXAMPLE, settings=settings),))).splitlines()

    assert [line for line in lines if line and line[0] not in ";["] == [f'date.timezone = "{text}"']
    assert [line for line in lines if line.startswith("[")] == ["[PATH=/srv/accounts/alice/sites/example.com]"]


@given(hostile_text)
@example("example.com]\n[PATH=/srv/accounts/bob/sites/bob.example")
@example("../../bob/sites/bob.example")
@example("")
def test_settings_of_a_hostile_domain_are_refused_or_in_its_own_section(text: str) -> None:
    try:
        site = PhpSite(domain=text, settings=PhpSettings(max_input_vars=2000))  # type: ignore[arg-type] # on purpose
    except InvalidInputError:
        return

    lines = render.render_settings(make_pool(sites=(site,))).splitlines()

    assert [line for line in lines if line.startswith("[")] == [f"[PATH=/srv/accounts/alice/sites/{text}]"]
    assert "/" not in text
    assert ".." not in text


@given(st.fixed_dictionaries({}, optional={name: st.integers() for name in RANGES}))
def test_settings_with_any_number_are_refused_or_within_their_range_and_the_package(numbers: dict[str, int]) -> None:
    try:
        settings = PhpSettings(**numbers)
    except InvalidInputError:
        assert any(not RANGES[name][0] <= number <= RANGES[name][1] for name, number in numbers.items())
        return

    lower = settings.within(memory_limit_bytes=64 * MIB, upload_max_bytes=8 * MIB)

    assert (lower.memory_limit_bytes or 0) <= 64 * MIB
    assert (lower.upload_max_filesize_bytes or 0) <= 8 * MIB
    assert (lower.post_max_size_bytes or 0) <= 9 * MIB


def test_every_setting_is_a_directive_and_the_dangerous_ones_are_none() -> None:
    assert set(DIRECTIVES) == {field.name for field in msgspec.structs.fields(PhpSettings)}
    assert len(set(DIRECTIVES.values())) == len(DIRECTIVES)
    assert not set(DIRECTIVES.values()) & {
        "open_basedir", "disable_functions", "auto_prepend_file", "auto_append_file", "sendmail_path", "extension",
        "error_log", "session.save_path", "upload_tmp_dir", "include_path", "opcache.preload", "ffi.enable",
        "user_ini.filename", "mail.log", "opcache.file_cache", "allow_url_include", "zend_extension",
    }  # fmt: skip


def test_render_pool_when_strict_forbids_every_function_that_starts_programs() -> None:
    free, strict = (read_ini(render.render_pool(make_pool(is_strict=each)))["alice"] for each in (False, True))

    forbidden = strict["php_admin_value[disable_functions]"].strip('"').split(",")
    assert free["php_admin_value[disable_functions]"] == '"dl"'
    assert {"dl", "exec", "shell_exec", "system", "passthru", "popen", "proc_open", "pcntl_exec"} <= set(forbidden)
    assert "php_value[disable_functions]" not in strict
