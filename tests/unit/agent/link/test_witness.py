"""A node's own memory of the audit log: what it was shown stays, and nothing that contradicts it is signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.link.settings import NodePaths
from agent.link.witness import BEHIND, FORK, NodeSignature, Witness
from agent.link.witness_signing import sign_with_node_key
from shared.audit_proof import Checkpoint, render_checkpoint
from shared.audit_witness import read_record
from shared.errors import InvalidInputError
from shared.protocol.witness import ShowCheckpoint


class Signer:
    """Counts."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def __call__(self, message: bytes) -> NodeSignature:
        self.messages.append(message)
        return NodeSignature(fingerprint="f", signature="c2ln")


def shown(number: int, value: str = "a", *, cluster: str = "c", wants_signature: bool = True) -> ShowCheckpoint:
    payload = render_checkpoint(Checkpoint(cluster_id=cluster, number=number, hash=value * 64, at="t"))
    return ShowCheckpoint(payload=payload, kid="root", signature="c2ln", wants_signature=wants_signature)


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    made = NodePaths(tmp_path)
    made.agent_state_dir.mkdir(parents=True)
    return made


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def witness(paths: NodePaths, signer: Signer) -> Witness:
    return Witness(paths, "n1", signer)


def kept(paths: NodePaths) -> list[int]:
    return list(read_record(paths.audit_record.read_text().splitlines()))


def test_take_when_the_log_goes_on_notes_and_signs(witness: Witness, signer: Signer, paths: NodePaths) -> None:
    answers = [witness.take(shown(number)) for number in (3, 7, 7)]

    assert [(answer.refusal, answer.signature) for answer in answers] == [("", "c2ln")] * 3
    assert kept(paths) == [3, 7]
    assert len(signer.messages) == 3
    assert oct(paths.audit_record.stat().st_mode)[-3:] == "600"


def test_take_when_only_to_remember_signs_nothing(witness: Witness, signer: Signer, paths: NodePaths) -> None:
    answer = witness.take(shown(3, wants_signature=False))

    assert (answer.statement, signer.messages, kept(paths)) == ("", [], [3])


@pytest.mark.parametrize(("later", "code", "known"), [(shown(7, "b"), FORK, 7), (shown(5), BEHIND, 7)])
def test_take_when_it_contradicts_what_was_shown_is_refused_with_the_proof(
    paths: NodePaths, signer: Signer, later: ShowCheckpoint, code: str, known: int
) -> None:
    Witness(paths, "n1", signer).take(shown(7))

    answer = Witness(paths, "n1", signer).take(later)

    assert (answer.refusal, answer.statement, answer.known) == (code, "", shown(known).payload)
    assert (len(signer.messages), kept(paths)) == (1, [7])


def test_take_when_it_is_an_earlier_one_that_was_shown_signs_it_again(witness: Witness, paths: NodePaths) -> None:
    witness.take(shown(3))
    witness.take(shown(7))

    assert witness.take(shown(3)).refusal == ""
    assert kept(paths) == [3, 7]


def test_take_when_the_machine_belongs_to_another_controller_now_begins_anew(witness: Witness) -> None:
    witness.take(shown(7))

    assert witness.take(shown(2, cluster="other")).refusal == ""


def test_take_when_a_crash_left_half_a_line_keeps_the_others(witness: Witness, paths: NodePaths) -> None:
    witness.take(shown(3))
    with paths.audit_record.open("a") as file:
        file.write('{"payload": "{')

    witness.take(shown(7))

    assert witness.take(shown(5)).refusal == BEHIND
    assert witness.take(shown(3, "b")).refusal == FORK


def test_take_when_the_record_is_long_forgets_the_oldest(paths: NodePaths, signer: Signer) -> None:
    witness = Witness(paths, "n1", signer, kept_lines=3)

    for number in range(1, 9):
        witness.take(shown(number))

    assert kept(paths) == [4, 5, 6, 7, 8]


def test_take_when_it_is_no_checkpoint_is_refused(witness: Witness, paths: NodePaths) -> None:
    with pytest.raises(InvalidInputError):
        witness.take(ShowCheckpoint(payload="{}", kid="k", signature="s"))

    assert not paths.audit_record.exists()


def test_take_when_the_disk_does_not_take_it_signs_nothing(witness: Witness, signer: Signer, paths: NodePaths) -> None:
    paths.audit_record.symlink_to("/dev/null")

    with pytest.raises(OSError, match="symbolic"):
        witness.take(shown(3))

    assert signer.messages == []


def test_sign_when_it_is_no_word_of_a_witness_is_refused(paths: NodePaths) -> None:
    with pytest.raises(InvalidInputError, match="only what a witness says"):
        sign_with_node_key(paths, b"DSSEv1 4 job 1 x")
