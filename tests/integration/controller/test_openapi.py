"""The OpenAPI document is complete, and its page needs nobody else's server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from controller.api.openapi import TAGS

METHODS = {"get", "put", "post", "delete", "patch"}
PUBLIC = {
    "login",
    "begin-passkey-proof",
    "use-sign-in-link",
    "login-with-passkey",
    "request-password-reset",
    "confirm-password-reset",
    "enrol",
    "renew-certificate",
    "show-health",
    "show-readiness",
    "fetch-install-script",
    "fetch-agent-bundle",
    "fetch-release-bundle",
    "fetch-authority",
    "fetch-trust-bundle",
    "show-branding",
    "fetch-logo",
}


@pytest.fixture
async def document(anonymous_client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await anonymous_client.get("/schema/openapi.json")
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from (operation for method, operation in item.items() if method in METHODS)


async def test_document_is_openapi_31_with_title_and_security(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "WCP360"
    assert set(document["components"]["securitySchemes"]) == {"bearer", "cookie"}


async def test_every_operation_has_an_id_a_summary_a_description_and_known_tags(document: dict[str, Any]) -> None:
    for operation in operations(document):
        name = operation["operationId"]
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), name
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name
        assert set(operation["tags"]) <= set(TAGS), name


async def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]

    assert len(names) == len(set(names))


async def test_every_operation_says_how_it_can_fail(document: dict[str, Any]) -> None:
    for operation in operations(document):
        name, responses = operation["operationId"], operation["responses"]
        wanted = {"400", "404", "409", "429", "500", "503"} | (set() if name in PUBLIC else {"401", "403"})
        assert wanted <= set(responses), name
        for status, response in responses.items():
            if int(status) >= 400 and (name, status) != ("show-readiness", "503"):
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
                assert content["example"]["status"] == int(status)


async def test_every_operation_but_the_public_ones_needs_credentials(document: dict[str, Any]) -> None:
    public = {operation["operationId"] for operation in operations(document) if operation["security"] == []}

    assert public <= PUBLIC


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    for name in re.findall(r"#/components/schemas/([^'\"]+)", str(document)):
        assert name in schemas


async def test_every_request_body_has_described_or_named_fields(document: dict[str, Any]) -> None:
    bodies = [operation["requestBody"] for operation in operations(document) if "requestBody" in operation]

    assert bodies
    for body in bodies:
        assert set(body["content"]) == {"application/json"}


class References(HTMLParser):
    """Collects every address of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline_scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found += [value for key, value in attrs if key in ("src", "href") and value]
        self.inline_scripts += tag == "script" and "src" not in named


async def test_docs_page_loads_everything_from_this_server(anonymous_client: httpx.AsyncClient) -> None:
    page = await anonymous_client.get("/docs")
    parser = References()
    parser.feed(page.text)

    assert page.headers["content-type"].startswith("text/html")
    assert parser.found
    assert parser.inline_scripts == 0
    assert "unsafe-eval" not in page.headers["content-security-policy"]
    for address in parser.found:
        assert address.startswith("/docs/assets/")
        assert (await anonymous_client.get(address)).status_code == 200


async def test_bare_address_leads_to_the_docs(anonymous_client: httpx.AsyncClient) -> None:
    answer = await anonymous_client.get("/")

    assert (answer.status_code, answer.headers["location"]) == (302, "/docs")


async def test_docs_initializer_reads_our_own_document(anonymous_client: httpx.AsyncClient) -> None:
    script = (await anonymous_client.get("/docs/assets/initializer.js")).text

    assert "/schema/openapi.json" in script
    assert "://" not in script


@pytest.mark.parametrize("name", ["README.md", "..%2fswagger-ui%2fLICENSE", "nothing.js"])
async def test_docs_asset_that_is_not_listed_answers_404(anonymous_client: httpx.AsyncClient, name: str) -> None:
    assert (await anonymous_client.get(f"/docs/assets/{name}")).status_code == 404
