"""The executor on a real node believes signatures and nobody, not even the agent that talks to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.fleet import Fleet

# Runs on the node as the agent's own user: what a taken-over agent could do. It prints one JSON line per attempt.
ATTACK = r"""
import json, socket, sys, time, uuid
sys.path[:0] = ["/opt/wcp360/current", "/opt/wcp360/current/lib/common",
                "/opt/wcp360/current/lib/py%d%d" % sys.version_info[:2]]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from shared.protocol import local
from shared.protocol.envelope import JOB_TYPE, Envelope, Signature, sign_envelope
from shared.protocol.job import Job, encode_job
from shared.specs.account import AccountSpec
from shared.specs.manifest import Manifest, encode_manifest
from shared.specs.module import ModuleSpec


def talk(frame):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(local.EXECUTOR_SOCKET)
        peer.sendall(frame if isinstance(frame, bytes) else local.encode_local(frame))
        prefix = peer.recv(4, socket.MSG_WAITALL)
        if not prefix:
            return None
        return local.decode_from_executor(peer.recv(local.decode_length(prefix), socket.MSG_WAITALL))


status = talk(local.RequestStatus())
now = time.time()
manifest = Manifest(subject="account/evil", generation=1, specs=(
    ModuleSpec(name="account"), AccountSpec(name="evil", uid=59998)))
job = Job(cluster_id=status.cluster_id, node_id=status.node_id, node_gen=status.node_gen, job_id=str(uuid.uuid4()),
          nonce=b"x" * 16, seq=status.last_seq + 1, action="manifest.converge@1", args=encode_manifest(manifest),
          resource_key="account/evil", generation=1, actor="user/evil", request_id="r", issued_at=now, not_before=now,
          expires_at=now + 600, max_runtime_seconds=60)
raw = encode_job(job)
forged = sign_envelope(JOB_TYPE, raw, {"evil": Ed25519PrivateKey.generate()})
attempts = {
    "own key": local.SubmitJob(envelope=forged),
    "no signature": local.SubmitJob(envelope=Envelope(JOB_TYPE, raw, ())),
    "empty signature": local.SubmitJob(envelope=Envelope(JOB_TYPE, raw, (Signature("k", b""),))),
    "own trust bundle": local.SubmitTrust(envelope=forged),
    "garbage": (200).to_bytes(4, "big") + b"\xc1" * 200,
    "huge": (2**31).to_bytes(4, "big"),
}
for name, frame in attempts.items():
    answer = talk(frame)
    error = getattr(answer, "error", None)
    print(json.dumps({"attempt": name, "answer": type(answer).__name__, "code": error.code if error else None}))
"""


def run_as_agent(fleet: Fleet, node: str, program: str) -> list[dict[str, Any]]:
    argv = ["/usr/sbin/runuser", "-u", "wcp-agent", "--", "/usr/bin/python3", "-P", "-"]
    output = fleet.node(node).run(argv, stdin=program.encode(), timeout_seconds=60.0).check().stdout
    return [json.loads(line) for line in output.splitlines()]


def test_executor_when_the_agent_is_taken_over_refuses_everything_unsigned(fleet: Fleet, each_node: str) -> None:
    answers = {item["attempt"]: item for item in run_as_agent(fleet, each_node, ATTACK)}

    assert set(answers) == {"own key", "no signature", "empty signature", "own trust bundle", "garbage", "huge"}
    assert [item for item in answers.values() if item["code"] is None] == []
    assert fleet.run(each_node, "/usr/bin/getent", "passwd", "evil").exit_code != 0
    job = fleet.api.call("POST", f"/nodes/{fleet.node_id(each_node)}/ping")["jobs"][0]
    assert fleet.api.wait(job["id"])["state"] == "succeeded"


@pytest.mark.parametrize("user", ["nobody", "www-data"])
def test_executor_socket_when_another_user_connects_is_closed_to_them(fleet: Fleet, node: str, user: str) -> None:
    program = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/wcp360/executor.sock')"
    argv = ["/usr/sbin/runuser", "-u", user, "--", "/usr/bin/python3", "-c", program]

    result = fleet.node(node).run(argv)

    assert result.exit_code != 0
    assert "PermissionError" in result.stderr
