"""Where webhooks may go: every address of a name is looked at, in whatever form it is written."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from controller.core.webhooks.sender import HttpSender
from controller.core.webhooks.targets import ForbiddenTargetError, Targets, is_public, unwrap
from shared.errors import InvalidInputError

FORBIDDEN = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "192.0.2.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
)  # fmt: skip


class Resolver:
    """Answers what it is told, one answer after the other; the last one again and again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_find_when_a_name_leads_into_a_private_network_refuses(address: str) -> None:
    targets = Targets(resolve=Resolver([address]))

    with pytest.raises(ForbiddenTargetError, match="may not reach"):
        await targets.find("https://innocent.example/hook")


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_is_public_when_the_address_is_in_the_internet_is_true(address: str) -> None:
    assert is_public(unwrap(ipaddress.ip_address(address)))


async def test_find_when_one_of_many_addresses_is_private_refuses() -> None:
    with pytest.raises(ForbiddenTargetError):
        await Targets(resolve=Resolver(["8.8.8.8", "127.0.0.1"])).find("https://innocent.example/")


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "[::1]"])
async def test_require_acceptable_when_the_host_is_loopback_in_disguise_refuses(host: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await Targets().require_acceptable(f"https://{host}/")

    assert caught.value.field == "url"


async def test_find_when_the_network_is_allowed_passes_also_without_tls() -> None:
    targets = Targets(["127.0.0.0/8"], resolve=Resolver(["127.0.0.1"]))

    assert (await targets.find("http://inside.example/")).addresses == ("127.0.0.1",)


async def test_find_when_plain_http_goes_into_the_internet_refuses() -> None:
    with pytest.raises(ForbiddenTargetError, match="https"):
        await Targets(resolve=Resolver(["8.8.8.8"])).find("http://example.com/")


async def test_send_when_the_name_leads_elsewhere_since_it_was_entered_connects_to_nobody() -> None:
    """DNS rebinding: public when it is checked at first, loopback when it is used."""
    connections: list[object] = []

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    targets = Targets(resolve=Resolver(["8.8.8.8"], ["127.0.0.1"]))
    async with server:
        url = await targets.require_acceptable(f"https://rebinding.example:{port}/")
        answer = await HttpSender(targets).send(url, {}, "{}")

    assert (answer.status, connections) == (None, [])
    assert "may not reach" in answer.error


async def test_send_when_the_address_was_checked_connects_to_it_and_names_the_host() -> None:
    """The resolver is asked once for each attempt, so nothing can change between check and connection."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    resolver = Resolver(["127.0.0.1"], ["10.9.9.9"])
    async with server:
        sent = await HttpSender(Targets(["127.0.0.0/8"], resolve=resolver)).send(
            f"http://inside.example:{port}/", {}, "{}"
        )

    assert sent.is_success
    assert f"host: inside.example:{port}".encode() in heads[0].lower()


async def test_send_when_the_name_does_not_exist_says_so() -> None:
    async def fail(_host: str, _port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    answer = await HttpSender(Targets(resolve=fail)).send("https://nowhere.example/", {}, "{}")

    assert "not known" in answer.error
