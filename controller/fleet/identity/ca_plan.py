"""What each phase of a change of the authority means, and what the next one waits for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.fleet.identity.authorities import Arrangement
from controller.fleet.identity.ca_models import CaPhase, CaRotation
from shared.protocol.renewal import MACHINE_CAPABILITY

P = CaPhase
NEXT: Final = {
    P.INIT: P.UPDATE_CLIENTS,
    P.UPDATE_CLIENTS: P.UPDATE_SERVERS,
    P.UPDATE_SERVERS: P.DONE,
    P.ROLLBACK: P.ROLLED_BACK,
}
"""Where `advance` leads."""
REVERSIBLE: Final = frozenset({P.INIT, P.UPDATE_CLIENTS, P.UPDATE_SERVERS})
FINAL: Final = frozenset({P.DONE, P.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStanding:
    """What is known of one node that has a certificate in force."""

    node_id: str
    name: str
    is_connected: bool
    capability: int
    bundle_version: int
    issuer: str
    """Of the certificate that it uses, or of its newest one while it has used none."""


def arrangement_of(rotation: CaRotation) -> Arrangement:
    """Who is trusted and who issues in the phase that the rotation is in."""
    old, new = rotation.old_ca, rotation.new_ca
    match rotation.phase:
        case P.INIT | P.ROLLBACK:
            return Arrangement(trusted=(old, new), issuer=old, server_issuer=old)
        case P.UPDATE_CLIENTS:
            return Arrangement(trusted=(old, new), issuer=new, server_issuer=old)
        case P.UPDATE_SERVERS:
            return Arrangement(trusted=(old, new), issuer=new, server_issuer=new)
        case P.DONE:
            return Arrangement(trusted=(new,), issuer=new, server_issuer=new)
        case P.ROLLED_BACK:
            return Arrangement(trusted=(old,), issuer=old, server_issuer=old)


def wanted_issuer(rotation: CaRotation) -> str:
    """Whose certificates nodes shall have now."""
    return arrangement_of(rotation).issuer


def find_obstacle(rotation: CaRotation, node: NodeStanding) -> str:
    """Why this node holds up the next phase, for a person; empty when it does not."""
    away = "" if node.is_connected else ", and is not connected"
    if rotation.phase is P.INIT and node.capability < MACHINE_CAPABILITY:
        return f"its agent is too old to learn of another authority: update it{away}"
    if node.bundle_version < rotation.bundle_version and rotation.phase is not P.ROLLBACK:
        return f"it has trust bundle {node.bundle_version}, not {rotation.bundle_version}{away}"
    if rotation.phase is not P.INIT and node.issuer != wanted_issuer(rotation):
        return f"its certificate is of the authority {node.issuer}, not of {wanted_issuer(rotation)}{away}"
    return ""
