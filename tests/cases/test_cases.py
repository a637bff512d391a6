"""Every case file: facts and a spec on one side, actions, a reason for none, or an error on the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.contract.actions import Action, PublishConfig
from shared.errors import FleetError
from tests.cases.reader import Case, CaseError, list_undeclared, list_written, read_case

ROOT = Path(__file__).parent
CASES = sorted(ROOT.rglob("*.toml"))
CONTENT_KEYS = {"content_has", "content_lacks"}


@pytest.mark.parametrize("path", CASES, ids=lambda path: str(path.relative_to(ROOT).with_suffix("")))
def test_case_plans_what_it_says(path: Path) -> None:
    case = read_case(path)

    if "error" in case.raw:
        require_error(case)
        return
    try:
        plan = case.plan()
    except KeyError as error:
        raise CaseError(f"{path}: the case does not declare {error}") from error

    wanted_actions = case.raw.get("actions", [])
    assert [tag_of(action) for action in plan.actions] == [wanted["action"] for wanted in wanted_actions]
    for action, wanted in zip(plan.actions, wanted_actions, strict=True):
        require_action(action, wanted)
    assert plan.noop_reason == case.raw.get("noop_reason", "")
    assert case.raw.get("risks_have", "") in " ".join(plan.risks)
    assert bool(plan.risks) == ("risks_have" in case.raw), plan.risks


def require_error(case: Case) -> None:
    with pytest.raises(FleetError) as caught:
        case.plan()

    assert caught.value.code == case.raw["error"]
    assert case.raw["message_has"] in caught.value.message


def tag_of(action: Action) -> str:
    return str(action.__struct_config__.tag)


def require_action(action: Action, wanted: dict[str, Any]) -> None:
    """Every key that the case names has this value."""
    actual = msgspec.to_builtins(action)
    for key in wanted.keys() - CONTENT_KEYS:
        assert _matches(actual[key], wanted[key]), (
            f"{tag_of(action)} {action.target}: {key} is {actual[key]!r}, not {wanted[key]!r}"
        )
    content = "".join(file.content for file in list_written(action))
    for text in wanted.get("content_has", []):
        assert text in content, f"{tag_of(action)} {action.target} lacks {text!r}"
    for text in wanted.get("content_lacks", []):
        assert text not in content, f"{tag_of(action)} {action.target} has {text!r}"


def _matches(actual: Any, wanted: Any) -> bool:
    if wanted == "none":
        return actual is None
    if isinstance(wanted, dict):
        return all(_matches(actual[key], value) for key, value in wanted.items())
    return bool((list(actual) if isinstance(actual, tuple) else actual) == wanted)


def test_read_case_when_facts_are_left_out_names_them(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    text = 'about = "x"\npresence = "enabled"\nnoop_reason = "x"\n[spec]\nkind = "module"\nname = "web"\n[facts]\nsites = []\n'
    path.write_text(text, encoding="utf-8")

    with pytest.raises(CaseError, match="installed, is_rotation_offered, unit"):
        read_case(path)


def test_list_undeclared_when_all_is_declared_is_empty() -> None:
    class Facts(msgspec.Struct):
        one: int

    assert list_undeclared({"one": 1}, Facts) == []


def test_cases_cover_every_presence_of_every_kind() -> None:
    seen = {(type(case.spec).__name__, case.presence.value) for case in map(read_case, CASES)}

    kinds = {"ModuleSpec", "AccountSpec", "PhpPoolSpec", "SiteSpec", "SshAccessSpec"}
    assert seen == {(kind, presence) for kind in kinds for presence in ("enabled", "disabled", "absent")}


def test_publications_name_their_tree() -> None:
    plans = [case.plan() for case in map(read_case, CASES) if "actions" in case.raw]

    trees = {action.tree for plan in plans for action in plan.actions if isinstance(action, PublishConfig)}
    assert trees == {"nginx", "nginx_main", "php8.2", "sshd"}
