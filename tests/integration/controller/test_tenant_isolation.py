"""Nobody sees or changes another tenant's rows: every route of the API, as every role, against a foreign tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx
import pytest

from controller.bootstrap import Controller
from controller.core.context import Role
from controller.core.tenancy.criteria import tenant_entities
from controller.core.tenancy.sight import Sight
from controller.db.base import Model
from tests.bench.questions import VALUES
from tests.integration.controller.tenants import TENANT_ROLES, Tenant, sell
from tests.integration.controller.test_every_route import AUDIT, BODIES, Api, Route

OF_THE_PLATFORM: Final = frozenset(
    {"name", "policy", "log", "number", "kid", "username", "node_id", "session_id", "schedule_name", "kind"}
)
"""Path parameters whose value says nothing about a tenant."""
PUBLIC: Final = frozenset({"login", "enrol", "renew-certificate"})
"""They answer who shows a secret of their own in the body."""
WITHOUT_CASE: Final[frozenset[str]] = frozenset()
"""Routes that this walk cannot judge. It stays empty."""
TENANT_READS: Final = frozenset({
    "diff-package-versions", "download-reseller-logo", "explain-job", "export-reseller-usage", "export-usage", "list-account-drift",
    "list-account-usage", "list-account-usage-history", "list-accounts", "list-attention", "list-audit",
    "list-clients", "list-domains", "list-event-types", "list-features", "list-jobs", "list-limits", "list-members",
    "list-notice-preferences", "list-notices",
    "list-package-fields", "list-package-rollout-accounts", "list-package-rollouts", "list-package-usage",
    "list-package-usage-history", "list-package-versions", "list-packages", "list-parked", "list-passkeys",
    "list-permissions", "list-reseller-days", "list-reseller-usage", "list-resellers", "list-roles", "list-sessions",
    "list-sign-ins", "list-sites", "list-ssh-keys", "list-token-usage", "list-tokens", "list-usage", "list-users",
    "read-site-log", "show-account", "show-account-manifest", "show-account-proofs", "show-branding", "show-client",
    "show-deletion", "show-domain", "show-email", "show-job", "show-me", "show-package", "show-package-rollout",
    "show-package-version", "show-parked", "show-php-settings", "show-reseller", "show-reseller-branding", "show-role",
    "show-second-factor", "show-site", "show-ssh-key", "show-user", "list-webhook-deliveries", "list-webhooks",
    "show-delivery", "show-webhook", "list-rule-runs", "list-rules", "show-rule", "show-notice",
})  # fmt: skip
"""What a tenant may ask for at all, of their own rows; everything else is the platform's. A new route is here on purpose."""
PLATFORM_TABLES: Final = frozenset({
    # Nobody but the platform's people has a permission for them.
    "api_usage", "api_usage_addresses", "attention_dismissals", "audit_archive_parts", "audit_archives", "audit_checkpoints",
    "audit_contradictions", "audit_head", "audit_witness_certificates", "audit_witnesses", "rate_limits", "ca_rotations", "controller_maintenance", "drift_checks",
    "drift_findings", "enrolment_tokens", "enrolments", "module_health", "node_certificates", "node_heartbeats",
    "node_holds", "node_inboxes", "node_modules", "node_samples", "node_sequences", "node_signals", "nodes", "platform_policies", "processes",
    "releases", "rollout_nodes", "rollouts", "schedules", "security_policies", "tasks", "trust_bundles",
    "notice_cursors", "noticed_items",
    # Read by the id of the very user who asks.
    "sign_in_links", "api_tokens", "passkey_challenges", "passkeys", "password_history", "password_resets", "recovery_codes",
    "second_factors", "sessions", "sign_in_attempts", "notices", "notice_mails", "notice_mail_items",
    "notice_preferences",
})  # fmt: skip


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
async def api(controller: Controller, anonymous_client: httpx.AsyncClient) -> Api:
    return Api(controller, anonymous_client)


@pytest.fixture
async def tenants(api: Api) -> tuple[Tenant, Tenant]:
    """Ours and a foreign one."""
    admin = await api.token("*")
    ours, foreign = await api.fill(admin), await api.fill(admin)
    database = api.controller.database
    return await sell(database, ours, "ours"), await sell(database, foreign, "foreign")


