"""Sends one message to one address: no redirects, no proxies, one time limit, and little of the answer is read."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
import msgspec

from controller.core.webhooks.targets import ForbiddenTargetError, Target, Targets
from shared.version import __version__

TIMEOUT_SECONDS: Final = 15.0
"""For name, connection, request and answer together; the Standard Webhooks specification advises 15 to 30."""
CONNECT_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 1024
"""So much of an answer is read and kept."""
_ADDRESSES_MAX: Final = 3


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt."""

    status: int | None = None
    """None: there was no answer."""
    error: str = ""
    body: str = ""
    milliseconds: int = 0
    retry_after_seconds: int = 0
    """What the other side asked for."""

    @property
    def is_success(self) -> bool:
        """Whether the other side took the message."""
        return self.status is not None and 200 <= self.status < 300


class Sender(Protocol):
    """Sends messages."""

    async def send(self, url: str, headers: dict[str, str], body: str) -> Answer:
        """Never raises for what the other side does."""
        ...


class HttpSender:
    """The real one."""

    def __init__(self, targets: Targets, *, tls: ssl.SSLContext | None = None) -> None:
        self._targets = targets
        self._tls = tls

    async def send(self, url: str, headers: dict[str, str], body: str) -> Answer:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._send(await self._targets.find(url), headers, body)
        except TimeoutError:
            answer = Answer(error=f"no answer within {TIMEOUT_SECONDS:.0f} s")
        except ForbiddenTargetError as error:
            answer = Answer(error=str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            answer = Answer(error=f"{type(error).__name__}: {error}"[:300])
        return msgspec.structs.replace(answer, milliseconds=round((time.perf_counter() - started) * 1000))

    async def _send(self, target: Target, headers: dict[str, str], body: str) -> Answer:
        limits = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
        async with httpx.AsyncClient(
            timeout=limits, follow_redirects=False, trust_env=False, verify=self._tls or ssl.create_default_context()
        ) as client:
            addresses = target.addresses[:_ADDRESSES_MAX]
            for address in addresses[:-1]:
                try:
                    return await self._send_to(client, target, address, headers, body)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
            return await self._send_to(client, target, addresses[-1], headers, body)

    async def _send_to(
        self, client: httpx.AsyncClient, target: Target, address: str, headers: dict[str, str], body: str
    ) -> Answer:
        """Connect to the checked address; name and certificate stay those of the URL."""
        host = f"[{address}]" if ":" in address else address
        port = f":{target.url.port}" if target.url.port else ""
        url = target.url._replace(netloc=f"{host}{port}").geturl()
        sent = {
            "host": target.url.netloc,
            "content-type": "application/json",
            "user-agent": f"wcp360/{__version__}",
            "accept-encoding": "identity",
            **headers,
        }
        # SNI takes names only (RFC 6066 section 3); the certificate of an address is compared with the address itself.
        options = {} if _is_address(target.host) else {"sni_hostname": target.host}
        request = client.build_request("POST", url, content=body.encode(), headers=sent, extensions=options)
        request.extensions.setdefault("timeout", client.timeout.as_dict())
        response = await client.send(request, stream=True)
        try:
            text = await _read_some(response)
        finally:
            await response.aclose()
        error = "" if 200 <= response.status_code < 300 else f"it answered {response.status_code}"
        return Answer(
            status=response.status_code, error=error, body=text, retry_after_seconds=_retry_after_of(response)
        )


@dataclass(frozen=True, slots=True)
class SenderByOwner:
    """One for the platform's endpoints, one for those of resellers and clients, who are let into fewer networks."""

    platform: Sender
    tenants: Sender

    def of(self, *, is_tenant: bool) -> Sender:
        """What sends to endpoints of such an owner."""
        return self.tenants if is_tenant else self.platform


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def _read_some(response: httpx.Response) -> str:
    raw = b""
    async for chunk in response.aiter_raw():  # raw: whatever it claims to be compressed with stays compressed
        raw += chunk
        if len(raw) >= ANSWER_BYTES_MAX:
            break
    text = raw[:ANSWER_BYTES_MAX].decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _retry_after_of(response: httpx.Response) -> int:
    """Seconds; the form with a date is rare and is not read."""
    text = response.headers.get("retry-after", "")
    return min(int(text), 86_400) if text.isdecimal() and len(text) < 10 else 0
