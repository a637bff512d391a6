"""The few API calls of the quickstart, the same that any program would make."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
from say import QuickstartError

TIMEOUT_SECONDS = 30.0
FINAL_STATES = {"succeeded", "superseded", "failed", "refused", "expired", "cancelled", "indeterminate", "stuck"}


class Api:
    """A client of one controller."""

    def __init__(self, url: str, ca_file: Path) -> None:
        self._http = httpx.Client(
            base_url=url, verify=ssl.create_default_context(cafile=str(ca_file)), timeout=TIMEOUT_SECONDS
        )

    def is_ready(self) -> bool:
        """Whether the controller serves."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def sign_in_first(self, issued: dict[str, str], own_file: Path) -> None:
        """Sign in as the first administrator, under a password of our own: the issued one is good for nothing else.

        Args:
            issued: `username` and the one-time `password`.
            own_file: Where the own password is kept (mode 0600); it is made at the first time.

        Raises:
            QuickstartError: They are refused.
        """
        if own_file.exists():
            own = json.loads(own_file.read_text())
            self.sign_in(own["username"], own["password"])
            return
        if not self.sign_in(issued["username"], issued["password"])["must_change_password"]:
            return
        own = {"username": issued["username"], "password": secrets.token_urlsafe(18)}
        self.call("POST", "/auth/password", {"current_password": issued["password"], "new_password": own["password"]})
        descriptor = os.open(own_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(own, file)
        self.sign_in(own["username"], own["password"])

    def sign_in(self, username: str, password: str) -> dict[str, Any]:
        """Use this user's session from now on; who they are.

        Raises:
            QuickstartError: They are refused.
        """
        answer = self._http.post("/api/v1/auth/login", json={"username": username, "password": password})
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise QuickstartError(
                "the first administrator's password does not work any more",
                hint="It was changed. `make clean` starts afresh.",
            )
        self._http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        self._http.cookies.clear()
        user: dict[str, Any] = answer.json()["user"]
        return user

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request below /api/v1.

        Raises:
            QuickstartError: The controller says no, with its own words, or is not there.
        """
        try:
            answer = self._http.request(method, f"/api/v1{path}", json=body)
        except httpx.HTTPError as error:
            raise QuickstartError(f"the controller does not answer: {error}") from error
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise QuickstartError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def find(self, noun: str, name: str) -> dict[str, Any] | None:
        """The thing of that name (or domain), if there is one."""
        items = self.call("GET", f"/{noun}?limit=200")["items"]
        return next((item for item in items if name in (item.get("name"), item.get("domain"))), None)

    def ensure(self, noun: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The thing of that name, made if it is missing; waits until it is on its node."""
        found = self.find(noun, name)
        if found is not None:
            return found
        answer = self.call("POST", f"/{noun}", body)
        if "jobs" in answer:
            for job in answer["jobs"]:
                self.wait(job["id"])
            answer = answer["resource"]
        result: dict[str, Any] = answer
        return result

    def wait(self, job_id: str, *, timeout_seconds: float = 180.0) -> dict[str, Any]:
        """The job, ended well.

        Raises:
            QuickstartError: It did not end, or not well.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            job: dict[str, Any] = self.call("GET", f"/jobs/{job_id}")
            if job["state"] in ("succeeded", "superseded"):
                return job
            if job["state"] in FINAL_STATES or time.monotonic() > deadline:
                error = (job.get("error") or {}).get("message", "it has not ended")
                raise QuickstartError(f"{job.get('label', 'a job')} is {job['state']}: {error}")
            time.sleep(0.1)
