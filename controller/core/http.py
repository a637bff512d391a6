"""What all handlers share: their parameters, and how the outcome of a change is answered.

The one file of core that knows the web framework. It lives here because the handlers of controller.api and those of the
modules need it alike, and modules cannot import controller.api (which stands above them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from controller.core.operations import Outcome
from controller.core.paging import MAX_LIMIT
from controller.core.plan import PlanView
from controller.jobs.views import JobView

T = TypeVar("T")

API_ROOT: Final = "/api/v1"

DryRun = Annotated[
    bool, QueryParameter(description="Answer what would happen, node by node and file by file; change nothing.")
]
Limit = Annotated[int, QueryParameter(description=f"How many at most, 1 to {MAX_LIMIT}.")]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.")]
Search = Annotated[str | None, QueryParameter(description="Part of the name; upper and lower case are the same.")]
OfAccount = Annotated[str | None, QueryParameter(description="Only those of this account.")]
PathId = Annotated[str, PathParameter(description="The id, as the list shows it.")]

DRY_RUN_RESPONSES: Final[dict[int, ResponseSpec]] = {
    200: ResponseSpec(
        data_container=PlanView,
        description="Only with dry_run=true: what would happen. Nothing was changed.",
        generate_examples=False,
    )
}
"""For `responses=` of every handler that changes something."""


def answer_accepted(outcome: Outcome[T], render: Callable[[T, tuple[JobView, ...]], Any]) -> Response[Any]:
    """202 with the resource and its jobs (and the first job's address), or 200 with the plan of a dry run.

    Args:
        outcome: What came of the change.
        render: Puts the resource and its jobs into the handler's own body.
    """
    if outcome.plan is not None:
        return Response(outcome.plan, status_code=200)
    headers = {"Location": f"{API_ROOT}/jobs/{outcome.jobs[0].id}"} if outcome.jobs else {}
    return Response(render(outcome.resource, outcome.jobs), status_code=202, headers=headers)


def answer_done(outcome: Outcome[T], *, status: int) -> Response[Any]:
    """The resource of a change that touches no node (no body for 204), or 200 with the plan of a dry run."""
    if outcome.plan is not None:
        return Response(outcome.plan, status_code=200)
    return Response(None if status == 204 else outcome.resource, status_code=status)
