"""The controller's OpenAPI document between two commands.

A cache that cannot be read or written is no cache, not an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from cli.document import Document
from cli.profile import cache_dir

MAX_AGE_SECONDS = 300


class DocumentCache:
    """The document of one controller."""

    def __init__(self, controller: str) -> None:
        self._path = cache_dir() / f"openapi-{hashlib.sha256(controller.encode()).hexdigest()[:16]}.json"

    def load(self, *, any_age: bool = False) -> Document | None:
        """The document, unless there is none or (by default) it is old."""
        try:
            is_fresh = 0 <= time.time() - self._path.stat().st_mtime < MAX_AGE_SECONDS
            return Document(json.loads(self._path.read_text())) if is_fresh or any_age else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, raw: Any) -> None:
        """Keep it, if that is possible."""
        temporary: Path | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".openapi-")
            temporary = Path(name)
            with os.fdopen(descriptor, "w") as file:
                json.dump(raw, file)
            temporary.replace(self._path)
        except OSError:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
