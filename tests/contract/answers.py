"""A responder for MemoryHost that answers from the published files as nginx would: server_name, exact locations, return."""

from __future__ import annotations

import re

from agent.contract.facts import HttpFact
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import MemoryUnit

SITES = "/etc/nginx/wcp360/sites/"
MAIN = "/etc/nginx/nginx.conf"
SERVER_NAMES = re.compile(r"^ +server_name ([^;]+);", re.MULTILINE)
RETURN = r" \{(?:[^{}]|\{[^{}]*\})*?\n +return ([0-9]{3})(?: \"([^\"]*)\")?;"


def answer_like_nginx(host: MemoryHost, host_name: str, path: str) -> HttpFact | None:
    """None while nginx does not run; the default server for a name that no site has."""
    if not host.state.units.get("nginx.service", MemoryUnit()).is_running:
        return None
    text = find_server(host, host_name)
    if path == "/.wcp360-probe-php" and path in text:
        return HttpFact(status=200, body_start="pong")
    found = re.search(rf"location = {re.escape(path)}{RETURN}", text) or re.search(rf"location /{RETURN}", text)
    if found is None:
        return HttpFact(status=200, body_start="a page")
    return HttpFact(status=int(found[1]), body_start=found[2] or "")


def find_server(host: MemoryHost, host_name: str) -> str:
    for file, found in host.state.paths.items():
        names = SERVER_NAMES.search(found.content) if file.startswith(SITES) else None
        if names is not None and host_name in names[1].split():
            return found.content
    return host.state.paths[MAIN].content
