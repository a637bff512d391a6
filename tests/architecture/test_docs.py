"""What the documents say is what the code does: links, commands, settings, exit codes, states, paths."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.install.status import EXIT_CONNECTED, EXIT_NOT_CONNECTED, EXIT_NOT_ENROLLED
from agent.link.setup_errors import ExitCode
from cli.audit_log import verify
from cli.exit_codes import ExitCode as CommandExitCode
from cli.global_options import SWITCHES, WITH_VALUE
from controller.__main__ import _parser as build_wcpd_parser
from controller.jobs.states import JobState
from controller.settings import Settings, parse_settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packaging/**/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
SOURCES = [
    path for folder in ("shared", "agent", "controller", "cli") for path in sorted((ROOT / folder).rglob("*.py"))
]
NODES = ROOT / "docs/operations/nodes.md"
CONTROLLER = ROOT / "docs/operations/controller.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
COMMANDS = ROOT / "tests/integration/cli/commands.txt"
OWN_COMMANDS = {"login", "logout", "events", "logs", "profile", "completion"}
"""Of the command line itself, from cli/own_commands.py."""
MAX_ADR_LINES = 25


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def table_rows(path: Path, *, first: str) -> dict[str, list[str]]:
    """First cell (without backticks) to the other cells, of the table whose head begins with `first`."""
    rows: dict[str, list[str]] = {}
    is_inside = False
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            is_inside = False
        elif cells[0] == first:
            is_inside = True
        elif is_inside and set(cells[0]) - set("-: "):
            rows[cells[0].replace("`", "")] = cells[1:]
    return rows


def anchors_of(path: Path) -> set[str]:
    """As the usual renderers make them from headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(path: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_when_followed_lead_somewhere(path: Path) -> None:
    broken = []
    for target in links_of(path):
        file_name, _, anchor = target.partition("#")
        found = (path.parent / file_name).resolve() if file_name else path
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            broken.append(target)

    assert broken == []


def test_documents_when_counted_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for target in links_of(path):
            found = (path.parent / target.partition("#")[0]).resolve()
            waiting += sorted(found.glob("*.md")) if found.is_dir() else [found] if found.suffix == ".md" else []

    assert [name_of(path) for path in DOCUMENTS if path not in seen] == []


def test_settings_when_listed_are_those_of_the_code_with_their_defaults() -> None:
    defaults = parse_settings({})
    wanted = {
        name: "empty" if (value := getattr(defaults, name)) in ("", (), None) else f"`{value}`"
        for name in Settings.__struct_fields__
    }

    assert {name: cells[0] for name, cells in table_rows(CONTROLLER, first="setting").items()} == wanted


def test_exit_codes_when_listed_are_those_of_the_installer() -> None:
    written = {int(code): cells[0].strip("`") for code, cells in table_rows(NODES, first="code").items()}

    assert written == {int(code): code.name for code in ExitCode}


def test_exit_codes_when_the_script_uses_them_are_known() -> None:
    script = (ROOT / "packaging/install/install.sh").read_text()
    used = {int(code) for code in re.findall(r"\bfail (\d+) ", script)}

    assert used
    assert used <= {int(code) for code in ExitCode}


def test_exit_codes_of_status_when_told_are_those_of_the_code() -> None:
    told = f"ends with {EXIT_CONNECTED} when connected, {EXIT_NOT_CONNECTED} when not, {EXIT_NOT_ENROLLED} when"

    assert told in NODES.read_text()


def test_exit_codes_of_the_command_line_when_listed_are_those_of_the_code() -> None:
    written = {int(code) for code in table_rows(ROOT / "docs/cli.md", first="status")}

    assert written == {int(code) for code in CommandExitCode}


def unit_values(unit: str, directive: str) -> list[str]:
    text = (ROOT / "packaging/systemd" / unit).read_text()
    return re.findall(rf"^{directive}=(.*)$", text, re.MULTILINE)


def test_security_when_it_names_capabilities_names_those_of_the_unit() -> None:
    sentence = re.search(r"The executor's capabilities \((.+?)\)", (ROOT / "SECURITY.md").read_text(), re.DOTALL)
    assert sentence is not None
    told = {f"CAP_{name}" for name in re.findall(r"\b[A-Z][A-Z_]{3,}\b", sentence.group(1))}

    assert told == set(unit_values("wcp-executor.service", "CapabilityBoundingSet")[0].split())


def test_security_when_it_claims_a_split_the_units_make_it() -> None:
    assert unit_values("wcp-agent.service", "CapabilityBoundingSet") == [""]
    assert unit_values("wcp-agent.service", "User") == ["wcp-agent"]
    assert unit_values("wcp-agent.service", "NoNewPrivileges") == ["yes"]
    assert unit_values("wcp-executor.service", "PrivateNetwork") == ["yes"]
    assert unit_values("wcp-executor.socket", "SocketGroup") == ["wcp-agent"]
    assert unit_values("wcp-executor.socket", "SocketMode") == ["0660"]


def test_job_states_when_explained_are_all_there_are() -> None:
    written = [
        state.strip() for cell in table_rows(CONTROLLER, first="state") for state in cell.split(",") if state.strip()
    ]

    assert sorted(written) == sorted(state.value for state in JobState)


def test_metrics_when_listed_are_those_of_the_code() -> None:
    sources = ("metrics/registry.py", "fleet/nodes/metrics.py", "core/rate_limits/counters.py")
    files = (ROOT / "controller" / source for source in sources)
    exported = {name for path in files for name in re.findall(r'"(wcp360_[a-z_]+)"', path.read_text())}
    listed = {name.strip() for cell in table_rows(CONTROLLER, first="metric") for name in cell.split(",")}

    assert listed == exported


def wcpd_commands() -> set[str]:
    parsers = [action for action in build_wcpd_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return {name for parser in parsers for name in parser.choices}


def test_wcpd_commands_when_listed_are_those_of_the_code() -> None:
    listed = {cell.split()[1] for cell in table_rows(CONTROLLER, first="command")}

    assert listed == wcpd_commands()


def words_after(program: str, path: Path) -> Iterator[tuple[str, str]]:
    """What is written as a call of the program: its first two words that are no options."""
    for rest in re.findall(rf"(?<![\w/.-]){program} ([^`\n\"|;&]*)", path.read_text()):
        words = re.sub(r"--(?:ca-file|profile|controller) \S+|(?<!\S)--?[a-z-]+(?:=\S+)?", "", rest).split()
        if words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            yield words[0], words[1].rstrip(".,:)") if len(words) > 1 else ""


def test_commands_of_wcp360_when_written_anywhere_exist() -> None:
    known = {tuple(line.split()[:2]) for line in COMMANDS.read_text().splitlines()[1:]}
    names = {word for pair in known for word in pair}
    unknown = [
        f"{name_of(path)}: wcp360 {noun} {verb}"
        for path in [*DOCUMENTS, *SOURCES]
        for noun, verb in words_after("wcp360", path)
        if is_call(path, noun, verb, names) and (noun, verb.split("|")[0]) not in known and verb not in ("", "VERB")
    ]

    assert set(unknown) == set()


def test_options_of_wcp360_when_written_in_documents_exist() -> None:
    known = {
        tuple(line.split()[:2]): set(re.findall(r" (--[a-z-]+)", line)) for line in COMMANDS.read_text().splitlines()
    }
    known["audit", "verify"] |= {option for item in verify.params for option in item.opts}
    known["audit", "export"] |= {"--output"}
    for options in known.values():
        options |= {f"--no-{option.removeprefix('--')}" for option in options}
    always = set(SWITCHES) | set(WITH_VALUE) | {"--help"}
    unknown = []
    for path in DOCUMENTS:
        for noun, verb, rest in re.findall(r"wcp360 ([a-z-]+) ([a-z-]+)((?: [^`\n|;&#]*)?)", path.read_text()):
            used = set(re.findall(r"(?<!\S)(--[a-z-]+)", rest))
            unknown += [
                f"{name_of(path)}: {noun} {verb} {option}" for option in used - known.get((noun, verb), used) - always
            ]

    assert unknown == []


def is_call(path: Path, noun: str, verb: str, names: set[str]) -> bool:
    """In a document every mention is a call; in the sources some are sentences about the program."""
    return noun not in OWN_COMMANDS and (
        path.suffix == ".md" or noun in names or verb in names or "-" in verb.removeprefix("wcp-")
    )


def test_targets_of_make_when_written_anywhere_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = [
        f"{name_of(path)}: make {target}"
        for path in [*DOCUMENTS, *SOURCES]
        for target in re.findall(r"(?:`|\(|^)make ([a-z-]+)(?=[`) \n])", path.read_text(), re.MULTILINE)
        if target not in targets
    ]

    assert unknown == []


def test_commands_of_the_makefile_when_they_call_wcpd_exist() -> None:
    called = set(re.findall(r"-m controller ([a-z-]+)", (ROOT / "Makefile").read_text()))

    assert called
    assert called <= wcpd_commands()


def test_code_map_when_followed_names_what_exists() -> None:
    missing = []
    for folder, cells in table_rows(ARCHITECTURE, first="folder").items():
        places = [place.replace("<name>/", "") for place in folder.split(", ")]
        missing += [place for place in places if not (ROOT / place).is_dir()]
        missing += [
            f"{folder} {file_name}"
            for file_name in re.findall(r"`([^`]+)`", cells[1])
            # Beside the folder, where a row has several of them.
            if not any(
                (base / file_name).exists() for place in places for base in (ROOT / place, (ROOT / place).parent)
            )
        ]

    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_paths_when_written_in_documents_exist(path: Path) -> None:
    tops = "shared|agent|controller|cli|packaging|tests|docs"
    written = re.findall(rf"`((?:{tops})/[\w./<>-]+)`", path.read_text())
    missing = [name for name in written if "<" not in name and not (ROOT / name).exists()]

    assert missing == []


def test_decisions_when_listed_are_numbered_without_gaps_and_short() -> None:
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    long = [path.name for path in pages if len(path.read_text().splitlines()) > MAX_ADR_LINES]

    assert [int(path.name[:4]) for path in pages] == list(range(1, len(pages) + 1))
    assert long == []
