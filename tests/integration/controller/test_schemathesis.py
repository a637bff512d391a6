"""Schemathesis over the whole OpenAPI document, as each role: no 5xx, and every answer is one that the document promises."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from schemathesis.python import asgi

from controller.core.auth.models import ApiToken
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.auth.users import create_user
from controller.core.context import Role
from controller.db.engine import Database
from controller.fleet.models import Heartbeat, Node, NodeState
from tests.integration.conftest import ADMIN, FAST_HASHER, PASSWORD, make_controller
from tests.integration.controller.tenants import sell
from tests.integration.fleet.rollout_bench import write_bundle
from tests.integration.live import free_port

# Not among the checks: positive_data_acceptance, because a schema cannot say "this client exists" or "not reserved".
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


ASKS_OTHERS = frozenset(
    {"GET /api/v1/sites/{site_id}/logs/{log}", "POST /api/v1/auth/password-reset", "POST /api/v1/notices/test"}
)
"""Operations that a connected node or a mail server answers; neither is there, and 503 is the right answer."""
STARTS_MAINTENANCE = "POST /api/v1/maintenance"
EXAMPLES = {Role.ROOT: 10, Role.RESELLER: 4, Role.CLIENT: 4, Role.MEMBER: 4}
"""For each operation, once with what fits the document and once with what does not. Tenants are refused most of it."""
SHARES = 4
"""The operations are dealt out to so many tests, for each role: as one it took minutes of one worker's processor."""


@dataclass
class Target:
    """An application in schemathesis' own event loop, with something in every table that one can make without a node."""

    app: Any
    headers: dict[Role, dict[str, str]]
    """Role to the authorisation of one who has it; those of tenants reach everything that `ids` names."""
    ids: dict[str, str] = field(default_factory=dict)
    """Path parameter to an id that exists."""


async def _prepare(url: str) -> tuple[str, str]:
    """An administrator with an API token (which no random call can sign out) and a node without an agent."""
    database = Database(url)
    secret = new_secret(TOKEN_PREFIX)
    async with database.write() as session:
        hashed = FAST_HASHER.hash(PASSWORD)
        user = await create_user(session, ADMIN, hashed, role=Role.ROOT, must_change_password=False)
        session.add(ApiToken(user_id=user.id, name="robot", secret_hash=hash_secret(secret), scopes=["*"]))
        facts = {"os": "debian", "os_version": "12", "memory_bytes": str(2**34), "disk_bytes": str(2**40)}
        node = Node(
            name="node1",
            state=NodeState.ACTIVE,
            roles=["web"],
            machine_id_hash="m",
            capability=2,
            sealing_public_key=b"",
            facts=facts,
            is_connected=True,
        )
        session.add(node)
        await session.flush()
        # Heard from for a day to come, so that accounts can be placed on it; nobody answers for it, though.
        session.add(Heartbeat(id=node.id, at=datetime.now(UTC) + timedelta(days=1)))
    await database.close()
    return secret, node.id


