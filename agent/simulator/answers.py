"""A web server for MemoryHost: it answers from the published files as nginx would."""

from __future__ import annotations

import re
from typing import Final

from agent.contract.facts import HttpFact
from agent.simulator.host_state import HostState, MemoryUnit

_SITES: Final = "/etc/nginx/wcp360/sites/"
_MAIN: Final = "/etc/nginx/nginx.conf"
_PHP_PROBE: Final = "/.wcp360-probe-php"
_SERVER_NAMES: Final = re.compile(r"^ +server_name ([^;]+);", re.MULTILINE)
_RETURN: Final = r" \{(?:[^{}]|\{[^{}]*\})*?\n +return ([0-9]{3})(?: \"([^\"]*)\")?;"


def answer_like_nginx(state: HostState, host_name: str, path: str) -> HttpFact | None:
    """A Responder. None while nginx does not run; the default server for a name that no site has."""
    if not state.units.get("nginx.service", MemoryUnit()).is_running:
        return None
    text = _find_server(state, host_name)
    if path == _PHP_PROBE and path in text:
        return HttpFact(status=200, body_start="pong")
    found = re.search(rf"location = {re.escape(path)}{_RETURN}", text) or re.search(rf"location /{_RETURN}", text)
    if found is None:
        return HttpFact(status=200, body_start="a page")
    return HttpFact(status=int(found[1]), body_start=found[2] or "")


def _find_server(state: HostState, host_name: str) -> str:
    for file, found in state.paths.items():
        names = _SERVER_NAMES.search(found.content) if file.startswith(_SITES) else None
        if names is not None and host_name in names[1].split():
            return found.content
    main = state.paths.get(_MAIN)
    return "" if main is None else main.content
