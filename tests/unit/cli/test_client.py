from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.client import ApiClient, tls_context
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.profile import Profile
from cli.redact import redact
from tests.unit.cli.fake_api import CONTROLLER, DOCUMENT

TOKEN = "wcp_very-secret-token"


def client_for(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> ApiClient:
    return ApiClient(Profile(CONTROLLER, "", TOKEN), transport=httpx.MockTransport(answer), **options)


def failure_of(response: httpx.Response | Exception) -> CommandFailedError:
    def answer(_request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    with pytest.raises(CommandFailedError) as raised:
        client_for(answer).request("GET", "/api/v1/accounts")
    return raised.value


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ExitCode.INVALID_INPUT),
        (401, ExitCode.NOT_ALLOWED),
        (403, ExitCode.NOT_ALLOWED),
        (404, ExitCode.NOT_FOUND),
        (405, ExitCode.BUG),
        (409, ExitCode.CONFLICT),
        (413, ExitCode.INVALID_INPUT),
        (415, ExitCode.INVALID_INPUT),
        (429, ExitCode.UNAVAILABLE),
        (500, ExitCode.BUG),
        (502, ExitCode.UNAVAILABLE),
        (503, ExitCode.UNAVAILABLE),
        (504, ExitCode.UNAVAILABLE),
    ],
)
def test_request_when_answer_is_a_problem_has_its_exit_status(status: int, expected: ExitCode) -> None:
    failure = failure_of(httpx.Response(status, json={"detail": "why", "hint": "do this", "code": "c"}))

    assert (failure.exit_code, failure.message, failure.hint) == (expected, "why", "do this")
    assert failure.problem == {"detail": "why", "hint": "do this", "code": "c"}


def test_request_when_fields_are_wrong_names_them() -> None:
    errors = [{"field": "name", "message": "is too long"}, {"field": "memory_bytes", "message": "must be positive"}]

    failure = failure_of(httpx.Response(400, json={"detail": "2 fields are wrong", "errors": errors}))

    assert failure.message == "name: is too long; memory_bytes: must be positive"


@pytest.mark.parametrize("errors", [None, [], ["text"], [{"field": "", "message": "whole body"}], [{"message": "m"}]])
def test_request_when_no_field_is_named_tells_the_detail(errors: Any) -> None:
    assert failure_of(httpx.Response(400, json={"detail": "why", "errors": errors})).message == "why"


@pytest.mark.parametrize("content", [b"", b"<html>Bad gateway</html>", b"[1]", b"null", b'"text"', b"\xff"])
def test_request_when_error_is_no_problem_document_still_tells_the_status(content: bytes) -> None:
    failure = failure_of(httpx.Response(502, content=content))

    assert failure.message == "the controller answered 502"
    assert failure.exit_code is ExitCode.UNAVAILABLE


def test_request_when_not_signed_in_tells_how() -> None:
    assert failure_of(httpx.Response(401, json={"detail": "sign in first"})).hint == "Sign in with `wcp360 login`."


def test_request_when_it_is_our_bug_tells_the_request_id() -> None:
    assert "r-42" in (failure_of(httpx.Response(500, json={"detail": "bug", "request_id": "r-42"})).hint or "")


@pytest.mark.parametrize("status", [200, 302])
def test_request_when_answer_is_a_web_page_asks_whether_it_is_a_controller(status: int) -> None:
    failure = failure_of(httpx.Response(status, html="<html>"))

    assert "is not JSON" in failure.message
    assert "WCP360 controller" in (failure.hint or "")


def test_request_when_answer_is_empty_is_none() -> None:
    assert client_for(lambda _: httpx.Response(204)).request("DELETE", "/api/v1/accounts/1") is None


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            httpx.ConnectError("[Errno 111] Connection refused"),
            "reached: Connection refused",
            "Is the controller running",
        ),
        (httpx.ConnectTimeout("timed out"), "it does not answer in time", "Is the controller running"),
        (httpx.ReadError(""), "ReadError", "Is the controller running"),
        (
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "certificate is of no CA that is trusted here",
            "--ca-file",
        ),
        (
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch"),
            "its certificate is for another name",
            "Use the address",
        ),
        (httpx.InvalidURL("bad"), "bad", "is the address right"),
    ],
)
def test_request_when_controller_cannot_be_reached_says_why_and_what_to_do(
    error: Exception, message: str, hint: str
) -> None:
    failure = failure_of(error)

    assert failure.exit_code is ExitCode.UNAVAILABLE
    assert message in failure.message
    assert hint in (failure.hint or "")


