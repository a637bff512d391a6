"""What an enrolment request may hold. It comes from a machine that nobody knows yet."""

from __future__ import annotations

import re
from typing import Final

from controller.fleet.nodes.placement import parse_size_fact
from shared.errors import InvalidInputError
from shared.protocol.capability import OLDEST_CAPABILITY
from shared.protocol.enrolment import EnrolmentRequest

MAX_CSR_LENGTH: Final = 16_384
MAX_FACTS: Final = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FACT_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SIZE_FACTS: Final = ("memory_bytes", "disk_bytes")


def require_request(request: EnrolmentRequest) -> EnrolmentRequest:
    """Return the request if every value is one that we are willing to store and show.

    Raises:
        InvalidInputError: One is not; `field` names it.
    """
    if len(request.csr_pem) > MAX_CSR_LENGTH:
        raise InvalidInputError("the certificate request is too long", field="csr_pem", code="csr_invalid")
    if len(request.sealing_public_key) != 32:
        raise InvalidInputError("a sealing key has 32 bytes", field="sealing_public_key")
    if not _DIGEST.fullmatch(request.machine_id_hash):
        raise InvalidInputError("machine_id_hash is a SHA-256 in hex", field="machine_id_hash")
    _require_text("hostname", request.hostname, 253)
    _require_text("agent_version", request.agent_version, 32)
    if not OLDEST_CAPABILITY <= request.capability < 2**31:
        raise InvalidInputError("this agent is of a release that is not supported any more", field="capability")
    _require_facts(request.facts)
    return request


def _require_facts(facts: dict[str, str]) -> None:
    if len(facts) > MAX_FACTS:
        raise InvalidInputError(f"at most {MAX_FACTS} facts", field="facts")
    for name, value in facts.items():
        if not _FACT_NAME.fullmatch(name):
            raise InvalidInputError(f"{name[:40]!r} is not the name of a fact", field="facts")
        _require_text(f"facts.{name}", value, 1000)
    for name in _SIZE_FACTS:
        if name in facts:
            parse_size_fact(facts[name])


def _require_text(field: str, value: str, high: int) -> None:
    if len(value) > high or not value.isprintable():
        raise InvalidInputError(f"{field} has at most {high} printable characters", field=field)
