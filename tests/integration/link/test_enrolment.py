"""Becoming a node against a controller over TLS: every way it goes right or wrong, with its exit code."""

from __future__ import annotations

import datetime as dt
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent.core.identity import TrustStore, load_identity
from agent.link.certificate import parse_not_after
from agent.link.enrolment import Enroller, EnrolmentOptions
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.setup_errors import ExitCode, SetupError
from shared.protocol.enrolment import EnrolmentState, parse_enrolment_token
from tests.integration.link.controller import WORDS, FakeController
from tests.integration.link.pki import TestAuthority


@pytest.fixture
def controller(authority: TestAuthority) -> Iterator[FakeController]:
    with FakeController(authority).running() as running:
        yield running


@pytest.fixture
def bare(tmp_path: Path) -> NodePaths:
    """A machine that is no node yet."""
    paths = NodePaths(tmp_path / "machine")
    for folder in (paths.config_dir, paths.tls_dir, paths.executor_state_dir):
        folder.mkdir(parents=True)
    paths.machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    return paths


class Run:
    """One enrolment with everything it said and slept."""

    def __init__(self, paths: NodePaths, url: str, token: str) -> None:
        self.paths, self.url, self.token = paths, url, token
        self.said: list[str] = []
        self.slept: list[float] = []
        self.clock: Callable[[], float] | None = None

    def enrol(self, **options: object) -> object:
        chosen = EnrolmentOptions(controller_url=self.url, token=self.token, hostname="web1", **options)  # type: ignore[arg-type]
        extra = {"clock": self.clock} if self.clock else {}
        return Enroller(self.paths, chosen, say=self.said.append, sleep=self.slept.append, **extra).enrol()  # type: ignore[arg-type]

    def fail(self, **options: object) -> SetupError:
        with pytest.raises(SetupError) as caught:
            self.enrol(**options)
        return caught.value


@pytest.fixture
def run(bare: NodePaths, controller: FakeController) -> Run:
    return Run(bare, controller.url, controller.token)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_enrol_when_approved_writes_what_agent_and_executor_need(
    run: Run, bare: NodePaths, controller: FakeController
) -> None:
    outcome = run.enrol()

    settings = read_agent_settings(bare)
    assert (outcome.is_new, outcome.node_name) == (True, "web1")  # type: ignore[attr-defined]
    assert (settings.gateway_url, settings.ca_file) == (controller.gateway_url, str(bare.ca_pem))
    identity = load_identity(bare.executor_state_dir)
    assert identity is not None
    assert identity.node_id == settings.node_id
    assert TrustStore(bare.executor_state_dir, identity.public_root_keys()).bundle is not None
    assert parse_not_after(bare.node_pem.read_text()) > dt.datetime.now(dt.UTC)


def test_enrol_when_approved_keeps_secrets_to_their_owner(run: Run, bare: NodePaths) -> None:
    run.enrol()

    secrets = (bare.node_pem, bare.sealing_key, bare.identity_json, bare.trust_bundle)
    assert {mode_of(path) for path in secrets} == {0o600}
    assert mode_of(bare.agent_toml) == 0o640
    assert not bare.pending_key.exists()


def test_enrol_sends_no_private_key_and_only_a_hash_of_the_machine_id(
    run: Run, bare: NodePaths, controller: FakeController
) -> None:
    run.enrol()

    (request,) = controller.requests
    raw = msgspec.json.encode(request)
    assert b"PRIVATE" not in raw
    assert b"0123456789abcdef0123456789abcdef" not in raw
    assert len(request.sealing_public_key) == 32
    assert request.csr_pem.startswith("-----BEGIN CERTIFICATE REQUEST-----")


def test_enrol_when_node_already_is_a_noop(run: Run, bare: NodePaths, controller: FakeController) -> None:
    run.enrol()
    before = {path: path.read_bytes() for path in bare.root.rglob("*") if path.is_file()}

    outcome = run.enrol()

    assert outcome.is_new is False  # type: ignore[attr-defined]
    assert len(controller.requests) == 1
    assert {path: path.read_bytes() for path in bare.root.rglob("*") if path.is_file()} == before


