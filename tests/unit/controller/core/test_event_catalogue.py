"""Every event that the source tells of is in the published list, with a schema that is one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controller.core.events.catalogue import CORE_EVENTS, Catalogue, EventType, LiveNews, fits
from controller.jobs.states import JobState
from controller.modules.ssh.events import EVENTS as SSH_EVENTS
from controller.modules.web.events import EVENTS as WEB_EVENTS
from shared.errors import BugError, InvalidInputError

ROOT = Path(__file__).parents[4]
TELLERS = {
    "publish",
    "_publish",
    "Change",
    "ChangeNote",
    "_note",
    "_recorded",
    "_include",
    "_end",
    "record",
    "record_account",
}
CATALOGUE = Catalogue((*CORE_EVENTS, *SSH_EVENTS, *WEB_EVENTS))


def events_of(tree: ast.AST) -> Iterator[str]:
    """Words like noun.verb that are given to what publishes or records."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLERS:
                for value in (*node.args, *(keyword.value for keyword in node.keywords)):
                    for inner in ast.walk(value):
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                            yield inner.value


def test_events_when_told_anywhere_in_the_source_are_in_the_catalogue() -> None:
    told = {
        (word, path.relative_to(ROOT).as_posix())
        for path in (ROOT / "controller").rglob("*.py")
        for word in events_of(ast.parse(path.read_text()))
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", word)
    }

    missing = sorted(f"{word} ({path})" for word, path in told if word not in CATALOGUE)
    assert len(told) > 50
    assert missing == [], "add each to controller/core/events/catalogue.py, or to the EVENTS of its module"


def test_events_when_a_job_moves_are_in_the_catalogue_whatever_its_state() -> None:
    assert {f"job.{state.value}" for state in JobState} <= {event.name for event in CATALOGUE}


def test_schemas_when_rendered_describe_an_object_with_an_id() -> None:
    schemas = [msgspec.json.schema(kind) for event in CATALOGUE for kind in (event.data, event.live) if kind]
    definitions = [schema["$defs"][schema["$ref"].rpartition("/")[2]] for schema in schemas]

    assert all("id" in definition["properties"] for definition in definitions)


def test_catalogue_when_two_events_have_one_name_refuses() -> None:
    event = EventType("a.b", "", None, LiveNews)

    with pytest.raises(BugError):
        Catalogue((event, event))


@pytest.mark.parametrize(
    ("pattern", "name", "is_fitting"),
    [
        ("*", "account.create", True),
        ("account.*", "account.create", True),
        ("account.create", "account.create", True),
        ("account.*", "accounts.create", False),
        ("acc*", "account.create", False),
        ("job.*", "job_key.rotate", False),
    ],
)
def test_fits_when_asked_takes_whole_nouns_only(pattern: str, name: str, *, is_fitting: bool) -> None:
    assert fits(pattern, name) is is_fitting


@pytest.mark.parametrize("pattern", ["node.connected", "account", "", "*.create", "account.explode"])
def test_require_patterns_when_no_webhook_could_fit_refuses(pattern: str) -> None:
    with pytest.raises(InvalidInputError):
        CATALOGUE.require_patterns([pattern])
