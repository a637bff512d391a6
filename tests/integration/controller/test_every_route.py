"""Promises of every route at once, read from the OpenAPI document: a route that somebody adds is asked the same.

Nobody without a permission reaches the database or a node, what a node has to do is a job, and every change is audited.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import delete, select

from controller.api.openapi import build_document
from controller.bootstrap import METADATA, Controller
from controller.core.audit.models import AuditEntry
from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.context import Role
from controller.core.notices.models import MailState, Notice, NoticeMail, NoticePreference
from controller.core.packages.rollouts.models import PackageRollout
from controller.core.parked.models import ParkedResource
from controller.core.rules.models import Rule
from controller.core.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.signing import new_webhook_secret
from controller.fleet.models import DriftFindingRow, Heartbeat, Node, NodeState
from controller.fleet.rollouts.models import Release, Rollout, RolloutKind, RolloutNode, RolloutState
from controller.jobs.models import Job
from controller.jobs.states import JobState
from controller.jobs.work_models import ScheduleRow, Task, TaskState
from tests.integration.fleet.rollout_bench import write_bundle

API = "/api/v1"
AUDIT = ("audit_entries", "audit_head")
METHODS = ("get", "put", "post", "delete", "patch")

SSH_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"

WITHOUT_PERMISSION: Final = {
    # Route: why it asks for no permission. This list may only shrink.
    "login": "signing in is how one gets any",
    "logout": "everybody may leave",
    "show-me": "what everybody may know about themselves",
    "change-password": "asks for the present password instead",
    "begin-passkey-proof": "signing in is how one gets any",
    "use-sign-in-link": "signing in is how one gets any",
    "login-with-passkey": "signing in is how one gets any",
    "request-password-reset": "who asks has forgotten what would give them any",
    "confirm-password-reset": "asks for the secret of a mailed link instead",
    "enrol": "asks for an enrolment token instead",
    "renew-certificate": "asks for a signature by the node's key instead",
    "show-branding": "what the sign-in page shows",
}
NO_JOB: Final = {
    # A change that is complete once its rows are written. Everything else answers 202 with jobs.
    "login", "logout", "change-password", "create-token", "revoke-token", "enrol", "renew-certificate",
    "create-package", "delete-package", "suspend-package", "unsuspend-package", "clone-package", "judge-package-update", "create-client", "update-client", "delete-client", "create-domain",
    "set-account-note",
    "delete-domain", "create-enrolment-token", "delete-enrolment-token", "revoke-node", "reject-node", "delete-node",
    "discard-job", "ignore-drift", "unignore-drift", "run-schedule", "retry-task",
    "start-node-maintenance", "drain-node", "cordon-node", "uncordon-node", "check-node-health", "release-job",
    "dismiss-attention", "undismiss-attention", "create-release", "create-rollout", "pause-rollout", "resume-rollout",
    "abort-rollout", "release-node", "start-ca-rotation", "advance-ca-rotation", "rollback-ca-rotation",
    "step-up", "revoke-session", "revoke-other-sessions", "begin-second-factor", "confirm-second-factor",
    "disable-second-factor", "renew-recovery-codes", "update-security", "update-policies", "reset-policy", "update-rate-limits", "set-user-networks", "reset-second-factor",
    "rotate-job-key", "revoke-job-key", "start-maintenance", "end-maintenance",
    "create-webhook", "update-webhook", "delete-webhook", "rotate-webhook-secret", "resume-webhook", "test-webhook",
    "create-rule", "update-rule", "delete-rule", "resume-rule", "try-rule",
    "replay-delivery", "request-password-reset", "confirm-password-reset", "set-email",
    "create-sign-in-link", "use-sign-in-link", "begin-passkey-proof", "login-with-passkey", "begin-passkey", "create-passkey", "update-passkey", "delete-passkey",
    "pause-package-rollout", "resume-package-rollout", "abort-package-rollout",
    "create-reseller", "update-reseller", "delete-reseller", "suspend-reseller", "unsuspend-reseller",
    "judge-account-transfer", "set-reseller-branding",
    "create-user", "update-user", "delete-user", "disable-user", "enable-user", "reset-user-password",
    "impersonate-user", "create-role", "update-role", "delete-role", "set-member", "remove-member",
    "read-notices", "test-notices", "update-notice-preference", "retry-notice-mail",
}  # fmt: skip
MAY_HAVE_NO_JOB: Final = {
    # 202 with an empty list when no node needs to know.
    "update-package", "pin-account-package", "update-node", "cancel-job", "approve-node", "retry-site", "discard-site-change",
    "end-node-maintenance", "undrain-node", "decide-job", "return-package-rollout", "transfer-account", "transfer-client",
}  # fmt: skip
ASKERS: Final = 4
"""Refusals of one asker beyond a number are counted and not written one by one."""
BODIES: Final[dict[str, Any]] = {
    "use-sign-in-link": {"token": "of no account here"},
    "login": {"username": "somebody", "password": "of no account here"},
    "change-password": {"current_password": "of no account here", "new_password": "another long password"},
    "login-with-passkey": {"challenge_id": "none", "credential": {}},
    "begin-passkey": {"password": "of no account here"},
    "create-passkey": {"challenge_id": "none", "name": "laptop", "credential": {}},
    "update-passkey": {"name": "phone"},
    "request-password-reset": {"username_or_email": "somebody"},
    "confirm-password-reset": {"token": "wcr_none", "password": "another long password"},
    "set-email": {"email": "ada@example.com", "password": "of no account here"},
    "create-token": {"name": "more", "scopes": ["*"]},
    "step-up": {"password": "of no account here"},
    "begin-second-factor": {"password": "of no account here"},
    "confirm-second-factor": {"code": "000000"},
    "disable-second-factor": {"password": "of no account here"},
    "update-security": {"second_factor_roles": ["reseller"]},
    "update-policies": {"sessions_max": 7, "job_retention_days": 30},
    "update-rate-limits": {"user": {"requests": 20000, "seconds": 60}},
    "set-user-networks": {"deny": ["198.51.100.7/32"]},
    "create-package": {"name": "Other"},
    "update-package": {"processes_max": 77},
    "clone-package": {"name": "Copy of {package_id}"},
    "judge-package-update": {"processes_max": 77},
    "pin-account-package": {"version": 1},
    "bulk-change-package": {"account_ids": ["{account_id}"], "package_id": "{other_package_id}"},
    "transfer-account": {"client_id": "{other_client_id}"},
    "judge-account-transfer": {"client_id": "{other_client_id}"},
    "transfer-client": {"reseller_id": "{reseller_id}"},
    "set-reseller-branding": {"name": "Shop", "accent_colour": "#0b5cad"},
    "create-reseller": {"name": "Shop", "email": "shop@example.com", "caps": {"accounts": 5}},
    "update-reseller": {"caps": {"accounts": 7}},
    "suspend-reseller": {"reason": "unpaid"},
    "create-client": {"name": "Grace", "email": "grace@example.com"},
    "update-client": {"name": "Grace"},
    "create-account": {
        "name": "grace",
        "client_id": "{client_id}",
        "package_id": "{package_id}",
        "node_id": "{node_id}",
    },
    "update-account": {"package_id": "{other_package_id}"},
    "bulk-change-accounts": {"action": "converge", "ids": ["{account_id}"]},
    "clone-account": {"name": "copy", "node_id": "{node_id}"},
    "set-account-note": {"text": "Asks for a discount."},
    "suspend-account": {"reason": "unpaid"},
    "create-domain": {"name": "new-{domain_id}.example", "account_id": "{account_id}"},
    "create-user": {"username": "u{client_id}", "role": "member", "client_id": "{client_id}"},
    "update-user": {"role": "client"},
    "impersonate-user": {"reason": "ticket 4711"},
    "create-role": {"name": "Deploy", "level": "member", "permissions": ["sites:write"]},
    "update-role": {"permissions": ["sites:read"]},
    "create-site": {"domain": "new-{domain_id}.example", "account_id": "{account_id}"},
    "update-site": {"document_root": "web"},
    "update-php-settings": {"max_input_vars": 5000},
    "create-ssh-key": {
        "name": "laptop", "account_id": "{account_id}", "public_key": SSH_KEY + "B" * 42,
    },
    "update-ssh-key": {"name": "desk"},
    "update-node": {"drift_policy": "repair"},
    "create-enrolment-token": {"name": "node9"},
    "enrol": {
        "token": "wcpe_none", "csr_pem": "none", "machine_id_hash": "0" * 64, "sealing_public_key": "AA==",
        "hostname": "h", "facts": {}, "agent_version": "1", "capability": 1,
    },
    "renew-certificate": {
        "certificate_pem": "none", "csr_pem": "none", "signature": "AA==", "signed_at": "2026-01-01T00:00:00Z",
    },
    "set-node-module": {"presence": "disabled"},
    "start-ca-rotation": {"reason": "drill"},
    "create-webhook": {"url": "https://8.8.8.8/hook", "events": ["*"]},
    "update-webhook": {"description": "billing"},
    "create-rule": {
        "name": "spam", "events": ["account.update"], "action": {"type": "converge_account"},
    },
    "update-rule": {"description": "no spam"},
    "try-rule": {"audit_number": 1},
    "start-maintenance": {"reason": "database upgrade"},
    "start-node-maintenance": {"reason": "new disk"},
    "drain-node": {"reason": "new kernel"},
    "decide-job": {"decision": "done", "note": "seen on the node"},
    "dismiss-attention": {"note": "known"},
    "read-notices": {},
    "update-notice-preference": {"is_mailed": False},
    "bulk-retry-parked": {"ids": ["{parked_id}"]},
    "retry-attention": {"ids": ["parked.{parked_id}"]},
    "bulk-ping-nodes": {"node_ids": ["{node_id}"], "wait_seconds": 0},
    "create-release": {},
    "create-rollout": {"kind": "module_settings", "module": "php", "presence": "enabled"},
    "resume-rollout": {},
    "resume-package-rollout": {},
    "ignore-drift": {
        "until": (datetime.now(UTC) + timedelta(days=7)).isoformat(), "reason": "Waits for the next release.",
    },
}  # fmt: skip


def _fill_in(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**ids)
    return [_fill_in(item, ids) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Route:
    """One operation of the document."""

    method: str
    path: str
    operation: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.operation["operationId"])

    @property
    def is_change(self) -> bool:
        return self.method != "get"


@dataclass
class Api:
    """The whole application without any agent, and something in every table."""

    controller: Controller
    http: httpx.AsyncClient
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document: dict[str, Any] = build_document(self.controller.app.litestar)
        return document

    @property
    def routes(self) -> list[Route]:
        paths = self.document()["paths"]
        return [
            Route(method, path, item[method])
            for path, item in paths.items()
            for method in METHODS
            if method in item and path.startswith(API)
        ]

    async def call(self, route: Route, ids: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        body = BODIES.get(route.name)
        if body is not None:
            body = {key: _fill_in(value, ids) for key, value in body.items()}
        return await self.http.request(
            route.method, route.path.format(**ids), json=body, headers={"authorization": ""} | (headers or {})
        )

    async def make(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        answer = await self.http.post(f"{API}/{path}", json=body, headers=headers)
        assert answer.status_code in (201, 202), answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def fill(self, headers: dict[str, str]) -> dict[str, str]:
        """New rows of every kind; path and body parameter to id."""
        number = next(self.numbers)
        name = f"t{number}"
        ids = {
            "name": "web",
            "policy": "sessions_max",
            "log": "access",
            "number": "1",
            "node_id": await self._add_node(f"node{number}"),
        }
        for key in ("package_id", "other_package_id"):
            package = {"name": f"{name} {key}", "flags": {"ssh": True, "custom_php": True}}
            ids[key] = (await self.make("packages", package, headers))["id"]
        reseller = {"name": f"{name} reseller", "email": "r@example.com"}
        ids["reseller_id"] = (await self.make("resellers", reseller, headers))["id"]
        ids["client_id"] = (await self.make("clients", {"name": "Ada", "email": "a@example.com"}, headers))["id"]
        other = {"name": "Bob", "email": "b@example.com"}
        ids["other_client_id"] = (await self.make("clients", other, headers))["id"]
        account = {"name": name, **{key: ids[key] for key in ("client_id", "package_id", "node_id")}}
        ids["account_id"] = (await self.make("accounts", account, headers))["resource"]["id"]
        login = {"account_id": ids["account_id"], "name": "desk", "public_key": SSH_KEY + "A" * 42}
        ids["key_id"] = (await self.make("ssh-keys", login, headers))["resource"]["id"]
        site = {"account_id": ids["account_id"], "domain": f"{name}.example"}
        made = await self.make("sites", site, headers)
        ids |= {"site_id": made["resource"]["id"], "job_id": made["jobs"][0]["id"]}
        domain = {"name": f"{name}.test", "account_id": ids["account_id"]}
        ids["domain_id"] = (await self.make("domains", domain, headers))["id"]
        person = {"username": f"{name}.member", "role": "member", "client_id": ids["client_id"]}
        ids["user_id"] = (await self.make("users", person, headers))["user"]["id"]
        role = {"name": f"{name} role", "level": "member", "permissions": ["sites:write"]}
        ids["role_id"] = (await self.make("roles", role, headers))["id"]
        ids["token_id"] = (await self.make("enrolment-tokens", {"name": f"new{number}"}, headers))["id"]
        ids["task_id"] = await self._add_task()
        ids["schedule_name"] = await self._add_schedule(name)
        ids["finding_id"] = await self._add_finding(ids["node_id"], name)
        ids["item_id"] = f"drift.{ids['finding_id']}"
        ids["parked_id"] = await self._add_parked(ids, name)
        ids |= await self._add_webhook()
        ids["rule_id"] = await self._add_rule(name)
        ids |= await self._add_notice(number)
        ids |= await self._add_rollout(number, ids["node_id"])
        ids["package_rollout_id"] = await self._add_package_rollout(name, headers)
        ids |= {
            "session_id": ids["node_id"],
            "archive_id": ids["node_id"],
            "passkey_id": ids["node_id"],
            "username": "admin",
        }
        ids["kid"] = (await self.controller.fleet.keys.signer.current_job_keys())[-1].kid
        return ids

    async def _add_rollout(self, number: int, node_id: str) -> dict[str, str]:
        async with self.controller.database.write() as session:
            release = Release(
                number=number * 1000, version="1.0.0", build=f"1.0.0-{number}", sha256="0" * 64, size_bytes=1, capability=2,
                architecture="x86_64", min_from="0.0.0", keys_version=1, signed=b"", signed_until=datetime.now(UTC),
            )  # fmt: skip
            session.add(release)
            await session.flush()
            rollout = Rollout(
                kind=RolloutKind.AGENT_UPDATE, state=RolloutState.RUNNING, release_id=release.id, waves=["100%"],
                soak_seconds=0, max_failures=0, node_timeout_seconds=60, deadline_at=datetime.now(UTC), actor="user/1",
            )  # fmt: skip
            session.add(rollout)
            await session.flush()
            session.add(RolloutNode(rollout_id=rollout.id, node_id=node_id, wave=0))
        return {"release_id": release.id, "rollout_id": rollout.id}

    async def _add_package_rollout(self, name: str, headers: dict[str, str]) -> str:
        package = await self.make("packages", {"name": f"{name} in waves"}, headers)
        body = {"processes_max": 50}
        answer = await self.http.patch(f"{API}/packages/{package['id']}", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        async with self.controller.database.write() as session:
            row = PackageRollout(
                package_id=package["id"], package_name=package["name"], version_before=1, version=2, waves=["100%"],
                state=RolloutState.RUNNING, soak_seconds=0, max_failures=0, account_timeout_seconds=60,
                deadline_at=datetime.now(UTC), actor="user/1",
            )  # fmt: skip
            session.add(row)
        return row.id

    async def _add_node(self, name: str) -> str:
        node = Node(
            name=name, state=NodeState.ACTIVE, roles=["web"], machine_id_hash=name, sealing_public_key=b"",
            facts={"os": "debian", "os_version": "12", "memory_bytes": str(2**36), "disk_bytes": str(2**42)},
            is_connected=True, capability=2,
        )  # fmt: skip
        async with self.controller.database.write() as session:
            session.add(node)
            await session.flush()
            session.add(Heartbeat(id=node.id, at=datetime.now(UTC) + timedelta(days=1)))
        return node.id

    async def _add_finding(self, node_id: str, account: str) -> str:
        now = datetime.now(UTC)
        async with self.controller.database.write() as session:
            row = DriftFindingRow(
                node_id=node_id, subject=f"account/{account}", key="site/x", summary="edited", diff="",
                found_at=now, checked_at=now,
            )  # fmt: skip
            session.add(row)
        return row.id

    async def _add_parked(self, ids: dict[str, str], account: str) -> str:
        async with self.controller.database.write() as session:
            row = ParkedResource(
                node_id=ids["node_id"], account_id=ids["account_id"], subject=f"account/{account}",
                key=f"account/{account}", kind="account", code="command_failed", message="no", hint=None, context={},
                generation=1, job_id=ids["job_id"], since=datetime.now(UTC),
            )  # fmt: skip
            session.add(row)
        return row.id

    async def _add_webhook(self) -> dict[str, str]:
        now = datetime.now(UTC)
        async with self.controller.database.write() as session:
            row = WebhookEndpoint(url="https://example.com/", events=["job.failed"], secret=new_webhook_secret())
            session.add(row)
            await session.flush()
            delivery = WebhookDelivery(
                endpoint_id=row.id, message_id=f"msg_{row.id}"[:40], event="job.failed", subject="job/1", body="{}",
                state=DeliveryState.FAILED, next_at=now, finished_at=now, log=[],
            )  # fmt: skip
            session.add(delivery)
        return {"webhook_id": row.id, "delivery_id": delivery.id}

    async def _add_rule(self, name: str) -> str:
        """One that nothing here calls for."""
        async with self.controller.database.write() as session:
            row = Rule(
                name=f"{name}-rule", owner="platform", events=["account.certify_deletion"], runs_per_hour=60,
                action={"type": "converge_account"}, maker_name="nobody", grants=[],
            )  # fmt: skip
            session.add(row)
        return row.id

    async def _add_notice(self, number: int) -> dict[str, str]:
        now = datetime.now(UTC)
        async with self.controller.database.write() as session:
            user = (await session.scalars(select(User).where(User.role == Role.ROOT.value))).one()
            row = Notice(
                user_id=user.id, kind="attention", source=f"test/{number}", subject="node/1", title="t", text="t",
                happened_at=now,
            )  # fmt: skip
            mail = NoticeMail(
                user_id=user.id, kind="attention", address="a@example.com", state=MailState.DEAD, due_at=now,
                next_at=now, give_up_at=now,
            )  # fmt: skip
            preference = delete(NoticePreference).where(NoticePreference.user_id == user.id)
            await session.execute(preference)  # so that the next change of it is one
            session.add_all((row, mail))
        return {"notice_id": row.id, "mail_id": mail.id, "kind": "attention"}

    async def _add_task(self) -> str:
        row = Task(kind="package.reconverge", state=TaskState.FAILED, run_at=datetime.now(UTC))
        async with self.controller.database.write() as session:
            session.add(row)
        return row.id

    async def _add_schedule(self, name: str) -> str:
        async with self.controller.database.write() as session:
            session.add(ScheduleRow(name=f"{name}.tick", every_seconds=3600.0, next_at=datetime.now(UTC)))
        return f"{name}.tick"

    async def token(self, *scopes: str) -> dict[str, str]:
        """Headers of a new API token."""
        secret = new_secret(TOKEN_PREFIX)
        async with self.controller.database.write() as session:
            user = (await session.scalars(select(User).where(User.role == Role.ROOT.value))).one()
            session.add(ApiToken(user_id=user.id, name="robot", secret_hash=hash_secret(secret), scopes=list(scopes)))
        return {"authorization": f"Bearer {secret}"}

    async def rows(self, *, but: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the database, but for when a token was used, how often and from where."""
        content = {}
        async with self.controller.database.read() as session:
            for table in METADATA.sorted_tables:
                if table.name in but:
                    continue
                columns = [
                    column
                    for column in table.columns
                    if column.name not in ("last_used_at", "updated_at", "use_count", "last_address")
                ]
                content[table.name] = sorted(map(tuple, await session.execute(select(*columns))), key=repr)
        return content

    async def refusals(self) -> int:
        """How often the audit log says that somebody may not."""
        async with self.controller.database.read() as session:
            return len((await session.scalars(select(AuditEntry.id).where(AuditEntry.action == "access.refuse"))).all())

    async def count(self, table: type[Job | AuditEntry]) -> int:
        async with self.controller.database.read() as session:
            return len((await session.scalars(select(table.id))).all())


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
async def api(controller: Controller, anonymous_client: httpx.AsyncClient) -> Api:
    return Api(controller, anonymous_client)


