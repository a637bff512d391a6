"""A large hoster's database: 10,000 accounts of 200 resellers and 2,000 clients, and what years of work leave beside them.

Rows go in as they would lie there, table by table; a column that nobody asks by gets any value of its type. The audit
log is tests.bench.audit's. Not here: asking (tests.bench.questions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import JSON, Boolean, Date, DateTime, Enum, Integer, LargeBinary, Table, insert

from controller.bootstrap import METADATA
from controller.core.accounts.models import AccountState
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret
from controller.core.context import Role
from controller.db.base import UtcDateTime, new_id
from controller.db.engine import Database
from controller.fleet.models import NodeState
from controller.fleet.rollouts.models import RolloutState
from controller.jobs.states import JobState
from shared.protocol.job import JobMode, Semantics
from tests.integration.query_plans import settle

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
ACCOUNTS: Final = 10_000
RESELLERS: Final = 200
CLIENTS: Final = 2000
CHUNK: Final = 5000
MIB: Final = 2**20
Row = dict[str, Any]
Rows = Iterator[Row]


@dataclass(frozen=True)
class Sizes:
    """How many rows of what; `share` of the large hoster."""

    share: float

    def __call__(self, whole: int) -> int:
        return max(20, int(self.share * whole))


@dataclass(frozen=True, kw_only=True)
class Hoster:
    """What one can ask by, and the secrets of API tokens to ask with."""

    ids: Mapping[str, str]
    """Name of a path parameter or filter to a value that has rows."""
    secrets: Mapping[Role, str]


class Ids:
    """Ids of one kind of thing, in the order in which they were made."""

    def __init__(self, count: int) -> None:
        """Make as many."""
        self.all: Final = [new_id() for _ in range(count)]

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, number: int) -> str:
        """Round and round."""
        return self.all[number % len(self.all)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.all)


class Cast:
    """Everybody and everything with an id that others name."""

    def __init__(self, sizes: Sizes) -> None:
        """Draw the ids."""
        self.sizes: Final = sizes
        self.nodes, self.resellers, self.clients = Ids(sizes(100)), Ids(sizes(RESELLERS)), Ids(sizes(CLIENTS))
        self.packages, self.versions = Ids(sizes(400)), Ids(sizes(2000))
        self.accounts = Ids(sizes(ACCOUNTS))
        self.users = Ids(len(self.resellers) + 2 * len(self.clients))
        self.jobs, self.tokens, self.webhooks = Ids(sizes(40_000)), Ids(sizes(3000)), Ids(sizes(200))
        self.rules = Ids(sizes(200))
        self.rollouts, self.package_rollouts, self.releases = Ids(sizes(40)), Ids(sizes(100)), Ids(sizes(30))
        self.admin = new_id()

    def owner(self, number: int) -> Row:
        """Columns of the tenant that a user belongs to: resellers' people first, then clients', then team members."""
        first, second = len(self.resellers), len(self.resellers) + len(self.clients)
        if number < first:
            return {"role": Role.RESELLER.value, "reseller_id": self.resellers[number], "client_id": None}
        role = Role.CLIENT if number < second else Role.MEMBER
        return {"role": role.value, "reseller_id": None, "client_id": self.clients[number - first]}


def _tenants(cast: Cast) -> Iterator[tuple[str, Rows]]:
    caps = {"accounts": 100, "disk_bytes": 10 * 2**40, "mailboxes": 20_000, "databases": 5000}
    yield (
        "resellers",
        (
            {"id": one, "name": f"Reseller {n}", "caps": caps | {"accounts": 100 if n % 20 else 10}}
            for n, one in enumerate(cast.resellers)
        ),
    )
    yield (
        "clients",
        (
            {"id": one, "name": f"Client {n}", "email": f"c{n}@example.com", "reseller_id": cast.resellers[n]}
            for n, one in enumerate(cast.clients)
        ),
    )
    yield "roles", ({"name": f"role{n}", "level": "client", "permissions": ["sites:read"]} for n in range(100))
    yield "users", ({"id": one, "username": f"user{n}"} | cast.owner(n) for n, one in enumerate(cast.users))
    yield "users", iter([{"id": cast.admin, "username": "large-admin", "role": Role.ROOT.value}])
    counted = {"sites": 20, "domains": 40, "mailboxes": 50, "databases": 20, "traffic_bytes": 2**40}
    limits = {key: {"soft": None, "hard": hard} for key, hard in counted.items()}
    terms = {"disk_bytes": 50 * 2**30, "memory_bytes": 2**30, "cpu_percent": 100, "limits": limits}
    yield (
        "packages",
        (
            {"id": one, "name": f"Plan {n}", "reseller_id": None if n % 2 else cast.resellers[n], "version": 5} | terms
            for n, one in enumerate(cast.packages)
        ),
    )
    yield (
        "package_versions",
        (
            {"id": one, "package_id": cast.packages[n], "number": 1 + n // len(cast.packages)} | terms
            for n, one in enumerate(cast.versions)
        ),
    )


def _accounts(cast: Cast) -> Iterator[tuple[str, Rows]]:
    def state(number: int) -> AccountState:
        return AccountState.SUSPENDED if number % 50 == 0 else AccountState.ACTIVE

    yield (
        "accounts",
        (
            {
                "id": one, "name": f"acc{n}", "client_id": cast.clients[n], "package_id": cast.packages[n],
                "node_id": cast.nodes[n], "desired_generation": 1, "uid": 20_001 + n // len(cast.nodes), "state": state(n), "observed_at": NOW,
            }
            for n, one in enumerate(cast.accounts)
        ),
    )  # fmt: skip
    owners = list(enumerate(cast.accounts))
    members = islice(cast.users, len(cast.resellers) + len(cast.clients), None)
    yield "account_members", ({"account_id": cast.accounts[n], "user_id": one} for n, one in enumerate(members))
    yield "account_labels", ({"account_id": one, "key": "plan", "value": f"p{n % 500}"} for n, one in owners)
    for kind in "ab":
        yield "domains", ({"account_id": one, "name": f"{kind}{n}.example"} for n, one in owners)
    yield "sites", ({"account_id": one, "domain": f"a{n}.example", "document_root": "public"} for n, one in owners)
    yield "ssh_keys", ({"account_id": one, "name": f"key{n}", "fingerprint": f"SHA256:{n}"} for n, one in owners)
    yield (
        "account_proofs",
        (
            {"account_id": one, "resource": f"r{kind}", "limit_name": "x", "wanted": 1, "enforced": 1}
            for kind in range(4)
            for _, one in owners
        ),
    )
    yield "account_figures", ({"account_id": one, "disk_bytes": MIB} for _, one in owners)
    yield "overuse_cases", ({"account_id": one} for n, one in owners if n % 100 == 0)


def _usage(cast: Cast) -> Iterator[tuple[str, Rows]]:
    keys = ("disk_bytes", "inodes", "domains", "sites")
    for key in keys:
        yield (
            "account_usage",
            (
                {
                    "account_id": one, "limit_key": key, "used": MIB * (n % 90), "peak": MIB * 90, "soft": MIB * 80,
                    "hard": MIB * 100, "near_since": NOW if n % 200 == 0 else None,
                    "over_since": NOW if n % 500 == 0 else None,
                }
                for n, one in enumerate(cast.accounts)
            ),
        )  # fmt: skip
    today = NOW.date()
    for back in range(10):
        for key in keys[:2]:
            yield (
                "usage_days",
                (
                    {
                        "account_id": one, "package_id": cast.packages[n], "limit_key": key,
                        "day": today - timedelta(days=back), "last": n, "peak": n,
                    }
                    for n, one in enumerate(cast.accounts)
                ),
            )  # fmt: skip


def _fleet_of_nodes(cast: Cast) -> Iterator[tuple[str, Rows]]:
    nodes = list(enumerate(cast.nodes))
    yield (
        "nodes",
        (
            {"id": one, "name": f"node{n}", "state": NodeState.ACTIVE, "roles": ["web"], "is_connected": n % 20 != 0}
            for n, one in nodes
        ),
    )
    for name in ("web", "php", "ssh", "account"):
        yield "node_modules", ({"node_id": one, "name": name} for _, one in nodes)
        yield "module_health", ({"node_id": one, "name": name, "is_healthy": n % 50 != 0} for n, one in nodes)
    yield "enrolment_tokens", ({"token_id": f"t{n}", "approval": "manual"} for n in range(cast.sizes(500)))
    yield "releases", ({"id": one, "number": n, "build": f"b{n}"} for n, one in enumerate(cast.releases))
    yield (
        "rollouts",
        (
            {
                "id": one,
                "state": RolloutState.HALTED if n % 20 == 0 else RolloutState.FINISHED,
                "waves": [1],
            }
            for n, one in enumerate(cast.rollouts)
        ),
    )
    yield "rollout_nodes", ({"rollout_id": one, "node_id": node} for one in cast.rollouts for node in cast.nodes)


def _changes(cast: Cast) -> Iterator[tuple[str, Rows]]:
    yield (
        "package_rollouts",
        (
            {
                "id": one, "package_id": cast.packages[n], "waves": [1],
                "state": RolloutState.HALTED if n % 20 == 0 else RolloutState.FINISHED,
            }
            for n, one in enumerate(cast.package_rollouts)
        ),
    )  # fmt: skip
    yield (
        "package_rollout_accounts",
        (
            {
                "rollout_id": one, "account_id": account, "version_before_id": cast.versions[0],
                "state": "succeeded",
            }
            for one in cast.package_rollouts
            for account in islice(cast.accounts, 200)
        ),
    )  # fmt: skip


def _work(cast: Cast) -> Iterator[tuple[str, Rows]]:
    yield (
        "jobs",
        (
            {
                "id": one, "node_id": cast.nodes[n], "account_id": cast.accounts[n], "action": "converge",
                "resource_key": f"account/acc{n % len(cast.accounts)}", "mode": JobMode.APPLY,
                "semantics": Semantics.CONVERGE, "request_id": f"r{n}", "actor": "user/1", "label": "converge",
                "state": JobState.FAILED if n % 2000 == 0 else JobState.SUCCEEDED,
            }
            for n, one in enumerate(cast.jobs)
        ),
    )  # fmt: skip
    yield (
        "job_transitions",
        ({"job_id": one, "to_state": state} for one in cast.jobs for state in ("queued", "running")),
    )
    yield (
        "tasks",
        (
            {"kind": "mail", "dedup_key": f"k{n}", "state": "failed" if n % 1000 == 0 else "succeeded"}
            for n in range(cast.sizes(20_000))
        ),
    )
    yield (
        "drift_findings",
        (
            {"node_id": cast.nodes[n], "subject": f"account/{cast.accounts[n]}", "key": f"k{n}"}
            for n in range(cast.sizes(2000))
        ),
    )
    yield (
        "parked_resources",
        (
            {
                "node_id": cast.nodes[n],
                "account_id": cast.accounts[n],
                "subject": f"account/{n}",
                "key": f"k{n}",
                "kind": "site",
            }
            for n in range(cast.sizes(1000))
        ),
    )
    yield (
        "webhook_endpoints",
        ({"id": one, "url": f"https://h{n}.example", "events": ["*"]} for n, one in enumerate(cast.webhooks)),
    )
    yield (
        "webhook_deliveries",
        (
            {
                "endpoint_id": cast.webhooks[n],
                "event": "account.update",
                "state": "failed" if n % 500 == 0 else "succeeded",
            }
            for n in range(cast.sizes(50_000))
        ),
    )


def _reactions(cast: Cast) -> Iterator[tuple[str, Rows]]:
    yield (
        "rules",
        (
            {
                "id": one, "name": f"rule{n}", "events": ["account.update"], "maker_name": "x", "grants": [],
                "action": {"type": "converge_account"},
                "owner": f"reseller/{cast.resellers[n]}",
            }
            for n, one in enumerate(cast.rules)
        ),
    )  # fmt: skip
    yield (
        "rule_runs",
        (
            {
                "rule_id": cast.rules[n], "event_id": f"e{n}", "account_id": cast.accounts[n],
                "state": "failed" if n % 500 == 0 else "done",
            }
            for n in range(cast.sizes(50_000))
        ),
    )  # fmt: skip
    yield (
        "notices",
        ({"user_id": cast.users[n], "kind": "limits", "source": f"s{n}"} for n in range(cast.sizes(50_000))),
    )
    yield (
        "notice_mails",
        (
            {"user_id": cast.users[n], "kind": "limits", "state": "dead" if n % 500 == 0 else "sent"}
            for n in range(cast.sizes(50_000))
        ),
    )


def _sign_ins(cast: Cast) -> Iterator[tuple[str, Rows]]:
    until = NOW + timedelta(days=3650)
    yield (
        "sessions",
        ({"user_id": cast.users[n], "secret_hash": f"s{n}", "expires_at": until} for n in range(cast.sizes(5000))),
    )
    yield (
        "sign_in_attempts",
        (
            {"user_id": cast.users[n], "username": f"user{n % len(cast.users)}", "is_unusual": n % 1000 == 0}
            for n in range(cast.sizes(100_000))
        ),
    )
    yield "passkeys", ({"user_id": one, "credential_id": f"c{n}"} for n, one in enumerate(cast.users))
    yield (
        "api_tokens",
        (
            {"id": one, "user_id": cast.users[n], "secret_hash": f"t{n}", "scopes": ["*"]}
            for n, one in enumerate(cast.tokens)
        ),
    )
    hours = [NOW - timedelta(hours=n) for n in range(24)]
    yield (
        "api_usage",
        (
            {"kind": "token", "subject": one, "user_id": cast.users[n], "period": "hour", "starts_at": hour}
            for hour in hours
            for n, one in enumerate(cast.tokens)
        ),
    )


PARTS: Final = (_fleet_of_nodes, _tenants, _accounts, _usage, _changes, _work, _reactions, _sign_ins)
"""In the order in which rows name each other."""


def _any_value(kind: Any) -> Any:
    if isinstance(kind, Enum) and kind.enum_class is not None:
        return next(iter(kind.enum_class))
    for types, value in (
        ((UtcDateTime, DateTime), NOW), (Date, NOW.date()), (Boolean, False), (Integer, 1), (JSON, {}),
        (LargeBinary, b""),
    ):  # fmt: skip
        if isinstance(kind, types):
            return value
    return "x"


def _complete(table: Table, row: Row) -> Row:
    """The row with a value for each column that must have one; values of enumerations as the enumeration."""
    for column in table.columns:
        if column.name in row:
            if (
                isinstance(column.type, Enum)
                and isinstance(row[column.name], str)
                and column.type.enum_class is not None
            ):
                row[column.name] = column.type.enum_class(row[column.name])
        elif not (column.nullable or column.default is not None or column.server_default is not None):
            row[column.name] = _any_value(column.type)
    return row


async def _insert(database: Database, name: str, rows: Rows) -> None:
    table = METADATA.tables[name]
    while chunk := [_complete(table, row) for row in islice(rows, CHUNK)]:
        async with database.write() as session:
            await session.execute(insert(table), chunk)


async def fill(database: Database, share: float) -> Hoster:
    """Write all of it into an empty database."""
    cast = Cast(Sizes(share))
    for part in PARTS:
        for name, rows in part(cast):
            await _insert(database, name, rows)
    askers = {Role.ROOT: cast.admin, Role.RESELLER: cast.users[0], Role.CLIENT: cast.users[len(cast.resellers)]}
    secrets = {role: f"{TOKEN_PREFIX}large-{role.value}" for role in askers}
    tokens: list[Row] = [
        {"user_id": user, "name": "large", "scopes": ["*"], "secret_hash": hash_secret(secrets[role])}
        for role, user in askers.items()
    ]
    await _insert(database, "api_tokens", iter(tokens))
    await settle(database)
    return Hoster(ids=_name_ids(cast), secrets=secrets)


def _name_ids(cast: Cast) -> dict[str, str]:
    """Everything belongs to the first account: its client, its reseller, its package, its node."""
    return {
        "account_id": cast.accounts[0], "client_id": cast.clients[0], "reseller_id": cast.resellers[0],
        "package_id": cast.packages[0], "node_id": cast.nodes[0], "user_id": cast.users[0], "job_id": cast.jobs[0],
        "rule_id": cast.rules[0], "token_id": cast.tokens[0], "webhook_id": cast.webhooks[0], "rollout_id": cast.rollouts[0],
        "package_rollout_id": cast.package_rollouts[0], "release_id": cast.releases[0],
    }  # fmt: skip
