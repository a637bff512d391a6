"""The OpenAPI document: what Litestar derives from the types, completed with what it cannot know.

Every operation gets its error bodies (one shape for all, RFC 9457) and its security.
"""

from __future__ import annotations

import copy
import http
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Router
from litestar.enums import OpenAPIMediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Contact, License, SecurityScheme, Server, Tag

from controller.api.edge import SESSION_COOKIE
from controller.api.errors import PROBLEM_MEDIA_TYPE, TYPE_PREFIX, Problem
from controller.api.guards import PUBLIC
from shared.errors import BugError
from shared.version import __version__

_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch", "head", "options", "trace"})
_PROBLEM_REFERENCE: Final = {"$ref": "#/components/schemas/Problem"}

TAGS: Final[Mapping[str, str]] = {
    "auth": "Signing in and out; whoever asks.",
    "sessions": "Where one is signed in, and who tried to.",
    "second-factor": "Codes of a device beside the password.",
    "passkeys": "Keys of devices that let one in by a finger, a face or a PIN.",
    "policies": "What an administrator decides for the whole platform.",
    "security": "What holds for everybody who signs in.",
    "users": "Who signs in, in which role, and for whom.",
    "roles": "Sets of permissions of one's own making.",
    "permissions": "What one may or may not do.",
    "tokens": "API tokens: secrets for programs, with scopes of their own.",
    "packages": "What an account may use: processor, memory, processes, disk.",
    "limits": "What packages can limit and allow, and who keeps accounts to it.",
    "resellers": "Who sells packages to clients of their own, and how much they have to hand out.",
    "branding": "What the clients of a reseller see instead of ours.",
    "clients": "The people or companies that accounts belong to.",
    "accounts": "One unix user, its limits and everything it hosts, on one node.",
    "domains": "Names that an account holds; nobody else can use them.",
    "sites": "Web sites of an account.",
    "ssh-keys": "Public keys that open an account over SSH.",
    "nodes": "The machines of the fleet, their roles and modules.",
    "enrolment": "How a machine becomes a node.",
    "authority": "Whom nodes believe: the certificate authority and the keys that sign jobs.",
    "jobs": "What nodes were asked to do, and what became of it.",
    "parked": "What nodes could not bring about, and left as it was.",
    "notices": "What people are told of: their inbox, what they get by mail, and what became of the mails.",
    "attention": "Everything that a person should look at, with what may be done about it.",
    "drift": "What on a node is not as it was applied.",
    "modules": "The modules that this release has.",
    "releases": "Bundles of the agent that nodes may be updated to.",
    "rollouts": "Changes that go over many nodes in waves, and stop by themselves.",
    "processes": "The processes that a controller runs as.",
    "tasks": "What the controller does by itself, after a request or beside it.",
    "schedules": "What the controller does again and again, once in the whole of it.",
    "audit": "Who changed what; append-only, hash-chained.",
    "billing": "Who had what, and for how long.",
    "events": "What happens; every event with the schema of its data.",
    "rules": "What the controller does by itself when something happens.",
    "webhooks": "Events as signed HTTP requests to addresses of your choice.",
    "settings": "What the controller was started with.",
    "maintenance": "When the controller takes no changes.",
    "health": "For load balancers and monitoring.",
}
NOUNS: Final[Mapping[str, str]] = {
    "api-usage": "Who asked the API how often, and what it answered.",
    "ca-rotation": "The fleet's certificate authority, replaced step by step.",
    "deliveries": "Single messages of webhooks: what became of them, and sending them again.",
    "enrol": "What a machine asks for itself to become a node, and a node to stay one.",
    "enrolment-tokens": "Secrets with which one machine each becomes a node.",
    "event-types": "The kinds of events there are, with the schema of their data.",
    "features": "What packages can allow, and who keeps accounts to it.",
    "job-keys": "The keys that sign jobs for nodes.",
    "notice-mails": "Mails to people, and what became of them.",
    "notice-preferences": "Which notices one gets by mail.",
    "package-rollouts": "New versions of packages that go over accounts in waves, and stop by themselves.",
    "rate-limits": "How often who may ask.",
    "sign-ins": "Who signed in or tried to, and from where.",
    "usage": "What all accounts use of their limits.",
}
"""Nouns of commands whose operations stand among those of another tag."""

_DESCRIPTION: Final = """The only way into WCP360: both panels and the `wcp360` command use nothing else.

* **Sign in** with `POST /api/v1/auth/login`, or send an API token as `Authorization: Bearer wcp_...`.
* **Changes that touch a node** answer `202` with their jobs; follow `GET /api/v1/jobs/{id}` or the events.
* **`dry_run=true`** on a change answers the whole plan and writes nothing.
* **Lists** come in pages: repeat the call with `cursor` = `next_cursor` until it is null.
* **Errors** are problem documents (RFC 9457); programs compare `code`.
* **News** come as WebSocket messages at `/api/v1/events`: send `{"subscribe": ["jobs", "accounts"]}`.
"""

