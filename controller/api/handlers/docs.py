"""The API's page for people, from files that ship with the controller: no CDN, no inline script."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Redirect

from controller.api.guards import PUBLIC
from shared.errors import NotFoundError

_FOLDER: Final = Path(__file__).parent.parent / "static" / "swagger-ui"
_MEDIA_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "initializer.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

# Swagger UI sets style attributes; data: images are its own icons. Scripts come from files of this server only.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>WCP360 API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/swagger-ui-standalone-preset.js"></script>
<script src="/docs/assets/initializer.js"></script>
</body>
</html>
"""


@get("/docs", opt={PUBLIC: True}, include_in_schema=False)
async def show_docs() -> Response[str]:
    """The page."""
    return Response(_PAGE, media_type="text/html", headers={"content-security-policy": _PAGE_POLICY})


@get("/", opt={PUBLIC: True}, include_in_schema=False)
async def show_root() -> Redirect:
    """Who opens the bare address wants to see something; the panels will take this place."""
    return Redirect("/docs", status_code=302)


@get("/docs/assets/{name:str}", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=True)
def read_asset(name: FromPath[str]) -> Response[bytes]:
    """One of the page's files, by a fixed list of names."""
    media_type = _MEDIA_TYPES.get(name)
    if media_type is None:
        raise NotFoundError("there is no such file")
    return Response(
        (_FOLDER / name).read_bytes(), media_type=media_type, headers={"cache-control": "public, max-age=86400"}
    )


ROUTES = (show_root, show_docs, read_asset)
