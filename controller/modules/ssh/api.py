"""SSH keys over HTTP."""

from __future__ import annotations

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.context import Actor
from controller.core.http import (
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    OfAccount,
    PathId,
    Search,
    answer_accepted,
)
from controller.core.operations import Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView
from controller.modules.ssh import service
from controller.modules.ssh.views import SshKeyCreate, SshKeyPage, SshKeyUpdate, SshKeyView

_TAGS = ["ssh-keys"]


class SshKeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A key, and the job that brings its node to it."""

    resource: SshKeyView
    jobs: tuple[JobView, ...]


def _answer(outcome: Outcome[SshKeyView]) -> Response[SshKeyChange]:
    return answer_accepted(outcome, lambda view, jobs: SshKeyChange(resource=view, jobs=jobs))


@get("/ssh-keys", operation_id="list-ssh-keys", tags=_TAGS, summary="List SSH keys")
async def list_ssh_keys(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    account_id: OfAccount = None,
) -> SshKeyPage:
    """Show the SSH keys of accounts, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_keys(ctx, page, account_id))


@post(
    "/ssh-keys",
    operation_id="create-ssh-key",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Add an SSH key",
)
async def create_ssh_key(
    *,
    data: JSONBody[SshKeyCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SshKeyChange]:
    """Let a public key open an account whose package has SSH."""
    return _answer(
        await operations.change(actor, request_id, lambda ctx: service.create_key(ctx, data), is_dry_run=dry_run)
    )


@get("/ssh-keys/{key_id:str}", operation_id="show-ssh-key", tags=_TAGS, summary="Show an SSH key")
async def show_ssh_key(
    *,
    key_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> SshKeyView:
    """Show whose login a key is, until when and from where."""
    return await operations.read(actor, request_id, lambda ctx: service.show_key(ctx, key_id))


@patch(
    "/ssh-keys/{key_id:str}",
    operation_id="update-ssh-key",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change an SSH key",
)
async def update_ssh_key(
    *,
    key_id: PathId,
    data: JSONBody[SshKeyUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SshKeyChange]:
    """Give a key another name or another end; one that has expired opens its account again."""
    return _answer(
        await operations.change(
            actor, request_id, lambda ctx: service.update_key(ctx, key_id, data), is_dry_run=dry_run
        )
    )


@delete(
    "/ssh-keys/{key_id:str}",
    operation_id="delete-ssh-key",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Delete an SSH key",
)
async def delete_ssh_key(
    *,
    key_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SshKeyChange]:
    """Let a key open its account no more."""
    return _answer(
        await operations.change(actor, request_id, lambda ctx: service.delete_key(ctx, key_id), is_dry_run=dry_run)
    )


ROUTES = (list_ssh_keys, create_ssh_key, show_ssh_key, update_ssh_key, delete_ssh_key)
