"""The catalogue of notices: every event exists, every template speaks, nothing typed leaves its line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.core.events.catalogue import CORE_EVENTS
from controller.core.notices import words
from controller.core.notices.audience import Face
from controller.core.notices.kinds import KIND_BY_NAME, KIND_OF_EVENT, KINDS, happening_of, is_security, plan_due
from controller.core.notices.mails import SUBJECT_MAX, compose
from controller.core.notices.models import Notice, NoticeMail
from controller.core.notices.words import Happening, Words, one_line, render_text

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
UNLISTED = {"user.sign_in", "user.change_password"}
"""Of the audit log, but of no webhook: what a person did at the door."""
EVIL = "shop\r\nBcc: all@example.com\x1b[2J"
FACTS = {
    "signals": ["new_network", "odd"], "email": EVIL, "name": EVIL, "allow": [EVIL], "deny": [], "reason": EVIL,
    "expires_at": EVIL, "scopes": [EVIL], "limit": EVIL, "used": 6, "hard": 5, "soft": None, "purge_at": EVIL,
    "suspension_reason": EVIL, "liftable_by": "policy", "suspended_until": EVIL, "certificate_id": EVIL,
    "role": "client", "role_id": "1",
}  # fmt: skip


def happening(action: str, **fields: object) -> Happening:
    values: dict[str, object] = {
        "action": action, "at": NOW, "actor": "user/1", "actor_name": EVIL, "address": EVIL, "target": "account/1",
        "name": EVIL, "before": {}, "after": FACTS,
    }  # fmt: skip
    return Happening(**(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("event", sorted(KIND_OF_EVENT))
def test_template_when_everything_typed_is_evil_keeps_it_on_its_line(event: str) -> None:
    said = KIND_OF_EVENT[event].templates[event](happening(event))

    assert said is not None
    text = render_text(said, happening(event), is_own=True)
    assert said.what
    assert all(line.isprintable() for line in text.splitlines())
    assert [line for line in text.splitlines() if line.startswith("Bcc")] == []
    assert one_line(said.title).isprintable()


@pytest.mark.parametrize("event", sorted(KIND_OF_EVENT))
def test_template_when_an_entry_tells_nothing_does_not_fail(event: str) -> None:
    said = KIND_OF_EVENT[event].templates[event](happening(event, before={}, after={}))

    assert said is None or said.title


def test_events_of_the_catalogue_exist() -> None:
    known = {event.name for event in CORE_EVENTS} | UNLISTED

    assert set(KIND_OF_EVENT) - known == set()
    assert len(KIND_BY_NAME) == len(KINDS)
    assert sum(len(kind.templates) for kind in KINDS) == len(KIND_OF_EVENT)


def test_commands_that_notices_name_exist() -> None:
    source = "".join(path.read_text() for path in Path(words.__file__).parent.glob("*.py"))
    named = set(re.findall(r"wcp360 ([a-z-]+ [a-z-]+)", source))
    golden = (Path(__file__).parents[3] / "integration/cli/commands.txt").read_text()

    assert len(named) > 8
    assert {name for name in named if f"\n{name} " not in f"\n{golden}"} == set()


def test_sign_in_as_usual_is_not_told() -> None:
    assert words.of_sign_in(happening("user.sign_in", after={"address": "10.0.0.1"})) is None


def test_change_of_a_person_that_leaves_the_role_is_not_told() -> None:
    same = {"role": "client", "role_id": None}

    assert words.of_role(happening("user.update", before=same, after=same)) is None


@pytest.mark.parametrize(
    ("last", "due"),
    [(None, timedelta(minutes=1)), (timedelta(minutes=-5), timedelta(minutes=55)), (timedelta(days=-1), timedelta(minutes=1))],
)  # fmt: skip
def test_mail_of_a_kind_is_due_at_once_and_then_once_in_its_window(last: timedelta | None, due: timedelta) -> None:
    last_due_at = NOW + last if last is not None else None

    assert plan_due(KIND_BY_NAME["limits"], now=NOW, last_due_at=last_due_at) == NOW + due


def test_address_is_shown_to_whoever_did_it_only() -> None:
    said = Words(title="t", what="w")

    assert "From: 10.0.0.1" in render_text(said, happening("a.b", address="10.0.0.1"), is_own=True)
    assert "From" not in render_text(said, happening("a.b", address="10.0.0.1"), is_own=False)


def test_sign_in_entry_without_an_address_of_its_own_says_it_by_its_facts() -> None:
    entry = SimpleNamespace(
        action="user.sign_in", at=NOW, actor="user/1", actor_name="ada", address=None, target="user/1",
        target_name="ada", before=None, after={"address": "10.0.0.1"},
    )  # fmt: skip

    assert happening_of(entry).address == "10.0.0.1"


def test_subject_when_the_title_is_long_stays_on_one_line() -> None:
    row = NoticeMail(id="1", kind="limits", address="ada@example.com")
    notice = Notice(title="word " * 30, text="text\n")

    mail = compose(row, [notice], username="ada", face=Face(), controller_url="https://panel.example:8360")

    assert len(mail.subject) <= SUBJECT_MAX
    assert "wcp360 notice-preferences update limits --no-is-mailed" in mail.text
    assert not is_security("digest")