async def test_every_route_when_asked_by_nobody_answers_401_and_changes_nothing(api: Api) -> None:
    ids = await api.fill(await api.token("*"))
    before = await api.rows()

    answers = {
        route.name: (await api.call(route, ids)).status_code
        for route in api.routes
        if route.operation["security"] != []
    }

    assert {name: status for name, status in answers.items() if status != 401} == {}
    assert await api.rows() == before


async def test_every_route_when_the_permission_is_missing_answers_403_and_changes_nothing(api: Api) -> None:
    ids = await api.fill(await api.token("*"))
    robots = itertools.cycle([await api.token("weather:read") for _ in range(ASKERS)])
    before = await api.rows(but=AUDIT)

    answers = {
        route.name: (await api.call(route, ids, next(robots))).status_code
        for route in api.routes
        if route.name not in WITHOUT_PERMISSION
    }

    assert {name: status for name, status in answers.items() if status != 403} == {}
    assert await api.rows(but=AUDIT) == before
    assert await api.refusals() == len(answers)


async def test_every_change_when_one_may_only_read_answers_403_and_changes_nothing(api: Api) -> None:
    ids = await api.fill(await api.token("*"))
    readers = itertools.cycle([await api.token("*:read") for _ in range(ASKERS)])
    before = await api.rows(but=AUDIT)

    answers = {
        f"{route.name}{query}": (
            await api.call(Route(route.method, route.path + query, route.operation), ids, next(readers))
        ).status_code
        for route in api.routes
        if route.is_change and route.name not in WITHOUT_PERMISSION
        for query in ("", "?dry_run=true")
        if not query or "dry_run" in str(route.operation.get("parameters"))
    }

    assert {name: status for name, status in answers.items() if status != 403} == {}
    assert await api.rows(but=AUDIT) == before
    assert await api.refusals() == len(answers)


