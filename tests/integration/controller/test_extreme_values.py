"""Values at the edge of their types, in every field and parameter of every route: refused or taken, never a failure.

Each is one that some layer below cannot hold: an integer of 64 bits and one more, a time without a zone or at the end of
the calendar, half a surrogate pair, a text beyond any column. On both databases: they have other limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from litestar.routes import HTTPRoute
from msgspec import inspect

from controller.bootstrap import Controller
from tests.integration.controller.test_every_route import API, BODIES, Api, Route

LONG: Final = "x" * 300_000
INTEGERS: Final = (2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400, -1, -(2**31) - 1, -(2**63) - 1)
NUMBERS: Final = (1e308, -1e308, 5e-324, -0.0)
TIMES: Final = (
    "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2030-01-01T00:00:00", "2030-06-30T23:59:60Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
)  # fmt: skip
TEXTS: Final = (
    LONG,
    "",
    " ",
    "a\x00b",
    "\u202eevil",
    "\uff52\uff4f\uff4f\uff54",
    "\ud83d\ude00" * 40,
    "-1",
    "%00%2f..%2f",
    "=1+1",
    "a\r\nb: c",
)
NO_TEXTS: Final = (b'"\\ud800"', b'"a\\udfffb"', b"NaN", b"Infinity", b"1e999", b'{"a":' * 5000, b"[" * 200_000)
"""Not every program's JSON."""
PATHS: Final = (
    "%2e%2e%2f%2e%2e%2fetc",
    "..%2f..%2fetc%2fpasswd",
    "a%2Fb",
    "%00",
    "%ff%fe",
    "9" * 5000,
    "%F0%9F%98%80",
    "-1",
    "'--",
    "%0d%0aset-cookie:a=b",
)
WITHOUT_END: Final = frozenset({"enrol.facts"})
"""The wire's, and judged once a token was shown. This list may only shrink."""
ON_PURPOSE: Final = {"x-wcp-during-maintenance": "yes", "content-type": "application/json"}
"""One of the routes begins a maintenance, and those behind it are to be asked all the same."""
UNANSWERED: Final = frozenset({503})
"""Nobody plans on a node that is not there, or sends mails."""


@pytest.fixture
async def api(controller: Controller, anonymous_client: httpx.AsyncClient) -> Api:
    return Api(controller, anonymous_client)