def test_enrol_when_forced_gets_a_new_key(run: Run, bare: NodePaths, controller: FakeController) -> None:
    run.enrol()
    old_key = bare.node_pem.read_bytes()

    run.enrol(is_forced=True)

    assert bare.node_pem.read_bytes() != old_key
    assert len(controller.requests) == 2


def test_enrol_when_forced_and_refused_leaves_the_working_identity(
    run: Run, bare: NodePaths, controller: FakeController
) -> None:
    run.enrol()
    before = (bare.node_pem.read_bytes(), bare.agent_toml.read_bytes())
    controller.answers = [(403, "token_used")]

    run.fail(is_forced=True)

    assert (bare.node_pem.read_bytes(), bare.agent_toml.read_bytes()) == before


def test_enrol_when_pending_shows_the_words_once_and_asks_with_the_same_request(
    run: Run, controller: FakeController
) -> None:
    controller.answers = [EnrolmentState.PENDING, EnrolmentState.PENDING, EnrolmentState.APPROVED]

    run.enrol()

    assert [line.strip() for line in run.said].count(WORDS) == 1
    assert len({request.csr_pem for request in controller.requests}) == 1
    assert len(run.slept) == 2


def test_enrol_when_nobody_approves_can_go_on_later_with_the_same_request(run: Run, controller: FakeController) -> None:
    controller.answers = [EnrolmentState.PENDING] * 3

    error = run.fail(approval_seconds=0.1)
    controller.answers = []
    run.enrol()

    assert error.exit_code is ExitCode.APPROVAL_TIMEOUT
    assert len({request.csr_pem for request in controller.requests}) == 1


def test_enrol_when_another_token_is_pasted_after_an_interruption_makes_a_new_request(
    run: Run, controller: FakeController
) -> None:
    controller.answers = [EnrolmentState.PENDING] * 3
    run.fail(approval_seconds=0.1)
    controller.answers = []
    run.token = run.token.replace("e1." + "0" * 16, "e1." + "1" * 16)

    run.enrol()

    assert len({request.csr_pem for request in controller.requests}) == 2


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        ((403, "token_used"), ExitCode.TOKEN_USED),
        ((403, "token_expired"), ExitCode.TOKEN_EXPIRED),
        ((401, "token_unknown"), ExitCode.TOKEN_UNKNOWN),
        ((403, "wrong_network"), ExitCode.WRONG_NETWORK),
        ((403, "enrolment_rejected"), ExitCode.REJECTED),
        ((500, "bug"), ExitCode.BAD_ANSWER),
        (EnrolmentState.REJECTED, ExitCode.REJECTED),
    ],
)
def test_enrol_when_refused_ends_with_its_own_code_and_the_controllers_words(
    run: Run, bare: NodePaths, controller: FakeController, answer: EnrolmentState | tuple[int, str], exit_code: ExitCode
) -> None:
    controller.answers = [answer]

    error = run.fail()

    assert error.exit_code is exit_code
    if isinstance(answer, tuple):
        assert answer[1] in error.message
    assert not bare.agent_toml.exists()


def test_enrol_when_controller_is_busy_waits_and_succeeds(run: Run, controller: FakeController) -> None:
    controller.answers = [(503, "unavailable"), (429, "rate_limited")]

    run.enrol()

    assert len(run.slept) == 2


@pytest.mark.parametrize("token", ["", "hello", "e1.short", "e2." + "0" * 16 + "." + "0" * 64 + "." + "0" * 64])
def test_enrol_when_token_is_malformed_asks_nobody(run: Run, controller: FakeController, token: str) -> None:
    run.token = token

    assert run.fail().exit_code is ExitCode.TOKEN_MALFORMED
    assert controller.requests == []