# What can go wrong with every operation: status, code, detail.
_EXAMPLES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("invalid_input", "cpu_percent must be 1 to 6400"),
    401: ("unauthenticated", "sign in first"),
    403: ("forbidden", "deploy pipeline may not write sites"),
    404: ("not_found", "there is no site 'example.com'"),
    409: ("conflict", "there is an account 'alice' already"),
    413: ("payload_too_large", "Request Entity Too Large"),
    415: ("unsupported_media_type", "send JSON (Content-Type: application/json), not 'text/plain'"),
    429: ("rate_limited", "too many attempts"),
    500: ("bug", "this is a mistake of the controller, not yours"),
    503: ("unavailable", "the database does not answer now"),
}
_WITH_BODY_ONLY: Final = frozenset({413, 415})


class CompleteSchema(JsonRenderPlugin):
    """Serves the completed document at /schema/openapi.json."""

    def __init__(self) -> None:
        super().__init__(path="/openapi.json", media_type=OpenAPIMediaType.OPENAPI_JSON)
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002 - Litestar calls it so
        """The document, rendered once: it cannot change while the process runs."""
        if self._rendered is None:
            self._rendered = render_document(request.app)
        return self._rendered


def openapi_config() -> OpenAPIConfig:
    """What Litestar has to know."""
    return OpenAPIConfig(
        title="WCP360",
        version=__version__,
        summary="Manage a fleet of hosting servers.",
        description=_DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        contact=Contact(name="WCP360"),
        servers=[Server(url="/", description="This controller")],
        tags=[Tag(name=name, description=text) for name, text in ({**TAGS, **NOUNS}).items()],
        security=[{"bearer": []}, {"cookie": []}],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", description="An API token (`wcp_...`) or the token of a sign-in."
                ),
                "cookie": SecurityScheme(
                    type="apiKey", name=SESSION_COOKIE, security_scheme_in="cookie", description="Set by signing in."
                ),
            }
        ),
        use_handler_docstrings=True,
        render_plugins=[CompleteSchema()],
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, opt={PUBLIC: True}),
    )


def build_document(app: Litestar) -> dict[str, Any]:
    """The completed document as JSON values."""
    document: dict[str, Any] = msgspec.to_builtins(app.openapi_schema.to_schema(), enc_hook=str)
    document = copy.deepcopy(document)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    (_, definitions) = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    schemas.update(definitions)
    handlers = _handlers(app)
    for operation in _operations(document):
        handler = handlers[operation["operationId"]]
        _add_plain_answer(operation, handler, schemas)
        _complete(operation, is_public=bool(handler.opt.get(PUBLIC)))
    return document


def render_document(app: Litestar) -> bytes:
    """The completed document as JSON text."""
    return msgspec.json.encode(build_document(app))


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        for method, operation in item.items():
            if method in _METHODS:
                yield operation


def _handlers(app: Litestar) -> dict[str, HTTPRouteHandler]:
    found = (handler for route in app.routes for handler in getattr(route, "route_handlers", ()))
    return {str(handler.operation_id): handler for handler in found if isinstance(handler, HTTPRouteHandler)}


def _add_plain_answer(operation: dict[str, Any], handler: HTTPRouteHandler, schemas: Mapping[str, Any]) -> None:
    """Litestar lets a handler's extra response (the plan of a dry run) hide the plain one of the same status."""
    if handler.status_code not in (handler.responses or {}):
        return
    returned = handler.parsed_fn_signature.return_type
    plain = returned.inner_types[0].annotation if returned.inner_types else returned.annotation
    if plain.__name__ not in schemas:
        raise BugError(f"{plain.__name__} of {handler.operation_id} is missing in the OpenAPI document")
    content = operation["responses"][str(handler.status_code)]["content"]["application/json"]
    content["schema"] = {"anyOf": [{"$ref": f"#/components/schemas/{plain.__name__}"}, content["schema"]]}


def _complete(operation: dict[str, Any], *, is_public: bool) -> None:
    operation["security"] = [] if is_public else [{"bearer": []}, {"cookie": []}]
    responses: dict[str, Any] = operation.setdefault("responses", {})
    for status in _EXAMPLES:
        # A public operation with a body takes credentials in it: a password, an enrolment token.
        has_body = "requestBody" in operation
        if (status in (401, 403) and is_public and not has_body) or (status in _WITH_BODY_ONLY and not has_body):
            continue
        if status == 503 and operation["operationId"] == "show-readiness":
            responses["503"] = {**responses["200"], "description": "A check fails"}
            continue
        responses[str(status)] = _error_response(status)
    if "204" in responses:
        responses["204"].pop("content", None)  # Litestar describes the missing body as null
    operation["responses"] = dict(sorted(responses.items()))


def _error_response(status: int) -> dict[str, Any]:
    code, detail = _EXAMPLES[status]
    title = http.HTTPStatus(status).phrase
    example = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "hint": None,
        "errors": [{"field": "cpu_percent", "message": detail}] if status == 400 else [],
        "request_id": "019300c8-5e7f-7c60-a1f0-0f3e6c0b9a57",
    }
    return {
        "description": title,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": _PROBLEM_REFERENCE, "example": example}},
    }
