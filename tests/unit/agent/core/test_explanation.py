"""Actions in words."""

from __future__ import annotations

from typing import get_args

import pytest

from agent.contract import actions
from agent.contract.actions import AnyAction, ConfigTree
from agent.core import faults
from agent.core.explanation import _UNDO, MAX_DIFF_CHARACTERS, cut_diff, list_reloads
from shared.errors import BugError


def test_undo_words_exist_for_every_reversible_action() -> None:
    silent = [kind.__name__ for kind in get_args(AnyAction) if not kind.IS_IRREVERSIBLE and kind not in _UNDO]

    assert silent == []


def test_cut_diff_when_long_says_how_much_is_missing() -> None:
    assert cut_diff("short") == "short"
    assert cut_diff("x" * (MAX_DIFF_CHARACTERS + 5)).endswith("... 5 more characters\n")


def test_list_reloads_names_each_unit_once_in_order() -> None:
    tree = ConfigTree(name="nginx", live_dir="/etc/x", validator=("nginx",), reload_unit="nginx.service")
    planned = (
        actions.EnsureUnit(unit="php.socket", is_running=True, reason="r"),
        actions.PublishConfig(tree="nginx", removals=("/etc/x/a",), reason="r"),
        actions.ReloadUnit(unit="nginx.service", reason="r"),
        actions.EnsureUnit(unit="only-enabled.timer", is_enabled=True, reason="r"),
    )

    assert list_reloads(planned, {"nginx": tree}) == ("php.socket", "nginx.service")


def test_fault_point_when_not_listed_is_a_bug() -> None:
    with pytest.raises(BugError):
        faults.at("nowhere")
