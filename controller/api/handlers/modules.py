"""The modules of this release, and those of each node, over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_accepted
from controller.core.operations import FleetContext, Operations, Outcome
from controller.fleet.fleet import Fleet
from controller.fleet.nodes.manifest import MODULES, MODULES_OF_ROLE
from controller.fleet.nodes.nodes import VERBS, find_module, get_node
from controller.fleet.nodes.pages import view_node_module, view_node_modules
from controller.fleet.nodes.views import NodeModuleList, NodeModuleSet, NodeModuleView, render_module
from controller.jobs.views import JobView
from shared.errors import NotFoundError
from shared.specs.base import Presence
from shared.version import __version__

_TAGS = ["nodes"]

ModuleName = Annotated[str, PathParameter(description="Name of the module, for example web.")]


class NodeModuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """A node's module, and the job that brings it about."""

    resource: NodeModuleView
    jobs: tuple[JobView, ...]


class ModuleView(msgspec.Struct, frozen=True, kw_only=True):
    """One module that nodes can have."""

    name: str
    version: str
    description: str
    roles: tuple[str, ...]
    """Roles that bring it."""


class ModuleList(msgspec.Struct, frozen=True, kw_only=True):
    """Modules, by name."""

    items: tuple[ModuleView, ...]
    next_cursor: str | None = None


def _answer_module(outcome: Outcome[NodeModuleView]) -> Response[NodeModuleChange]:
    return answer_accepted(outcome, lambda view, jobs: NodeModuleChange(resource=view, jobs=jobs))


@get("/modules", operation_id="list-modules", tags=["modules"], summary="List modules", sync_to_thread=False)
def list_modules(*, actor: NamedDependency[Actor]) -> ModuleList:
    """Show what this release can put on a node."""
    actor.require("modules", "read")
    return ModuleList(
        items=tuple(
            ModuleView(
                name=name,
                version=__version__,
                description=description,
                roles=tuple(role for role, names in MODULES_OF_ROLE.items() if name in names),
            )
            for name, description in sorted(MODULES.items())
        )
    )


@get("/nodes/{node_id:str}/modules", operation_id="list-node-modules", tags=_TAGS, summary="List a node's modules")
async def list_modules_of_node(
    *,
    node_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeModuleList:
    """Show how much of each module the node shall have, and what it said about it."""

    async def query(ctx: FleetContext) -> NodeModuleList:
        ctx.actor.require("nodes", "read")
        await get_node(ctx.session, node_id)
        return NodeModuleList(items=await view_node_modules(ctx.session, node_id))

    return await operations.read(actor, request_id, query)


@get(
    "/nodes/{node_id:str}/modules/{name:str}/status",
    operation_id="show-node-module",
    tags=_TAGS,
    summary="Show a node's module",
)
async def show_node_module(
    *,
    node_id: PathId,
    name: ModuleName,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeModuleView:
    """Show one module: what is wanted, what became of it, and how its service is doing."""

    async def query(ctx: FleetContext) -> NodeModuleView:
        ctx.actor.require("nodes", "read")
        await get_node(ctx.session, node_id)
        row = await find_module(ctx.session, node_id, name)
        if row is None:
            raise NotFoundError(f"this node has no module {name[:40]!r}")
        return await view_node_module(ctx.session, row)

    return await operations.read(actor, request_id, query)


@put(
    "/nodes/{node_id:str}/modules/{name:str}",
    operation_id="set-node-module",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Set a node's module",
)
async def set_node_module(
    *,
    node_id: PathId,
    name: ModuleName,
    data: JSONBody[NodeModuleSet],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeModuleChange]:
    """Decide how much of a module the node shall have, and with which settings."""

    async def use_case(ctx: FleetContext) -> NodeModuleView:
        return render_module(await fleet.nodes.set_module(ctx, node_id, name, data.presence, data.settings))

    return _answer_module(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))


def _verb(verb: str, presence: Presence, sentence: str) -> object:
    """The handler of one verb; they differ in nothing but the presence they pick."""

    @post(
        f"/nodes/{{node_id:str}}/modules/{{name:str}}/{verb}",
        operation_id=f"{verb}-node-module",
        tags=_TAGS,
        status_code=202,
        responses=DRY_RUN_RESPONSES,
        summary=f"{verb.capitalize()} a module on a node",
        description=sentence,
        name=f"{verb}-node-module",
    )
    async def handler(
        *,
        node_id: PathId,
        name: ModuleName,
        fleet: NamedDependency[Fleet],
        operations: NamedDependency[Operations],
        actor: NamedDependency[Actor],
        request_id: NamedDependency[str],
        dry_run: DryRun = False,
    ) -> Response[NodeModuleChange]:
        async def use_case(ctx: FleetContext) -> NodeModuleView:
            return render_module(await fleet.nodes.set_module(ctx, node_id, name, presence))

        return _answer_module(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))

    return handler


_SENTENCES = {
    "install": "Install a module's packages and configuration without letting it serve.",
    "enable": "Install a module and let it serve.",
    "disable": "Stop a module; everything it needs stays installed.",
    "remove": "Remove a module with its packages and configuration.",
}

ROUTES = (
    list_modules,
    list_modules_of_node,
    show_node_module,
    set_node_module,
    *(_verb(verb, presence, _SENTENCES[verb]) for verb, presence in VERBS.items()),
)