def test_enrol_when_pin_is_of_another_authority_sends_nothing(run: Run, controller: FakeController) -> None:
    run.token = run.token.replace(controller.authority.pin, "f" * 64)

    error = run.fail()

    assert error.exit_code is ExitCode.WRONG_PIN
    assert controller.requests == []


def test_enrol_when_one_of_two_pins_fits_succeeds(run: Run, controller: FakeController) -> None:
    run.token = run.token.replace(controller.authority.pin, f"{'f' * 64}.{controller.authority.pin}")

    run.enrol()

    assert len(parse_enrolment_token(run.token).ca_pins) == 2


def test_enrol_when_someone_shows_the_right_ca_with_a_certificate_of_his_own_sends_nothing(
    bare: NodePaths, controller: FakeController, tmp_path: Path
) -> None:
    """A man in the middle can copy /ca.pem; he cannot have a certificate of it."""
    with FakeController(TestAuthority(tmp_path / "middle")).running() as middle:
        middle.files["/ca.pem"] = controller.authority.ca_pem.encode()

        error = Run(bare, middle.url, controller.token).fail()

    assert error.exit_code is ExitCode.WRONG_NAME
    assert middle.requests == []


def test_enrol_when_ca_is_not_served_says_so(run: Run, controller: FakeController) -> None:
    controller.files.clear()

    assert run.fail().exit_code is ExitCode.BAD_ANSWER


@pytest.mark.parametrize(("offset", "word"), [(-3600.0, "ahead of"), (3600.0, "behind")])
def test_enrol_when_clocks_differ_says_by_how_much(
    run: Run, controller: FakeController, offset: float, word: str
) -> None:
    controller.clock_offset_seconds = offset

    error = run.fail()

    assert error.exit_code is ExitCode.CLOCK_OFF
    assert word in error.message
    assert controller.requests == []


def test_enrol_when_clocks_differ_a_little_succeeds(run: Run, controller: FakeController) -> None:
    controller.clock_offset_seconds = 60.0

    run.enrol()


def test_enrol_when_port_is_closed_says_so(run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run.url = f"https://localhost:{port}"

    error = run.fail()

    assert error.exit_code is ExitCode.CONTROLLER_UNREACHABLE
    assert f"port {port} of localhost is closed" in error.message


def test_enrol_when_name_does_not_resolve_says_so(run: Run) -> None:
    run.url = "https://no-such-host.invalid:8360"

    error = run.fail()

    assert error.exit_code is ExitCode.CONTROLLER_UNREACHABLE
    assert "cannot be resolved" in error.message


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:8360", "https://", "https://user@localhost", "https://x:99999"]
)
def test_enrol_when_url_is_none_says_so(run: Run, url: str) -> None:
    run.url = url

    assert run.fail().exit_code is ExitCode.USAGE


def test_enrol_when_machine_is_a_node_of_another_controller_is_refused(
    run: Run, bare: NodePaths, tmp_path: Path
) -> None:
    run.enrol()
    with FakeController(TestAuthority(tmp_path / "other")).running() as other:
        error = Run(bare, other.url, other.token).fail()

    assert error.exit_code is ExitCode.OTHER_CLUSTER
    assert "uninstall" in str(error.hint).lower()
    assert other.requests == []


def test_enrol_when_certificate_has_expired_enrols_anew(
    run: Run, bare: NodePaths, authority: TestAuthority, controller: FakeController
) -> None:
    run.enrol()
    bare.node_pem.write_text(authority.issue_pem("old", lifetime=-dt.timedelta(days=1)))

    outcome = run.enrol()

    assert outcome.is_new is True  # type: ignore[attr-defined]
    assert parse_not_after(bare.node_pem.read_text()) > dt.datetime.now(dt.UTC)


def test_enrol_never_writes_through_a_link_that_somebody_left(run: Run, bare: NodePaths, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (bare.tls_dir / ".node.pem.new").symlink_to(victim)
    bare.node_pem.symlink_to(victim)

    run.enrol()

    assert victim.read_text() == "precious"
    assert not bare.node_pem.is_symlink()