def secrets_of(tenant: Tenant) -> dict[str, str]:
    """What nobody else may learn."""
    own = {name: value for name, value in tenant.ids.items() if name not in OF_THE_PLATFORM}
    return own | {"reseller": tenant.reseller_id} | {f"user {role.value}": id_ for role, id_ in tenant.user_ids.items()}


def names_foreign(route: Route) -> bool:
    """Whether the call says whose row it means."""
    return "{" in route.path or "_id}" in str(BODIES.get(route.name, ""))


async def test_every_route_when_it_names_a_foreign_row_is_refused_and_changes_nothing(
    api: Api, tenants: tuple[Tenant, Tenant]
) -> None:
    ours, foreign = tenants
    before = await api.rows(but=AUDIT)
    wrong: list[str] = []
    walked: set[str] = set()
    for role in TENANT_ROLES:
        for route in api.routes:
            if not names_foreign(route) or route.name in PUBLIC:
                continue
            walked.add(route.name)
            answer = await api.call(route, foreign.ids, ours.headers[role])
            wrong += [f"{role.value} {route.name}: {reason}" for reason in find_leak(route, answer, foreign)]

    assert wrong == []
    assert await api.rows(but=AUDIT) == before
    assert len(walked) > 90


async def test_every_list_when_a_tenant_asks_shows_nothing_of_another(api: Api, tenants: tuple[Tenant, Tenant]) -> None:
    ours, foreign = tenants
    wrong: list[str] = []
    for role in TENANT_ROLES:
        for route in api.routes:
            if names_foreign(route) or route.method != "get" or route.name in WITHOUT_CASE:
                continue
            for query in ({}, *filters_of(route, foreign.ids)):
                answer = await api.http.get(route.path, params=query, headers=ours.headers[role])
                shown = [
                    what
                    for what, value in secrets_of(foreign).items()
                    if value in answer.text.replace(_given(query), "")
                ]
                if shown or answer.status_code >= 500:
                    wrong.append(f"{role.value} {route.name} {query}: {answer.status_code} shows {shown}")

    assert wrong == []


@pytest.mark.parametrize("role", TENANT_ROLES, ids=lambda role: role.value)
async def test_routes_of_the_platform_when_a_tenant_reads_them_are_refused(
    api: Api, tenants: tuple[Tenant, Tenant], role: Role
) -> None:
    """An archive of the audit log is of nobody's account, and holds everybody's entries."""
    headers = tenants[0].headers[role]

    answered = {
        route.name
        for route in api.routes
        if route.method == "get" and (await api.call(route, tenants[0].ids, headers)).status_code not in (401, 403)
    }

    assert answered - TENANT_READS == set()
    assert role is not Role.RESELLER or answered == TENANT_READS


@pytest.mark.parametrize("role", TENANT_ROLES, ids=lambda role: role.value)
async def test_own_rows_when_a_tenant_asks_are_shown(api: Api, tenants: tuple[Tenant, Tenant], role: Role) -> None:
    """The walk above would be satisfied by an API that shows nobody anything."""
    ours, _foreign = tenants
    missing = []
    for path, key in (
        ("accounts", "account_id"), ("sites", "site_id"), ("domains", "domain_id"), ("clients", "client_id"),
        ("packages", "package_id"), ("jobs", "job_id"), ("parked", "parked_id"), ("users", "user_id"),
    ):  # fmt: skip
        if path == "users" and role is Role.MEMBER:
            continue  # nobody's business but the client's
        listed = await api.http.get(f"/api/v1/{path}", headers=ours.headers[role])
        shown = await api.http.get(f"/api/v1/{path}/{ours.ids[key]}", headers=ours.headers[role])
        if listed.status_code != 200 or ours.ids[key] not in listed.text or shown.status_code != 200:
            missing.append(f"{path}: {listed.status_code} {shown.status_code} {shown.text[:150]}")

    assert missing == []


