"""The end of `make run`: what there is now, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nodes import describe
from process import RUN_NAME, ControllerProcess
from say import say


def write_summary(
    run_dir: Path, controller: ControllerProcess, nodes: list[dict[str, Any]], site: dict[str, Any], answer: str | None
) -> dict[str, Any]:
    """Write `.run/summary.json` (mode 0600: it holds the password) and return it."""
    admin = controller.admin
    summary = {
        "controller_url": controller.url,
        "admin_user": admin["username"],
        "admin_password": admin["password"],
        "ca_file": str(controller.ca_file),
        "docs_url": f"{controller.url}/docs",
        "nodes": describe(nodes),
        "account": site["account"],
        "site_host": site["domain"],
        "site_url": site.get("url"),
        "site_response": answer,
    }
    path = run_dir / "summary.json"
    temporary = run_dir / "summary.json.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(summary, file, indent=2)
    temporary.replace(path)
    return summary


def print_summary(summary: dict[str, Any], *, seconds: float) -> None:
    """Say it, and three things to try next."""
    nodes = ", ".join(node["name"] for node in summary["nodes"])
    cli = ".venv/bin/wcp360"
    say(f"""
WCP360 runs ({seconds:.0f} s). The same facts are in .{RUN_NAME}/summary.json.

  controller        {summary["controller_url"]}
  API documentation {summary["docs_url"]}
  administrator     {summary["admin_user"]}  password {summary["admin_password"]}
  CA certificate    {summary["ca_file"]}
  nodes             {nodes}
  site              {summary["site_host"]} of account {summary["account"]}""")
    if summary["site_url"]:
        say(f"""  it answered       {summary["site_response"]}
  see for yourself  curl -H 'Host: {summary["site_host"]}' {summary["site_url"]}""")
    say(f"""
Three things to try next:
  1. {cli} --ca-file {summary["ca_file"]} login {summary["controller_url"]}      (asks for the password)
  2. {cli} sites create --account-id {summary["account"]} --domain shop.example --php-version 8.2 --dry-run
  3. {cli} accounts suspend {summary["account"]} --reason "just trying" --wait""")
