"""PHP settings of sites over HTTP."""

from __future__ import annotations

import msgspec
from litestar import Response, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_accepted
from controller.core.operations import Operations
from controller.jobs.views import JobView
from controller.modules.web import php_settings
from controller.modules.web.php_settings import PhpSettingsUpdate, PhpSettingsView

_TAGS = ["sites"]


class PhpSettingsChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a site has chosen, and the job that brings its node to it."""

    resource: PhpSettingsView
    jobs: tuple[JobView, ...]


@get("/sites/{site_id:str}/php-settings", operation_id="show-php-settings", tags=_TAGS, summary="Show PHP settings")
async def show_php_settings(
    *,
    site_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> PhpSettingsView:
    """Show the PHP settings that a site has chosen, and which of them count."""
    return await operations.read(actor, request_id, lambda ctx: php_settings.show_php_settings(ctx, site_id))


@patch(
    "/sites/{site_id:str}/php-settings",
    operation_id="update-php-settings",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change PHP settings",
)
async def update_php_settings(
    *,
    site_id: PathId,
    data: JSONBody[PhpSettingsUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PhpSettingsChange]:
    """Change PHP settings for the scripts in a site's folder; needs the package's feature custom_php."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: php_settings.update_php_settings(ctx, site_id, data), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: PhpSettingsChange(resource=view, jobs=jobs))


ROUTES = (show_php_settings, update_php_settings)