@pytest.mark.parametrize("role", TENANT_ROLES, ids=lambda role: role.value)
async def test_events_when_a_tenant_listens_are_of_its_own_rows_only(
    api: Api, tenants: tuple[Tenant, Tenant], role: Role
) -> None:
    admin = await api.token("*")
    identities, operations = api.controller.authenticator.identities, api.controller.operations
    secret = tenants[0].headers[role]["authorization"].removeprefix("Bearer ")
    identity = await identities.find_identity(secret)
    assert identity is not None
    with api.controller.publisher.subscribe() as heard:
        heard.topics = frozenset({"sites", "clients", "packages", "nodes"})
        for number, tenant in enumerate(tenants):
            site = {"account_id": tenant.ids["account_id"], "domain": f"new{number}.example"}
            await api.make("sites", site, admin)
            for path, key in (("clients", "client_id"), ("packages", "package_id"), ("nodes", "node_id")):
                body = {"drift_policy": "repair"} if path == "nodes" else {"name": f"renamed {number}"}
                await api.http.patch(f"/api/v1/{path}/{tenant.ids[key]}", json=body, headers=admin)
        notices = [notice for _ in range(8) if (notice := await heard.next(5.0)) is not None]

    sight = Sight(operations, identity.actor)
    seen = [notice for notice in notices if await sight.sees(notice)]

    assert len(notices) == 8
    assert [notice.event for notice in seen] == ["site.create", "client.update", "package.update"]
    assert seen[0].data["account_id"] == tenants[0].ids["account_id"]
    assert seen[1].data["id"] == tenants[0].ids["client_id"]
    assert seen[2].data["id"] == tenants[0].ids["package_id"]


@pytest.mark.parametrize("role", TENANT_ROLES, ids=lambda role: role.value)
async def test_directives_of_the_web_server_when_a_tenant_gives_them_are_refused(
    api: Api, tenants: tuple[Tenant, Tenant], role: Role
) -> None:
    """They reach the server that all tenants share."""
    site = {"account_id": tenants[0].ids["account_id"], "domain": "own.example", "extra_directives": "gzip off;"}

    answer = await api.http.post("/api/v1/sites", json=site, headers=tenants[0].headers[role])

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_every_table_when_listed_belongs_to_tenants_or_to_the_platform() -> None:
    """A new table is in one of the two, on purpose."""
    tables = {mapper.local_table.name for mapper in Model.registry.mappers}  # type: ignore[attr-defined]  # a Table, here
    narrowed = {entity.__tablename__ for entity in tenant_entities()}

    assert tables - narrowed - PLATFORM_TABLES == set()
    assert narrowed & PLATFORM_TABLES == set()
    assert tables >= PLATFORM_TABLES


def find_leak(route: Route, answer: httpx.Response, foreign: Tenant) -> list[str]:
    """What is wrong with this answer to a tenant who named another's row."""
    if answer.status_code >= 500:
        return [f"{answer.status_code} {answer.text[:200]}"]
    if answer.status_code < 400 and (not route.is_change or not is_bulk(route)):
        return [f"{answer.status_code} {answer.text[:200]}"]
    given = set(_ids_in(route, foreign.ids))
    shown = [what for what, value in secrets_of(foreign).items() if value in answer.text and value not in given]
    return [f"shows {shown}"] if shown else []


def is_bulk(route: Route) -> bool:
    """It answers for each item; nothing must have changed all the same."""
    return any(isinstance(value, list) for value in BODIES.get(route.name, {}).values())


def filters_of(route: Route, ids: Mapping[str, str]) -> list[dict[str, str]]:
    """Each filter, for somebody else's row where it can name one, or for everything that it knows."""
    return [
        {one["name"]: value}
        for one in route.operation.get("parameters", [])
        if one["in"] == "query"
        for value in ([ids[one["name"]]] if one["name"] in ids else _values_of(one))
    ]


def _values_of(parameter: Mapping[str, Any]) -> Iterable[str]:
    schema = parameter["schema"]
    kinds = schema.get("oneOf", [schema])
    if any(kind.get("type") == "boolean" for kind in kinds):
        return ("true", "false")
    enums = [value for kind in kinds for value in kind.get("enum", ()) if value is not None]
    return enums or VALUES.get(parameter["name"], ())


def _given(query: Mapping[str, str]) -> str:
    """What the answer may repeat, because the question said it."""
    return next(iter(query.values()), "\0")


def _ids_in(route: Route, ids: Mapping[str, str]) -> list[str]:
    text = route.path + str(BODIES.get(route.name, ""))
    return [value for name, value in ids.items() if f"{{{name}}}" in text]
