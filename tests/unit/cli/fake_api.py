"""A small API with a document of its own: enough nouns to show every shape of command. It refuses what the real one would."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx

CONTROLLER = "https://controller.test:8360"
TOKEN = "wcp_test-token-1234567890"
PASSWORD = "correct horse"
NULLABLE_BYTES = {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "description": "Memory."}

ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 50}}
CURSOR = {"name": "cursor", "in": "query", "schema": {"type": ["string", "null"]}}
DRY_RUN = {"name": "dry_run", "in": "query", "schema": {"type": "boolean", "default": False}}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": ref(name)}}}


def operation(name: str, *parameters: dict[str, Any], schema: str | None = None) -> dict[str, Any]:
    raw: dict[str, Any] = {"operationId": name, "summary": name.replace("-", " "), "parameters": list(parameters)}
    return {**raw, "requestBody": body(schema)} if schema else raw


def nouns(group: str, schema: str) -> dict[str, Any]:
    one = group.removesuffix("s")
    return {
        f"/api/v1/{group}": {
            "get": operation(f"list-{group}", LIMIT, CURSOR),
            "post": operation(f"create-{one}", DRY_RUN, schema=schema),
        },
        f"/api/v1/{group}/{{id}}": {
            "get": operation(f"show-{one}", ID),
            "patch": operation(f"update-{one}", ID, DRY_RUN, schema=f"{schema}Update"),
            "delete": operation(f"delete-{one}", ID, DRY_RUN),
        },
    }


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "tags": [{"name": "accounts", "description": "One unix user.\nMore."}],
    "components": {
        "schemas": {
            "Level": {"type": "string", "enum": ["low", "high"]},
            "Package": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "description": "Unique name."},
                    "memory_bytes": NULLABLE_BYTES,
                    "cpu_percent": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "php_versions": {"oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
                    "level": {"oneOf": [ref("Level"), {"type": "null"}]},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "is_default": {"type": "boolean"},
                },
            },
            "PackageUpdate": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "memory_bytes": NULLABLE_BYTES},
            },
            "Account": {
                "type": "object",
                "required": ["name", "package_id"],
                "properties": {"name": {"type": "string"}, "package_id": {"type": "string"}},
            },
            "AccountUpdate": {
                "type": "object",
                "required": ["package_id"],
                "properties": {"package_id": {"type": "string"}},
            },
            "Login": {
                "type": "object",
                "required": ["username", "password"],
                "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
            },
        }
    },
    "paths": {
        **nouns("packages", "Package"),
        **nouns("accounts", "Account"),
        "/api/v1/accounts/{id}/modules/{name}": {
            "get": operation("show-account-module", ID, {**ID, "name": "name"}),
        },
        "/api/v1/jobs": {"get": operation("list-jobs", LIMIT, CURSOR)},
        "/api/v1/jobs/{id}": {"get": operation("show-job", ID)},
        "/api/v1/auth/login": {"post": operation("login", schema="Login")},
        "/api/v1/auth/logout": {"post": operation("logout")},
        "/healthz": {"get": operation("show-health")},
    },
}


class FakeApi:
    """Keeps what it is told; each change of an account is a job that succeeds at the second look."""

    def __init__(self) -> None:
        self.document = DOCUMENT
        self.rows: dict[str, dict[str, dict[str, Any]]] = {"packages": {}, "accounts": {}, "jobs": {}}
        self.requests: list[httpx.Request] = []
        self.job_error: dict[str, Any] | None = None
        self.bulk_answer: dict[str, Any] | None = None
        self.is_down = False
        self.transport = httpx.MockTransport(self.answer)

    def add(self, group: str, **values: Any) -> str:
        row_id = str(uuid.uuid4())
        self.rows[group][row_id] = {"id": row_id, **values}
        return row_id

    def last_body(self) -> Any:
        return json.loads(next(item for item in reversed(self.requests) if item.method != "GET").content)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.is_down:
            raise httpx.ConnectError("[Errno 111] Connection refused")
        words = request.url.path.strip("/").split("/")
        if request.url.path == "/schema/openapi.json":
            return httpx.Response(200, json=self.document)
        if words[:3] == ["api", "v1", "auth"]:
            return self.sign_in(request) if words[3] == "login" else httpx.Response(204)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "sign in first")
        return self.answer_noun(request, words[2], words[3:])

    def sign_in(self, request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["password"] != PASSWORD:
            return problem(401, "unauthenticated", "wrong name or password")
        return httpx.Response(200, json={"token": TOKEN, "expires_at": None, "user": {"must_change_password": True}})

    def answer_noun(self, request: httpx.Request, group: str, rest: list[str]) -> httpx.Response:
        if rest == ["bulk"] and self.bulk_answer is not None:
            return httpx.Response(202, json=self.bulk_answer)
        rows = self.rows[group]
        if rest and rest[0] not in rows:
            return problem(404, "not_found", f"there is no {group} {rest[0]!r}")
        if request.method == "GET":
            return self.read(request, group, rest)
        values = json.loads(request.content) if request.content else {}
        if values.get("name") == "../":
            return problem(400, "invalid_input", "bad", [{"field": "name", "message": "must be a name"}])
        if any(row["name"] == values.get("name") for row in rows.values()):
            return problem(409, "conflict", f"there is one named {values['name']!r} already")
        if request.url.params.get("dry_run") == "true":
            return httpx.Response(200, json=plan_of(group, values))
        return self.write(request, group, rest, values)

    def read(self, request: httpx.Request, group: str, rest: list[str]) -> httpx.Response:
        rows = self.rows[group]
        if not rest:
            start, limit = int(request.url.params.get("cursor", 0)), int(request.url.params.get("limit", 50))
            items = list(rows.values())
            cursor = str(start + limit) if start + limit < len(items) else None
            return httpx.Response(200, json={"items": items[start : start + limit], "next_cursor": cursor})
        row = rows[rest[0]]
        if group == "jobs" and row["state"] == "queued":
            rows[rest[0]] = {**row, "state": "failed" if self.job_error else "succeeded", "error": self.job_error}
        return httpx.Response(200, json=row)

    def write(self, request: httpx.Request, group: str, rest: list[str], values: dict[str, Any]) -> httpx.Response:
        rows = self.rows[group]
        if request.method == "DELETE":
            row = rows.pop(rest[0])
        elif rest:
            row = rows[rest[0]] = {**rows[rest[0]], **values}
        else:
            row = rows[self.add(group, **values)]
        if group != "accounts":
            return httpx.Response(204) if request.method == "DELETE" else httpx.Response(201, json=row)
        job_id = self.add("jobs", state="queued", label=f"Account {row['name']}", error=None)
        return httpx.Response(202, json={"resource": row, "jobs": [self.rows["jobs"][job_id]]})


def problem(status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None) -> httpx.Response:
    raw = {"status": status, "code": code, "detail": detail, "errors": errors or [], "request_id": "r-1", "hint": None}
    return httpx.Response(status, json=raw, headers={"content-type": "application/problem+json"})


def plan_of(group: str, values: dict[str, Any]) -> dict[str, Any]:
    step = {
        "resource": "account/alice",
        "action": "write_file",
        "kind": "create",
        "target": "/etc/nginx/wcp360/sites/alice.conf",
        "reason": "it is missing",
        "diff": "+server {\n-old",
        "undo": "",
        "is_irreversible": True,
    }
    change = {
        "action": f"{group}.update",
        "target": f"{group}/1",
        "target_name": values.get("name", "alice"),
        "before": {"memory_bytes": 1024},
        "after": {"memory_bytes": 2048},
    }
    node = {
        "node": "n1",
        "subject": "account/alice",
        "changes": [step],
        "reloads": ["nginx.service"],
        "risks": ["none"],
    }
    return {"changes": [change], "nodes": [{**node, "error": None, "resources": []}]}
