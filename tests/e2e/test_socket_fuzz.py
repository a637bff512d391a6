"""Fault 32: an agent in wrong hands says everything it can think of to the executor of a real node."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from typing import Any

import msgspec
import pytest

from shared.protocol.envelope import Signature
from tests.e2e.fleet import Fleet
from tests.e2e.node_faults import EXECUTOR, journal_rows, rest_executor, shell, show

MIB = 1024 * 1024
SECONDS = 20
PEAK_BYTES = 160 * MIB
JOBS = "SELECT job_id, state, expires_at, is_stored FROM jobs ORDER BY seq"

# Runs on the node as the agent's own user. Prints one JSON line with what it did and what it was answered.
FUZZ = r"""
import json, random, socket, sys, time
sys.path[:0] = ["/opt/wcp360/current", "/opt/wcp360/current/lib/common",
                "/opt/wcp360/current/lib/py%d%d" % sys.version_info[:2]]
import msgspec
from shared.protocol import local
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, Signature
INPUT = json.loads(sys.argv[1])
choice = random.Random(INPUT["seed"])
known = [Envelope(JOB_TYPE, bytes.fromhex(payload), tuple(Signature(kid, bytes.fromhex(sig)) for kid, sig in signatures))
         for payload, signatures in INPUT["envelopes"]]
sent = {}
answers = {}
held = []


def connect(timeout=5.0):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(timeout)
    peer.connect(local.EXECUTOR_SOCKET)
    return peer


def listen(peer, name):
    # What is answered until it is silent or the connection is closed.
    peer.settimeout(0.2)
    try:
        while True:
            prefix = peer.recv(4, socket.MSG_WAITALL)
            if len(prefix) < 4:
                break
            length = int.from_bytes(prefix, "big")
            body = b""
            while len(body) < length:
                body += peer.recv(length - len(body))
            frame = local.decode_from_executor(body)
            error = getattr(frame, "error", None)
            state = getattr(getattr(frame, "state", None), "value", "")
            key = f"{name}: {type(frame).__name__} {error.code if error else state}".strip()
            answers[key] = answers.get(key, 0) + 1
    except (socket.timeout, ConnectionError):
        pass


def say(name, raw):
    sent[name] = sent.get(name, 0) + 1
    try:
        with connect() as peer:
            peer.sendall(raw)
            listen(peer, name)
    except (socket.timeout, OSError):
        sent[name + " (turned away)"] = sent.get(name + " (turned away)", 0) + 1


def frame(value):
    raw = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return len(raw).to_bytes(4, "big") + raw


def submit(envelope):
    return local.encode_local(local.SubmitJob(envelope=envelope))


def replace(envelope, **changes):
    return msgspec.structs.replace(envelope, **changes)


def flip(raw):
    changed = bytearray(raw)
    for _ in range(choice.randrange(1, 4)):
        changed[choice.randrange(len(changed))] ^= 1 << choice.randrange(8)
    return bytes(changed)


def anything(depth=0):
    kind = choice.randrange(9)
    if kind < 5 or depth > 4:
        return choice.choice([None, True, -1, 2**63, 1.5, "", "x" * 300, b"", b"\xff" * 100, "submit", {"t": "submit"}])
    if kind < 7:
        return [anything(depth + 1) for _ in range(choice.randrange(6))]
    return {choice.choice(["t", "envelope", "job_id", "subjects", "x"]): anything(depth + 1)
            for _ in range(choice.randrange(5))}


def tampered():
    one, two = choice.choice(known), choice.choice(known)
    yield "flipped payload", submit(replace(one, payload=flip(one.payload)))
    yield "cut payload", submit(replace(one, payload=one.payload[: choice.randrange(len(one.payload))]))
    yield "longer payload", submit(replace(one, payload=one.payload + b"\0"))
    yield "swapped signature", submit(replace(one, payload=one.payload[::-1], signatures=two.signatures))
    yield "flipped signature", submit(
        replace(one, signatures=tuple(Signature(s.kid, flip(s.sig)) for s in one.signatures)))
    yield "other key id", submit(replace(one, signatures=tuple(Signature("root", s.sig) for s in one.signatures)))
    yield "other type", submit(replace(one, payload_type=TRUST_TYPE))
    yield "job as trust", local.encode_local(local.SubmitTrust(envelope=one))
    yield "no signatures", submit(replace(one, signatures=()))
    yield "many signatures", submit(replace(one, signatures=one.signatures * 500))
    yield "replay", submit(one)


def garbage():
    yield "noise", choice.randbytes(choice.randrange(1, 3000))
    yield "framed noise", frame(choice.randbytes(choice.randrange(1, 3000)))
    yield "any msgpack", frame(anything())
    yield "any tagged", frame({"t": choice.choice(["submit", "trust", "drift", "stored", "cancel", "status", "?"]),
                              **{key: anything() for key in ("envelope", "subjects", "job_id")}})
    yield "huge length", (choice.randrange(6 * 2**20 + 1, 2**32)).to_bytes(4, "big") + b"x"
    yield "largest frame", frame(b"\xdd\x00\x5f\xff\xff" + b"\xc0" * (6 * 2**20 - 100))
    yield "map of maps", frame(b"\x81\xa1t" * 100000)
    yield "nothing", frame(b"")
    yield "cancel", local.encode_local(local.CancelLocal(job_id=choice.choice(["x" * 5000, INPUT["job_id"]])))
    yield "stored", local.encode_local(local.ResultStored(job_id="\0" * 1000))


