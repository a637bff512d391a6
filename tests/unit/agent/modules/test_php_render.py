"""No value becomes anything but a value in PHP-FPM's configuration or in a unit."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import example, given

from agent.modules.php import layout, render
from shared.errors import InvalidInputError, PlanError
from shared.specs.account import MIB
from shared.specs.php_pool import PhpPoolSpec
from shared.types.names import UnixName
from tests.unit.agent.modules.strategies import hostile_text


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
    assert unit["Environment"] == "FPM_SOCKETS=/run/wcp-php/8.4/%i.sock=3"


def test_config_trees_judge_each_file_with_its_own_version() -> None:
    tree = layout.config_tree("8.4")

    assert tree.validator == ("/usr/sbin/php-fpm8.4", "-t", "-y", "{file}")
    assert tree.live_dir == "/etc/wcp360/php/8.4"
