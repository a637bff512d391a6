"""The committer against a validator that is a real program."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.contract.actions import ConfigTree
from agent.system.config_tree import Committer, LiveFile, Publication
from shared.errors import ConfigTestError, InvalidInputError

# Notes each run and how many files it saw; never two at a time; refuses what holds `bad`, or `only-one` in two files.
VALIDATOR = """\
#!/bin/sh
dir=$1; log=$2
mkdir "$log.lock" || { echo "two validators at once" >&2; exit 9; }
ls "$dir" | wc -l >> "$log"
status=0
for file in "$dir"/*.conf; do
    [ -e "$file" ] || continue
    if grep -q bad "$file"; then echo "bad word in $file:1" >&2; status=1; fi
done
if [ "$(cat "$dir"/*.conf 2>/dev/null | grep -c only-one)" -gt 1 ]; then echo "only-one twice" >&2; status=1; fi
rmdir "$log.lock"
exit $status
"""


class Bench:
    """A tree in a temporary folder, its committer, and what happened."""

    def __init__(self, folder: Path, *, main_text: str | None = None) -> None:
        self.live = folder / "etc" / "sites"
        self.live.mkdir(parents=True)
        self.log = folder / "log"
        self.reloads: list[str] = []
        self.reloads_at_once = 0
        script = folder / "validator"
        script.write_text(VALIDATOR)
        script.chmod(0o755)
        main = folder / "etc" / "main.conf"
        if main_text is not None:
            main.write_text(main_text)
        self.tree = ConfigTree(
            name="t",
            live_dir=str(self.live),
            validator=(str(script), "{stage_dir}", str(self.log)),
            main_file=None if main_text is None else str(main),
            reload_unit="t.service",
        )
        self.stage_root = folder / "stage"
        self.committer = Committer(self.tree, stage_root=self.stage_root, reload_unit=self._reload)

    async def _reload(self, unit: str) -> None:
        self.reloads_at_once += 1
        assert self.reloads_at_once == 1
        await asyncio.sleep(0)
        self.reloads.append(unit)
        self.reloads_at_once -= 1

    @property
    def tests(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def names(self) -> list[str]:
        return sorted(path.name for path in self.live.iterdir())

    def file(self, name: str, content: str) -> Publication:
        file = LiveFile(content=content.encode(), uid=os.getuid(), gid=os.getgid(), mode=0o644)
        return {str(self.live / f"{name}.conf"): file}

    def removal(self, name: str) -> Publication:
        return {str(self.live / f"{name}.conf"): None}


async def test_publish_when_many_wait_tests_and_reloads_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    await asyncio.gather(*(bench.committer.publish(bench.file(f"s{n}", "ok")) for n in range(20)))

    assert len(bench.names()) == 20
    assert bench.tests == 1
    assert bench.reloads == ["t.service"]


async def test_publish_when_one_of_many_is_bad_only_it_fails_with_the_validators_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    contents = ["bad" if n == 11 else "ok" for n in range(16)]

    outcomes = await asyncio.gather(
        *(bench.committer.publish(bench.file(f"s{n}", text)) for n, text in enumerate(contents)), return_exceptions=True
    )

    refused = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    assert refused == [11]
    assert isinstance(outcomes[11], ConfigTestError)
    assert str(outcomes[11]) == f"bad word in {bench.live}/s11.conf:1"
    assert len(bench.names()) == 15
    assert len(bench.reloads) == 1
    # Halving: the whole, then two tests on each of four levels at most.
    assert bench.tests <= 9


async def test_publish_when_two_contradict_each_other_the_later_one_fails(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    outcomes = await asyncio.gather(
        *(bench.committer.publish(bench.file(name, "only-one\n")) for name in ("a", "b")), return_exceptions=True
    )

    assert outcomes[0] is None
    assert isinstance(outcomes[1], ConfigTestError)
    assert bench.names() == ["a.conf"]


async def test_publish_when_all_are_bad_nothing_is_live_and_nothing_reloads(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    outcomes = await asyncio.gather(
        *(bench.committer.publish(bench.file(name, "bad")) for name in "abc"), return_exceptions=True
    )

    assert all(isinstance(outcome, ConfigTestError) for outcome in outcomes)
    assert bench.names() == []
    assert bench.reloads == []
    assert not bench.stage_root.joinpath("t").exists()


async def test_publish_when_others_arrive_meanwhile_they_join_the_next_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = asyncio.create_task(bench.committer.publish(bench.file("first", "ok")))
    async with asyncio.timeout(10):
        while not bench.stage_root.exists():  # noqa: ASYNC110 - made by another thread
            await asyncio.sleep(0)

    await asyncio.gather(first, *(bench.committer.publish(bench.file(f"late{n}", "ok")) for n in range(5)))

    assert bench.tests == 2
    assert len(bench.reloads) == 2
    assert len(bench.names()) == 6


async def test_publish_when_a_waiter_is_cancelled_the_others_still_finish(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    lost = asyncio.create_task(bench.committer.publish(bench.file("lost", "ok")))
    kept = asyncio.create_task(bench.committer.publish(bench.file("kept", "ok")))
    await asyncio.sleep(0)

    lost.cancel()
    await kept

    assert "kept.conf" in bench.names()


async def test_publish_when_files_are_live_and_loaded_does_neither_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.committer.publish(bench.file("a", "ok"))

    await bench.committer.publish(bench.file("a", "ok"))

    assert bench.tests == 1
    assert len(bench.reloads) == 1


async def test_publish_when_files_of_a_dead_predecessor_are_live_loads_without_a_test(tmp_path: Path) -> None:
    """It may have died between writing and the reload."""
    bench = Bench(tmp_path)
    await bench.committer.publish(bench.file("a", "ok"))
    bench.committer._is_loaded = None

    await bench.committer.publish(bench.file("a", "ok"), is_undo=True)

    assert bench.tests == 1
    assert len(bench.reloads) == 2


async def test_publish_when_a_removal_goes_with_a_change_both_are_judged_together(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.committer.publish(bench.file("old", "only-one\n"))

    await bench.committer.publish({**bench.file("new", "only-one\n"), **bench.removal("old")})

    assert bench.names() == ["new.conf"]


async def test_publish_when_a_path_lies_elsewhere_refuses(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    with pytest.raises(InvalidInputError):
        await bench.committer.publish({str(tmp_path / "etc" / "x.conf"): None})


async def test_publish_when_main_file_does_not_include_the_folder_refuses_to_pretend(tmp_path: Path) -> None:
    bench = Bench(tmp_path, main_text="include /somewhere/else/*;")

    with pytest.raises(ConfigTestError) as caught:
        await bench.committer.publish(bench.file("a", "ok"))

    assert caught.value.code == "config_not_included"


async def test_publish_when_an_include_beside_the_main_file_names_the_folder_it_is_staged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, main_text=f"include {tmp_path}/etc/conf.d/*;")
    extra = tmp_path / "etc" / "conf.d"
    extra.mkdir()
    (extra / "ours.conf").write_text(f"include {bench.live}/*.conf;")
    script = tmp_path / "show"
    script.write_text('#!/bin/sh\ncat "$1" "${1%/*}/conf.d/ours.conf" >&2\nexit 1\n')
    script.chmod(0o755)
    tree = ConfigTree(
        name="t",
        live_dir=str(bench.live),
        validator=(str(script), "{stage}"),
        main_file=bench.tree.main_file,
    )
    seen: list[str] = []
    committer = Committer(tree, stage_root=bench.stage_root, reload_unit=bench._reload)
    translate = committer._stage.translate
    committer._stage.translate = lambda said: translate(seen.append(said) or said)  # type: ignore[method-assign, func-returns-value]

    with pytest.raises(ConfigTestError) as caught:
        await committer.publish(bench.file("a", "ok"))

    stage = bench.stage_root / "t"
    assert seen == [f"include {stage}/main/conf.d/*;include {stage}/live/*.conf;"]
    assert caught.value.message == f"include {tmp_path}/etc/conf.d/*;include {bench.live}/*.conf;"


async def test_publish_when_files_stand_alone_tests_each_changed_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    script = tmp_path / "one"
    script.write_text(f'#!/bin/sh\necho "${{1##*/}}" >> {bench.log}\n! grep bad "$1"\n')
    script.chmod(0o755)
    tree = ConfigTree(name="t", live_dir=str(bench.live), validator=(str(script), "{file}"))
    committer = Committer(tree, stage_root=bench.stage_root, reload_unit=bench._reload)
    await committer.publish(bench.file("a", "ok"))

    with pytest.raises(ConfigTestError):
        await committer.publish(bench.file("b", "bad"))
    await committer.publish(bench.removal("a"))

    assert bench.log.read_text().split() == ["a.conf", "b.conf"]
    assert bench.names() == []
    assert bench.reloads == []