def loris():
    # Half a length, half a frame, and silence: the connections stay open.
    for half in (b"\0", b"\0\0\x10", frame(b"x" * 5000)[:100]):
        try:
            peer = connect(1.0)
            peer.sendall(half)
            held.append(peer)
        except OSError:
            pass
    while len(held) > 40:
        held.pop(choice.randrange(len(held))).close()


def flood(value, count, name):
    # Asks and asks, and reads nothing.
    sent[name] = sent.get(name, 0) + 1
    try:
        with connect(1.0) as peer:
            peer.sendall(local.encode_local(value) * count)
    except OSError:
        pass


end = time.monotonic() + INPUT["seconds"]
rounds = 0
while time.monotonic() < end:
    rounds += 1
    for name, raw in (*tampered(), *garbage()):
        say(name, raw)
    loris()
    flood(local.RequestDrift(subjects=("account/%d" % rounds,)), 20000, "drift flood")
    flood(local.RequestStatus(), 50000, "status flood")
    while held:
        held.pop().close()
print(json.dumps({"rounds": rounds, "sent": sent, "answers": answers}))
"""


def read_envelopes(fleet: Fleet, node: str) -> list[Any]:
    """Signed jobs that really went to this node: what an agent in wrong hands has seen."""
    database = fleet.controller.data_dir / "controller.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT payload, signatures FROM jobs WHERE node_id = ? AND payload IS NOT NULL ORDER BY id DESC LIMIT 8",
            (fleet.node_id(node),),
        ).fetchall()
    decode = msgspec.msgpack.Decoder(tuple[Signature, ...]).decode
    return [(payload.hex(), [(found.kid, found.sig.hex()) for found in decode(raw)]) for payload, raw in rows]


def is_expired(job: list[Any]) -> bool:
    """Whether the executor may forget this row of JOBS."""
    _, state, expires_at, is_stored = job
    return state not in ("received", "started") and bool(is_stored) and float(expires_at) < time.time()


def look(fleet: Fleet, node: str) -> str:
    """All that a job could have changed."""
    return shell(
        fleet,
        node,
        "cat /etc/passwd /etc/shadow /etc/group; find /etc/nginx /etc/wcp360 /etc/systemd/system /srv/accounts -xdev"
        " -printf '%p %m %U %s %l\\n' | sort; cat /etc/nginx/wcp360/sites/* | sha256sum",
    )


@pytest.mark.timeout(300)
def test_fault_32_executor_when_its_socket_is_fuzzed_as_the_agent_only_refuses(fleet: Fleet, node: str) -> None:
    seed = int(os.environ.get("WCP360_E2E_SEED", random.randrange(2**32)))
    print(f"WCP360_E2E_SEED={seed}")
    account = fleet.account(node)
    fleet.site(account)
    envelopes = read_envelopes(fleet, node)
    assert envelopes
    rest_executor(fleet, node)
    shell(fleet, node, "systemctl stop wcp-agent.service")
    before, jobs = look(fleet, node), journal_rows(fleet, node, JOBS)
    given = {"seed": seed, "seconds": SECONDS, "envelopes": envelopes, "job_id": jobs[-1][0]}

    argv = ["/usr/sbin/runuser", "-u", "wcp-agent", "--", "/usr/bin/python3", "-P", "-", json.dumps(given)]
    said = fleet.node(node).run(argv, stdin=FUZZ.encode(), timeout_seconds=SECONDS + 120.0).check().stdout
    did = json.loads(said)

    print(json.dumps(did, indent=1))
    assert did["rounds"] > 0
    accepted = [key for key in did["answers"] if "JobAccepted received" in key or key.endswith(": TrustTaken")]
    assert accepted == []
    assert any(key.startswith("replay: JobAccepted") for key in did["answers"]), "a replay answers with what is known"
    jobs_after = journal_rows(fleet, node, JOBS)
    assert [job for job in jobs_after if job not in jobs] == [], "no job is new or another one"
    # An executor that starts forgets what is stored and expired; nothing else may be missing.
    assert [job for job in jobs if job not in jobs_after and not is_expired(job)] == []
    assert look(fleet, node) == before
    assert show(fleet, node, EXECUTOR, "NRestarts") == "0"
    pid = show(fleet, node, EXECUTOR, "MainPID")
    peak = int(shell(fleet, node, f"grep VmHWM /proc/{pid}/status").split()[1]) * 1024
    print(f"peak memory {peak / MIB:.0f} MiB")
    assert peak < PEAK_BYTES
    shell(fleet, node, "systemctl start wcp-agent.service")
    fleet.wait_ready(node)
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")