def values_for(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[Any]:
    """What is at the edge of this type, once inside of each thing that holds others."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", ())
    for part in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from values_for(part, components)
    if "integer" in kinds:
        yield from INTEGERS
    if "number" in kinds:
        yield from (*NUMBERS, *INTEGERS)
    if "string" in kinds:
        yield from TIMES if schema.get("format") == "date-time" else TEXTS
    if "array" in kinds:
        yield from ([value] for value in values_for(schema.get("items", {}), components))
    if "object" in kinds and isinstance(schema.get("additionalProperties"), dict):
        yield from ({"accounts": value} for value in values_for(schema["additionalProperties"], components))
        yield {LONG: 1}
    for name, part in schema.get("properties", {}).items():
        yield from ({name: value} for value in values_for(part, components))


def bodies_of(route: Route, ids: Mapping[str, str], components: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The good body with one extreme value in it."""
    content = route.operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    good = json.loads(json.dumps(BODIES.get(route.name, {})))
    good = {name: value.format(**ids) if isinstance(value, str) else value for name, value in good.items()}
    schema = components[content["schema"]["$ref"].rpartition("/")[2]]
    for name, part in schema.get("properties", {}).items():
        for value in values_for(part, components):
            yield {**good, name: value}


def addresses_of(route: Route, ids: Mapping[str, str]) -> Iterator[str]:
    """The route's address with one extreme parameter, and once with each that changes where a path ends."""
    for parameter in route.operation.get("parameters", ()):
        schema = parameter["schema"]
        if parameter["in"] == "path":
            raw = [str(value) for value in INTEGERS] if schema.get("type") == "integer" else PATHS
            for text in raw:
                yield route.path.replace(f"{{{parameter['name']}}}", text).format(**ids)
        else:
            kinds = json.dumps(schema)
            texts = [quote(text[:5000], errors="surrogatepass") for text in TEXTS] + ["%ff", "%ed%a0%80"]
            edge = (
                [str(v) for v in INTEGERS]
                if '"integer"' in kinds
                else [quote(t) for t in TIMES]
                if "date" in kinds
                else texts
            )
            for text in edge:
                yield f"{route.path.format(**ids)}?{parameter['name']}={text}"


def is_failure(answer: httpx.Response) -> bool:
    return answer.status_code >= 500 and answer.status_code not in UNANSWERED


async def test_every_body_when_a_field_is_extreme_is_no_failure(api: Api) -> None:
    root = await api.token("*")
    ids = await api.fill(root)
    components = api.document()["components"]["schemas"]
    wrong: set[str] = set()
    sent = 0
    for route in api.routes:
        for body in bodies_of(route, ids, components):
            sent += 1
            raw = json.dumps(body).encode()
            answer = await api.http.request(
                route.method, route.path.format(**ids), content=raw, headers=root | ON_PURPOSE
            )
            if is_failure(answer):
                changed = {name: str(value)[:60] for name, value in body.items()}
                wrong.add(f"{route.name} {changed}: {answer.status_code}")

    assert "\n".join(sorted(wrong)) == ""
    assert sent > 1000


async def test_every_body_when_it_is_hardly_json_is_refused(api: Api) -> None:
    root = await api.token("*")
    ids = await api.fill(root)
    wrong: list[str] = []
    for route in api.routes:
        for raw in NO_TEXTS if "requestBody" in route.operation else ():
            answer = await api.http.request(
                route.method, route.path.format(**ids), content=raw, headers=root | ON_PURPOSE
            )
            if not 400 <= answer.status_code < 500:
                wrong.append(f"{route.name} {raw[:20]!r}: {answer.status_code}")

    assert "\n".join(wrong) == ""


async def test_every_address_when_a_parameter_is_extreme_is_no_failure(api: Api) -> None:
    root = await api.token("*")
    ids = await api.fill(root)
    wrong: list[str] = []
    for route in api.routes:
        for address in addresses_of(route, ids):
            body = b"{}" if "requestBody" in route.operation else None
            answer = await api.http.request(route.method, address, content=body, headers=root | ON_PURPOSE)
            if is_failure(answer):
                wrong.append(f"{route.method} {address[:120]}: {answer.status_code}")

    assert "\n".join(wrong) == ""
    assert API in address


def endless_of(kind: Any, path: str, seen: set[type]) -> Iterator[str]:
    """Dotted paths of lists and maps in a type of msgspec that say no end."""
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.StructType):
        if kind.cls not in seen:
            seen.add(kind.cls)
            for part in kind.fields:
                yield from endless_of(part.type, f"{path}.{part.name}", seen)
    elif isinstance(kind, inspect.UnionType):
        for part in kind.types:
            yield from endless_of(part, path, seen)
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType | inspect.DictType):
        if kind.max_length is None:
            yield path
        yield from endless_of(kind.value_type if isinstance(kind, inspect.DictType) else kind.item_type, path, seen)


def test_every_list_and_map_of_every_body_has_an_end(controller: Controller) -> None:
    """Two MiB hold a million of them: each is counted before anything is done for any."""
    handlers = {
        handler
        for route in controller.app.litestar.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.parsed_data_field is not None
    }
    found = {
        path
        for handler in handlers
        for path in endless_of(
            inspect.type_info(handler.parsed_data_field.annotation), handler.operation_id or "", set()
        )
    }

    assert sorted(found) == sorted(WITHOUT_END)
    assert len(handlers) > 60