async def test_every_route_when_asked_with_a_parameter_that_it_does_not_know_says_so_and_changes_nothing(
    api: Api,
) -> None:
    """A filter with a typing error would show everything, and a dry run that there is none of would be none."""
    ids = await api.fill(await api.token("*"))
    admins = itertools.cycle([await api.token("*") for _ in range(ASKERS)])
    before = await api.rows(but=AUDIT)
    wrong = []

    for route in api.routes:
        known = {one["name"] for one in route.operation.get("parameters", []) if one["in"] == "query"}
        for name in {"serach", "dry_run"} - known if route.is_change else {"serach"}:
            asked = Route(route.method, f"{route.path}?{name}=true", route.operation)
            answer = await api.call(asked, ids, next(admins))
            fields = [one["field"] for one in answer.json().get("errors", ())]
            if (answer.status_code, fields) != (400, [name]) and answer.status_code != 403:
                wrong.append(f"{route.name} {name}: {answer.status_code} {answer.text[:200]}")
            if (
                name != "dry_run"
                and answer.status_code == 400
                and any(one not in answer.json()["hint"] for one in known)
            ):
                wrong.append(f"{route.name}: {answer.json()['hint']}")

    assert wrong == []
    assert await api.rows(but=AUDIT) == before


async def test_list_of_routes_without_permission_names_only_what_exists(api: Api) -> None:
    assert set(WITHOUT_PERMISSION) <= {route.name for route in api.routes}