@pytest.mark.parametrize(
    ("profile", "error", "hint"),
    [
        (
            Profile("https://c.test", "/tmp/ca.pem"),
            "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed",
            "Is /tmp/ca.pem the CA",
        ),
        (Profile("http://127.0.0.1:8360"), "Server disconnected", "is it https://127.0.0.1:8360?"),
    ],
)
def test_request_when_the_profile_looks_wrong_names_what_in_it(profile: Profile, error: str, hint: str) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(error)

    with pytest.raises(CommandFailedError) as raised:
        ApiClient(profile, transport=httpx.MockTransport(answer)).request("GET", "/api/v1/accounts")

    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("code", "told", "hint"),
    [
        ("unauthenticated", "POST /api/v1/auth/login, or send 'Authorization: Bearer wcp_...'.", "`wcp360 login`"),
        ("wrong_credentials", None, "`wcp360 auth request-password-reset`"),
        ("invalid_token", "Sign in again, or create another token.", "create another token"),
    ],
)
def test_request_when_not_let_in_tells_the_command(code: str, told: str | None, hint: str) -> None:
    assert hint in (failure_of(httpx.Response(401, json={"code": code, "hint": told})).hint or "")


def test_request_when_the_message_names_its_field_says_it_once() -> None:
    errors = [{"field": "limit", "message": "limit must be between 1 and 200"}]

    assert failure_of(httpx.Response(400, json={"errors": errors})).message == "limit must be between 1 and 200"


def test_request_when_verbose_shows_it_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"username": "admin", "password": "hunter2", "nested": [{"client_secret": "hunter3"}], "note": TOKEN}
    client = client_for(
        lambda _: httpx.Response(200, json={"token": "hunter4"}, headers={"x-request-id": "r-7"}), is_verbose=True
    )

    client.request("POST", "/api/v1/auth/login", query={"dry_run": "true", "token": "hunter5"}, body=body)

    shown = capsys.readouterr()
    assert shown.out == ""
    assert not any(secret in shown.err for secret in ("hunter", TOKEN))
    assert f"> POST {CONTROLLER}/api/v1/auth/login" in shown.err
    assert '"dry_run": "true"' in shown.err
    assert '"username": "admin"' in shown.err
    assert "< 200 in" in shown.err
    assert "r-7" in shown.err


def test_request_when_not_verbose_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    client_for(lambda _: httpx.Response(200, json={})).request("GET", "/api/v1/accounts")

    assert capsys.readouterr() == ("", "")


def test_request_when_signed_in_sends_the_token_to_its_controller_only() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"location": "https://elsewhere.test/"}, json={})

    client_for(answer).request("GET", "/api/v1/accounts")

    assert [request.url.host for request in seen] == ["controller.test"]
    assert seen[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("token", ["two\nlines", "ümlaut"])
def test_client_when_token_cannot_be_one_says_so(token: str) -> None:
    with pytest.raises(CommandFailedError, match="no token has") as raised:
        ApiClient(Profile(CONTROLLER, "", token))

    assert token not in raised.value.message


def test_client_when_no_controller_is_named_tells_how_to_sign_in() -> None:
    with pytest.raises(CommandFailedError, match="no controller is named") as raised:
        ApiClient(Profile())

    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), ("no certificate", "holds no certificate")])
def test_tls_context_when_ca_file_is_wrong_names_it(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(CommandFailedError, match=message) as raised:
        tls_context(str(path))

    assert str(path) in raised.value.message


def test_tls_context_when_made_verifies_names() -> None:
    context = tls_context("")

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


class CountingAnswers:
    def __init__(self) -> None:
        self.count = 0
        self.answer: Any = DOCUMENT

    def __call__(self, _request: httpx.Request) -> httpx.Response:
        self.count += 1
        return httpx.Response(200, json=self.answer)


def test_document_when_asked_twice_is_fetched_once() -> None:
    answers = CountingAnswers()

    for _ in range(2):
        client_for(answers).load_document()

    assert answers.count == 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"paths": {"/api/v1/x": {"get": {}}}}', ""])
def test_document_when_cache_is_damaged_is_fetched_again(own_home: Path, damage: str) -> None:
    answers = CountingAnswers()
    client_for(answers).load_document()
    next((own_home / ".cache" / "wcp360").iterdir()).write_text(damage)

    assert client_for(answers).load_document().find("accounts", "list") is not None
    assert answers.count == 2


def test_document_when_cache_cannot_be_written_still_works(own_home: Path) -> None:
    (own_home / ".cache").write_text("a file where the directory should be")

    assert client_for(CountingAnswers()).load_document().operations


def test_document_when_it_is_none_asks_whether_it_is_a_controller() -> None:
    answers = CountingAnswers()
    answers.answer = {"hello": "world"}

    with pytest.raises(CommandFailedError, match="has no OpenAPI document"):
        client_for(answers).load_document()


def test_document_when_controllers_differ_has_a_cache_each() -> None:
    answers = CountingAnswers()
    for name in ("https://a-b.test", "https://a.b.test"):
        ApiClient(Profile(name), transport=httpx.MockTransport(answers)).load_document()

    assert answers.count == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"new_password": "x", "name": "y"}, {"new_password": "***", "name": "y"}),
        ({"a": [{"api_token": "x"}]}, {"a": [{"api_token": "***"}]}),
        ({"token": None}, {"token": None}),
        ({"must_change_password": True}, {"must_change_password": True}),
        ("say wcp_abcdef please", "say *** please"),
        (5, 5),
    ],
)
def test_redact_when_value_holds_secrets_masks_them(value: Any, expected: Any) -> None:
    assert redact(value) == expected
