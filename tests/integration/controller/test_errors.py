"""Every answer that is no success is a problem document, and says nothing about our insides."""

from __future__ import annotations

import dataclasses
import io
import json

import httpx
import pytest
from litestar import get
from sqlalchemy.exc import OperationalError

from controller.api.app import Application, create_app
from controller.api.guards import PUBLIC
from controller.bootstrap import Controller
from controller.logs import configure_logging

LOGIN = "/api/v1/auth/login"


def require_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:wcp360:error:{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


async def test_unknown_address_answers_404(anonymous_client: httpx.AsyncClient) -> None:
    require_problem(await anonymous_client.get("/api/v1/nothing/here"), 404, "not_found")


async def test_wrong_method_answers_405_with_allow(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.put(LOGIN)

    require_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"username": "admin"}', "password"),
        ('{"username": "admin", "password": 5}', "password"),
        ('{"username": "admin", "password": "x", "color": "red"}', "color"),
        ('{"username": "", "password": "x"}', "username"),
        ('["admin"]', ""),
        ("{", ""),
        ("", ""),
        ('{"username": "a\\u0000b", "password": "x"}', "username"),
        ('{"username": "\\ud800", "password": "x"}', ""),
        ("[" * 100_000, ""),
    ],
)
async def test_bad_body_answers_400_and_names_the_field(
    anonymous_client: httpx.AsyncClient, body: str, field: str
) -> None:
    answer = await anonymous_client.post(LOGIN, content=body, headers={"content-type": "application/json"})

    problem = require_problem(answer, 400, "invalid_input")
    assert [error["field"] for error in problem["errors"]] == [field]  # type: ignore[attr-defined]


async def test_bad_query_answers_400_and_names_the_parameter(client: httpx.AsyncClient) -> None:
    problem = require_problem(await client.get("/api/v1/tokens?limit=many"), 400, "invalid_input")

    assert [error["field"] for error in problem["errors"]] == ["limit"]  # type: ignore[attr-defined]


async def test_parameter_that_is_given_twice_answers_400_and_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/parked?account_id=a&limit=5&account%5Fid=b")

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "account_id")


async def test_form_instead_of_json_answers_415(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.post(LOGIN, data={"username": "admin", "password": "x"})

    require_problem(answer, 415, "unsupported_media_type")


async def test_huge_body_answers_413(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.post(LOGIN, json={"username": "x" * (2 * 1024 * 1024 + 1), "password": "x"})

    require_problem(answer, 413, "payload_too_large")


async def test_anonymous_with_a_bad_body_learns_only_that_it_is_anonymous(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.post("/api/v1/tokens", json={"color": "red"})

    require_problem(answer, 401, "unauthenticated")


async def test_request_id_when_sane_is_kept(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.get("/healthz", headers={"x-request-id": "trace-0001.a_b"})

    assert answer.headers["x-request-id"] == "trace-0001.a_b"


@pytest.mark.parametrize("given", ["short", "a b c d e f g h", "x" * 65, 'quote"quote"'])
async def test_request_id_when_odd_is_replaced(anonymous_client: httpx.AsyncClient, given: str) -> None:
    answer = await anonymous_client.get("/healthz", headers={"x-request-id": given})

    assert answer.headers["x-request-id"] != given


async def test_every_answer_has_the_security_headers(anonymous_client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/api/v1/nothing", "/api/v1/auth/me"):
        headers = (await anonymous_client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


@get("/boom", opt={PUBLIC: True})
async def boom() -> None:
    secret = "hunter2-in-a-local-variable"
    raise RuntimeError(f"internal detail {len(secret)}")


@get("/locked", opt={PUBLIC: True})
async def locked() -> None:
    raise OperationalError("SELECT secret_column", {}, Exception("database is locked"))


def broken_app(controller: Controller) -> Application:
    return create_app(dataclasses.replace(controller.parts, root_routes=(boom, locked)))


@pytest.mark.parametrize("form", ["json", "text"])
async def test_our_mistake_answers_500_without_insides_and_logs_the_traceback(
    controller: Controller, form: str
) -> None:
    stream = io.StringIO()
    configure_logging("info", form, stream)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app=broken_app(controller).asgi)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answer = await http.get("/boom", headers={"authorization": "Bearer wcp_very-secret"})
    configure_logging("warning", "json")

    problem = require_problem(answer, 500, "bug")
    assert "internal detail" not in json.dumps(problem)
    log = stream.getvalue()
    assert "RuntimeError: internal detail 27" in log
    assert str(problem["request_id"]) in log
    assert "hunter2" not in log
    assert "very-secret" not in log


async def test_busy_database_answers_503_without_the_statement(controller: Controller) -> None:
    transport = httpx.ASGITransport(app=broken_app(controller).asgi)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        answer = await http.get("/locked")

    problem = require_problem(answer, 503, "unavailable")
    assert "secret_column" not in json.dumps(problem)
    assert answer.headers["retry-after"]
