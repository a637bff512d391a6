"""Talks to the controller's public port before and while the machine is enrolled. Synchronous, stdlib only.

The very first request cannot verify anything: it fetches the authority's certificate, which is then compared with the
pin in the token. Nothing secret is sent before that.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from agent.link.setup_errors import ExitCode, SetupError

TIMEOUT_SECONDS: Final = 20.0
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_CLOCK_SKEW_SECONDS: Final = 120.0
USER_AGENT: Final = "wcp-agent"


class Endpoint(msgspec.Struct, frozen=True):
    """Where a URL points."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes
    date: str = ""
    retry_after: str = ""


class _Problem(msgspec.Struct, frozen=True):
    """The part of an RFC 9457 body that we use."""

    code: str = ""
    detail: str = ""
    hint: str | None = None


def parse_endpoint(url: str, *, scheme: str) -> Endpoint:
    """Host and port of `https://host:port/...` or `wss://...`.

    Raises:
        SetupError: It is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != scheme or not parts.hostname or parts.username is not None:
        raise SetupError(ExitCode.USAGE, f"{url[:200]!r} is not a URL such as {scheme}://panel.example.com:8360")
    return Endpoint(parts.hostname, port)


class ControllerClient:
    """HTTPS to one controller."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self.endpoint = parse_endpoint(url, scheme="https")
        self._clock = clock

    def fetch_ca_unverified(self) -> bytes:
        """GET /ca.pem from whoever answers; the caller compares it with the pin. Compares the clocks, too.

        Raises:
            SetupError: Nobody answers, the answer is none, or the clocks differ too much for certificates to work.
        """
        answer = self._get_unverified("/ca.pem")
        require_clock_in_step(answer.date, now=self._clock())
        if answer.status != http.client.OK:
            raise SetupError(
                ExitCode.BAD_ANSWER, f"{self.endpoint} answered HTTP {answer.status} to /ca.pem: is it the controller?"
            )
        return answer.body

    def fetch_unverified(self, path: str) -> bytes:
        """GET from whoever answers: only for what proves itself.

        Raises:
            SetupError: Nobody answers, or the answer is none.
        """
        answer = self._get_unverified(path)
        if answer.status != http.client.OK:
            raise SetupError(ExitCode.BAD_ANSWER, f"{self.endpoint} answered HTTP {answer.status} to {path}")
        return answer.body

    def _get_unverified(self, path: str) -> Answer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return self._request(context, "GET", path, None)

    def post_json(self, path: str, body: bytes, *, ca_pem: str) -> Answer:
        """POST with verification by exactly this authority.

        Raises:
            SetupError: Nobody answers, or the server's certificate is not good.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=ca_pem)
        return self._request(context, "POST", path, body)

    def _request(self, context: ssl.SSLContext, method: str, path: str, body: bytes | None) -> Answer:
        connection = http.client.HTTPSConnection(
            self.endpoint.host, self.endpoint.port, timeout=TIMEOUT_SECONDS, context=context
        )
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(
                status=response.status,
                body=response.read(MAX_ANSWER_BYTES),
                date=response.headers.get("Date", ""),
                retry_after=response.headers.get("Retry-After", ""),
            )
        except (OSError, http.client.HTTPException) as error:
            raise explain_connection_failure(error, self.endpoint) from error
        finally:
            connection.close()


def explain_connection_failure(error: Exception, endpoint: Endpoint) -> SetupError:
    """The clear sentence for a failed request."""
    unreachable = ExitCode.CONTROLLER_UNREACHABLE
    if isinstance(error, ssl.SSLCertVerificationError):
        return SetupError(
            ExitCode.WRONG_NAME,
            f"the certificate of {endpoint} is not good: {error.verify_message}",
            hint="Use the address that the controller was set up with (its public_names).",
        )
    if isinstance(error, socket.gaierror):
        return SetupError(
            unreachable, f"the name {endpoint.host} cannot be resolved", hint="Check DNS and /etc/resolv.conf."
        )
    if isinstance(error, TimeoutError):
        return SetupError(
            unreachable,
            f"{endpoint} does not answer",
            hint=f"Is port {endpoint.port} open in the firewall between here and the controller?",
        )
    if isinstance(error, ConnectionRefusedError):
        return SetupError(
            unreachable, f"port {endpoint.port} of {endpoint.host} is closed", hint="Is the controller running?"
        )
    return SetupError(unreachable, f"{endpoint} cannot be reached: {error}")


def require_clock_in_step(date_header: str, *, now: float) -> None:
    """Compare the answer's Date with our clock.

    Raises:
        SetupError: They differ by more than 120 s: certificates and signed jobs would be refused by their times.
    """
    try:
        server_time = parsedate_to_datetime(date_header).timestamp()
    except (TypeError, ValueError):
        return  # no Date: nothing to compare with
    skew_seconds = now - server_time
    if abs(skew_seconds) > MAX_CLOCK_SKEW_SECONDS:
        direction = "ahead of" if skew_seconds > 0 else "behind"
        raise SetupError(
            ExitCode.CLOCK_OFF,
            f"this machine's clock is {abs(skew_seconds):.0f} s {direction} the controller's",
            hint="Set it (timedatectl set-ntp true) and paste the command again.",
        )


def require_port_open(endpoint: Endpoint) -> None:
    """Connect to the gateway's port once, without saying anything.

    Raises:
        SetupError: It is closed or filtered.
    """
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        what = "does not answer" if isinstance(error, TimeoutError) else "is closed"
        raise SetupError(
            ExitCode.GATEWAY_UNREACHABLE,
            f"the agents' port {endpoint.port} of {endpoint.host} {what}",
            hint="Open it in the firewall; the agent keeps trying by itself.",
        ) from error


# The controller's stable codes, with what the process ends with. Source: controller/fleet, enrolment; docs/errors.md.
_EXIT_OF_CODE: Final = {
    "token_used": ExitCode.TOKEN_USED,
    "token_expired": ExitCode.TOKEN_EXPIRED,
    "token_unknown": ExitCode.TOKEN_UNKNOWN,
    "token_malformed": ExitCode.TOKEN_MALFORMED,
    "wrong_network": ExitCode.WRONG_NETWORK,
    "enrolment_rejected": ExitCode.REJECTED,
    "csr_not_expected": ExitCode.NOT_PRESTAGED,
}
_EXIT_OF_STATUS: Final = {401: ExitCode.TOKEN_UNKNOWN, 403: ExitCode.WRONG_NETWORK}


def explain_refusal(answer: Answer) -> SetupError:
    """The controller's own words for an answer that is no success, with the exit code that belongs to them."""
    problem = _read_problem(answer.body)
    exit_code = _EXIT_OF_CODE.get(problem.code) or _EXIT_OF_STATUS.get(answer.status, ExitCode.BAD_ANSWER)
    detail = problem.detail or f"the controller answered HTTP {answer.status}"
    return SetupError(exit_code, detail, hint=problem.hint, context={"status": answer.status, "code": problem.code})


def _read_problem(body: bytes) -> _Problem:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem()


def is_worth_waiting(answer: Answer) -> bool:
    """The controller is busy or restarting: the same request may succeed later."""
    return answer.status in (429, 502, 503, 504)


def parse_json(answer: Answer, kind: type[Any]) -> Any:
    """Decode a success.

    Raises:
        SetupError: It is not what the protocol says.
    """
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.MsgspecError as error:
        raise SetupError(
            ExitCode.BAD_ANSWER,
            f"the controller's answer makes no sense: {error}",
            hint="Are the controller and this agent of releases that fit?",
        ) from error