async def test_every_change_when_it_concerns_a_node_promises_jobs(api: Api) -> None:
    schemas = build_document(api.controller.app.litestar)["components"]["schemas"]
    wrong = []
    for route in api.routes:
        if not route.is_change or route.name in NO_JOB:
            continue
        accepted = route.operation["responses"].get("202")
        if accepted is None:
            wrong.append(f"{route.name}: no 202")
            continue
        name = accepted["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        if "jobs" not in schemas[name]["required"]:
            wrong.append(f"{route.name}: its answer has no jobs")

    assert wrong == []
    assert {route.name for route in api.routes} >= NO_JOB


async def prepare_rollout(api: Api, route: Route, ids: dict[str, str], admin: dict[str, str]) -> None:
    """There is a bundle to register, or a rollout that was paused."""
    if route.name == "create-release":
        write_bundle(api.controller.fleet.releases.bundle_dir, "1.0.0")
    if route.name == "resume-rollout":
        answer = await api.http.post(f"{API}/rollouts/{ids['rollout_id']}/pause", headers=admin)
        assert answer.status_code == 200, answer.text
    if route.name == "resume-package-rollout":
        path = f"{API}/package-rollouts/{ids['package_rollout_id']}/pause"
        assert (await api.http.post(path, headers=admin)).status_code == 200


async def prepare_account(api: Api, route: Route, ids: dict[str, str], admin: dict[str, str]) -> None:
    """It is suspended, or in the trash."""
    if route.name == "unsuspend-account":
        await api.http.post(f"{API}/accounts/{ids['account_id']}/suspend", json={}, headers=admin)
    if route.name == "restore-account":
        await api.http.delete(f"{API}/accounts/{ids['account_id']}", headers=admin)


async def prepare_team(api: Api, route: Route, ids: dict[str, str], admin: dict[str, str]) -> None:
    """Somebody is shut out, or works on the account."""
    before = {
        "enable-user": ("post", f"{API}/users/{ids['user_id']}/disable"),
        "remove-member": ("put", f"{API}/accounts/{ids['account_id']}/members/{ids['user_id']}"),
    }.get(route.name)
    if before is not None:
        answer = await api.http.request(*before, headers=admin)
        assert answer.status_code == 200, answer.text


async def prepare(api: Api, route: Route, ids: dict[str, str], admin: dict[str, str]) -> None:
    """Bring about what the change is for: something failed, something is suspended, something is not used."""
    await prepare_account(api, route, ids, admin)
    if route.name in ("unsuspend-account", "unsuspend-reseller", "unsuspend-package"):
        path = route.path.format(**ids).replace("/unsuspend", "/suspend")
        await api.http.post(path, json={}, headers=admin)
    await prepare_rollout(api, route, ids, admin)
    await prepare_team(api, route, ids, admin)
    if route.name == "delete-client":
        body = {"name": "Nobody", "email": "nobody@example.com"}
        ids["client_id"] = (await api.make("clients", body, admin))["id"]
    if route.name == "delete-package":
        ids["package_id"] = ids["other_package_id"]
    if route.name == "unignore-drift":
        body = BODIES["ignore-drift"]
        answer = await api.http.post(f"{API}/drift/{ids['finding_id']}/ignore", json=body, headers=admin)
        assert answer.status_code == 200, answer.text
    before = {
        "end-node-maintenance": ("maintenance", "start-node-maintenance"),
        "release-job": ("maintenance", "start-node-maintenance"),
        "undrain-node": ("drain", "drain-node"),
        "uncordon-node": ("cordon", ""),
    }.get(route.name)
    if before is not None:
        path = f"{API}/nodes/{ids['node_id']}/{before[0]}"
        answer = await api.http.post(path, json=BODIES.get(before[1]), headers=admin)
        assert answer.status_code == 200, answer.text
    if route.name == "undismiss-attention":
        path = f"{API}/attention/{ids['item_id']}/dismiss"
        answer = await api.http.post(path, json={"note": "known"}, headers=admin)
        assert answer.status_code == 200, answer.text
    await prepare_rows(api, route, ids)


async def prepare_rows(api: Api, route: Route, ids: dict[str, str]) -> None:
    """What nobody can bring about over the API."""
    async with api.controller.database.write() as session:
        if route.name == "create-rule":
            await session.execute(delete(Rule))
        if route.name == "create-webhook":  # there are as many as there may be, by now
            await session.execute(delete(WebhookEndpoint))
        if route.name == "resume-rule":
            (await session.get_one(Rule, ids["rule_id"])).paused_at = datetime.now(UTC)
        if route.name == "resume-webhook":
            (await session.get_one(WebhookEndpoint, ids["webhook_id"])).paused_at = datetime.now(UTC)
        if route.name == "decide-job":
            (await session.get_one(Job, ids["job_id"])).state = JobState.INDETERMINATE
        if route.name in ("retry-job", "discard-job"):
            (await session.get_one(Job, ids["job_id"])).state = JobState.FAILED


BESIDE_OPERATIONS: Final = {"user.sign_in", "user.sign_out", "user.change_password"}
"""Audited, and no change of what is wanted: nobody is told."""
OUTSIDE_OF_THE_VERSION: Final = {
    "/healthz",
    "/readyz",
    "/install.sh",
    "/bundle/agent.tar.gz",
    "/bundle/releases/{file_name}",
    "/ca.pem",
    "/trust-bundle",
    "/branding/logo",
}
"""What probes and bare machines ask for, whatever the API's version."""
NOT_AUDITED: Final = {
    # Nothing of anybody's wishes changes: a look at a node, and a sign-out with a token, which stays valid.
    "check-account-drift", "check-node-drift", "ping-node", "bulk-ping-nodes", "logout", "check-node-health",
    "judge-package-update", "judge-account-transfer", "try-rule",
}  # fmt: skip
UNREADY: Final = {
    # What needs a machine's own request or a node's own answer first: tests/integration/fleet and test_sites.py do it.
    "login", "change-password", "enrol", "renew-certificate", "approve-node", "reject-node", "delete-node",
    "retry-site", "discard-site-change", "revoke-token", "adopt-drift", "release-node", "advance-ca-rotation",
    "rollback-ca-rotation",
    # What needs a mail server: test_password_reset.py and test_notices.py do it.
    "request-password-reset", "confirm-password-reset", "set-email", "test-notices",
    # What needs an authenticator: test_passkeys.py does it.
    "begin-passkey-proof", "login-with-passkey", "begin-passkey", "create-passkey", "update-passkey", "delete-passkey",
    # What only a person can do, signed in: test_second_factor.py and test_sign_in_security.py do it.
    "step-up", "begin-second-factor", "confirm-second-factor", "disable-second-factor", "renew-recovery-codes",
    "reset-second-factor", "revoke-session", "impersonate-user", "use-sign-in-link",
    # It would refuse the changes that follow: test_controller_maintenance.py does it.
    "start-maintenance", "end-maintenance",
}  # fmt: skip


async def test_every_change_when_no_agent_is_connected_is_accepted_as_a_job_and_audited(api: Api) -> None:
    """Nobody answers for the node, so whatever waited for it could not answer 202."""
    admin = await api.token("*")
    wrong = []
    for route in api.routes:
        if not route.is_change or route.name in UNREADY:
            continue
        ids = await api.fill(admin)
        await prepare(api, route, ids, admin)
        jobs, entries = await api.count(Job), await api.count(AuditEntry)
        answer = await api.call(route, ids, admin)
        found = await find_wrong(api, route, answer, await api.count(Job) - jobs, admin)
        if await api.count(AuditEntry) == entries and route.name not in NOT_AUDITED:
            found.append("no audit entry")
        wrong += [f"{route.name}: {line}" for line in found]

    assert wrong == []


async def test_every_change_when_audited_is_an_event_of_the_published_list(api: Api) -> None:
    """What a change is called in the audit log is the event that webhooks and screens are told of."""
    admin = await api.token("*")
    for route in api.routes:
        if route.is_change and route.name not in UNREADY:
            ids = await api.fill(admin)
            await prepare(api, route, ids, admin)
            await api.call(route, ids, admin)

    published = {event["name"] for event in (await api.http.get(f"{API}/event-types", headers=admin)).json()["items"]}
    async with api.controller.database.read() as session:
        actions = set(await session.scalars(select(AuditEntry.action).distinct()))
    assert actions - published - BESIDE_OPERATIONS == set()


async def test_every_route_when_listed_is_below_its_version(api: Api) -> None:
    paths = build_document(api.controller.app.litestar)["paths"]

    assert {path for path in paths if not path.startswith(f"{API}/")} == OUTSIDE_OF_THE_VERSION


async def find_wrong(api: Api, route: Route, answer: httpx.Response, new_jobs: int, admin: dict[str, str]) -> list[str]:
    if route.name in NO_JOB:
        good = answer.status_code in (200, 201, 204) and new_jobs == 0
        return [] if good else [f"{answer.status_code}, {new_jobs} jobs, {answer.text[:200]}"]
    if answer.status_code != 202:
        return [f"{answer.status_code} {answer.text[:200]}"]
    named = [job["id"] for job in answer.json()["jobs"]]
    if new_jobs == 0 and route.name in MAY_HAVE_NO_JOB:
        return []
    if not named or len(named) != new_jobs:
        return [f"names {len(named)} jobs and made {new_jobs}"]
    shown = await api.http.get(answer.headers["location"], headers=admin)
    return [] if shown.status_code == 200 and shown.json()["id"] == named[0] else ["Location leads nowhere"]
