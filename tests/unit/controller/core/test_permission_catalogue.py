"""The published list of permissions is what the code asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.core.context import Actor, Role
from controller.core.permissions import EVERYTHING, ROLE_PERMISSIONS
from controller.core.tenancy.catalogue import NOUNS, VERBS
from controller.core.tenancy.grants import effective_permissions, find_excess

ROOT = Path(__file__).parents[4]
ASKERS = {"require", "require_platform", "may"}
BY_TOPIC = {
    # What one listens to is asked for by the topic's own name (controller.core.events.publisher.Topic).
    "nodes", "metrics", "audit", "security", "rollouts", "drift", "enrolment",
}  # fmt: skip


def asked_in(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Noun and verb of each question whose words stand in the source."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKERS):
            continue
        words = [
            constants.get(arg.id) if isinstance(arg, ast.Name) else getattr(arg, "value", None) for arg in node.args
        ]
        if len(words) == 2 and words[1] in VERBS and isinstance(words[0], str):
            yield words[0], str(words[1])


def all_asked() -> set[tuple[str, str]]:
    return {
        asked
        for path in (ROOT / "controller").rglob("*.py")
        for asked in asked_in(ast.parse(path.read_text(encoding="utf-8")))
    }


def test_catalogue_when_compared_with_the_source_has_all_that_is_asked_for() -> None:
    asked = all_asked()

    assert len(asked) > 40
    assert sorted({noun for noun, _verb in asked} - set(NOUNS)) == [], (
        "add each to controller/core/tenancy/catalogue.py"
    )


def test_catalogue_when_compared_with_the_source_has_nothing_that_nobody_asks_for() -> None:
    given = {one.partition(":")[0] for role in Role for one in ROLE_PERMISSIONS[role] - EVERYTHING}

    assert sorted(set(NOUNS) - {noun for noun, _verb in all_asked()} - given - BY_TOPIC) == []


@pytest.mark.parametrize(
    ("below", "above"),
    [(Role.MEMBER, Role.CLIENT), (Role.CLIENT, Role.RESELLER), (Role.RESELLER, Role.ADMIN), (Role.ADMIN, Role.ROOT)],
)
def test_role_when_below_another_has_nothing_that_it_lacks(below: Role, above: Role) -> None:
    """Else a client could not make a team member with all that the role allows."""
    actor = Actor(kind="user", id="1", name="ada", role=above)

    assert find_excess(actor, effective_permissions(below, None)) is None


@pytest.mark.parametrize(
    ("actor", "wanted", "excess"),
    [
        (Actor(kind="user", id="1", name="ada", role=Role.CLIENT), {"packages:write"}, "packages:write"),
        (Actor(kind="user", id="1", name="ada", role=Role.ROOT, permissions=frozenset({"*:read"})), {"*"}, "*:write"),
        (
            Actor(kind="token", id="1", name="t", role=Role.ROOT, scopes=frozenset({"users:write"})),
            {"*:read"},
            "*:read",
        ),
        (Actor(kind="user", id="1", name="ada", role=Role.CLIENT), {"*:read"}, "*:read"),
        (Actor(kind="user", id="1", name="ada", role=Role.ADMIN), {"*", "sites:write"}, None),
    ],
)
def test_excess_when_role_custom_role_or_scopes_lack_it_is_named(
    actor: Actor, wanted: set[str], excess: str | None
) -> None:
    assert find_excess(actor, wanted) == excess


def test_effective_permissions_when_a_custom_role_says_more_are_those_of_the_role() -> None:
    assert effective_permissions(Role.MEMBER, ["*"]) == ROLE_PERMISSIONS[Role.MEMBER]
    assert effective_permissions(Role.MEMBER, ["nodes:write", "sites:read"]) == {"sites:read"}
