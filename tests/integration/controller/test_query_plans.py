"""Everything that a screen may ask of a large hoster's controller is found by an index, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import pytest

from controller.api.openapi import build_document
from controller.core.audit.checkpoints import Checkpoints
from controller.core.context import Role
from tests.bench import audit, hoster
from tests.bench.questions import list_questions
from tests.integration.conftest import make_controller
from tests.integration.query_plans import Recorder, Scan

SHARE: Final = 0.5
"""Of the large hoster: with fewer rows PostgreSQL reads whole tables because that is quicker."""
ENTRIES: Final = 50_000
ROWS_MAX: Final = 2500
"""What one scan may look at: 50 rows of a page with 50 of something each."""
ADDS_UP: Final[Mapping[str, frozenset[str]]] = {
    "list-attention": frozenset({"accounts", "parked_resources"}),
    "list-resellers": frozenset({"accounts"}),
    "rank-resellers": frozenset({"accounts"}),
    "list-usage": frozenset({"accounts", "account_usage"}),
    "list-package-rollouts": frozenset({"package_rollout_accounts"}),
}
"""They say how many there are of something: each row counts, so each is read. Nothing else may."""
pytestmark = pytest.mark.postgresql


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """The bar, and EXPLAIN ANALYZE, are PostgreSQL's."""
    return postgres_url


def is_too_much(scan: Scan, operation: str) -> bool:
    return scan.rows_read > ROWS_MAX and scan.table not in ADDS_UP.get(operation, ())


async def test_questions_when_asked_of_a_large_hoster_are_found_by_an_index(database_url: str, tmp_path: Path) -> None:
    controller = make_controller(database_url, tmp_path)
    recorder = Recorder(controller.database)
    transport = httpx.ASGITransport(app=controller.app.asgi)
    wrong: list[str] = []
    answered: set[tuple[Role, str]] = set()
    try:
        await audit.fill(controller.database, Checkpoints(controller.database, controller.fleet.keys.signer), ENTRIES)
        large = await hoster.fill(controller.database, SHARE)
        questions = list_questions(build_document(controller.app.litestar), large.ids)
        async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
            for role, secret in large.secrets.items():
                for question in questions:
                    headers = {"authorization": f"Bearer {secret}"}
                    with recorder.recording():
                        answer = await http.get(question.path, params=question.query, headers=headers)
                    if answer.status_code in (403, 404) and role is not Role.ROOT:
                        continue
                    assert answer.status_code == 200, f"{role.value} {question}: {answer.text}"
                    answered.add((role, question.operation))
                    scans = await recorder.list_scans()
                    wrong += [
                        f"{role.value} {question}: {one}" for one in scans if is_too_much(one, question.operation)
                    ]
    finally:
        await controller.database.close()

    assert wrong == []
    assert {role for role, operation in answered if operation == "list-accounts"} == set(large.secrets)
    assert len(answered) > 150