@pytest.fixture(scope="module")
def target(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("schemathesis")
    shutil.copyfile(sqlite_template, folder / "controller.db")
    (folder / "bundles").mkdir()
    (folder / "bundles" / "install.sh").write_text("#!/bin/sh\n")
    write_bundle(folder / "bundles", "1.0.0")
    url = f"sqlite+aiosqlite:///{folder / 'controller.db'}"
    secret, node_id = asyncio.run(_prepare(url))
    built = make_controller(url, folder, gateway_host="127.0.0.1", gateway_port=free_port())
    root = {"authorization": f"Bearer {secret}"}
    made = Target(app=built.app.asgi, headers={Role.ROOT: root}, ids={"node_id": node_id, "name": "web"})
    with asgi.get_client(built.app.asgi) as client:
        client.headers.update(root)
        _fill(client, made)
        made.headers |= asyncio.run(_sell(url, made.ids))
        yield made
        asgi.shutdown_lifespans()


async def _sell(url: str, ids: dict[str, str]) -> dict[Role, dict[str, str]]:
    """Give everything to a reseller and a client, and sign them in."""
    database = Database(url)
    tenant = await sell(database, {"other_package_id": ids["package_id"], **ids}, "a")
    await database.close()
    return tenant.headers


def _fill(client: Any, target: Target) -> None:
    def create(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code in (201, 202), answer.text
        content: dict[str, Any] = answer.json()
        for job in content.get("jobs", ()):
            target.ids["job_id"] = job["id"]
        return content.get("resource", content)

    ids = target.ids
    ids["package_id"] = create("packages", {"name": "Starter"})["id"]
    ids["client_id"] = create("clients", {"name": "Ada", "email": "ada@example.com"})["id"]
    ids["other_client_id"] = create("clients", {"name": "Bob", "email": "bob@example.com"})["id"]
    ids["reseller_id"] = create("resellers", {"name": "Shop", "email": "shop@example.com"})["id"]
    account = {"name": "ada", "client_id": ids["client_id"], "package_id": ids["package_id"]}
    ids["account_id"] = create("accounts", account)["id"]
    site = {"account_id": ids["account_id"], "domain": "example.com"}
    ids["site_id"] = create("sites", site)["id"]
    ids["domain_id"] = create("domains", {"name": "example.org", "account_id": ids["account_id"]})["id"]


@pytest.fixture(scope="module")
def api_schema(target: Target) -> Any:
    loaded = schemathesis.openapi.from_asgi("/schema/openapi.json", target.app)
    words = {word for path in loaded.raw_schema["paths"] for word in path.split("/")}

    @loaded.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Half of the time something that exists; random ids would only ever see 404."""
        for name in path_parameters or ():
            if path_parameters[name] in words:  # type: ignore[index]
                # Hypothesis tries words of our own code: an address of its own, such as notices/read, is another route.
                path_parameters[name] += "-"  # type: ignore[index]
            if name in target.ids and len(str(path_parameters[name])) % 2:  # type: ignore[index]
                path_parameters[name] = target.ids[name]  # type: ignore[index]
        return path_parameters

    @loaded.hook
    def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
        """No dry runs: nobody is there to plan, and 503 agent_offline is then the right answer (tested elsewhere)."""
        return {key: value for key, value in query.items() if key != "dry_run"} if query else query

    @loaded.hook
    def map_body(context: Any, body: Any) -> Any:
        """Ids in bodies are those of things that exist."""
        if isinstance(body, dict):
            return {
                key: target.ids[key] if key in target.ids and key.endswith("_id") and isinstance(value, str) else value
                for key, value in body.items()
            }
        return body

    return loaded


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # of schemathesis' own strategies
# The fixture of schemathesis itself does not know pytest 9 yet, so the loop over operations is ours.
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("role", EXAMPLES, ids=lambda role: role.value)
def test_every_operation_keeps_its_promises(
    api_schema: Any, target: Target, subtests: pytest.Subtests, role: Role, share: int
) -> None:
    for found in list(api_schema.get_all_operations())[share::SHARES]:
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            with subtests.test(operation=operation.label, mode=mode.value):
                try:
                    keep_promises(operation, mode, target.headers[role], EXAMPLES[role])
                except Unsatisfiable:  # nothing about it can be wrong: no parameters, no body
                    assert mode.is_negative
            if operation.label == STARTS_MAINTENANCE:
                end_maintenance(target)


def end_maintenance(target: Target) -> None:
    """Whether an example began one or not: all changes after it would be refused, rightly, and prove nothing."""
    with asgi.get_client(target.app) as client:
        ended = client.delete("/api/v1/maintenance", headers=target.headers[Role.ROOT])
        assert ended.status_code in (200, 204, 404, 409), ended.text


def keep_promises(operation: Any, mode: schemathesis.GenerationMode, headers: dict[str, str], examples: int) -> None:
    """Try examples of one operation."""
    kept = [check for check in CHECKS if check is not checks.not_a_server_error or operation.label not in ASKS_OTHERS]

    @given(case=operation.as_strategy(mode))
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=kept, headers=headers)

    run()
