"""What a service's own validator says about the configuration that is live now, or would be."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from agent.contract.actions import ConfigTree, PublishConfig
from agent.system.config_stage import Overlay, Stage, needs_single_files
from agent.system.runner import run
from agent.system.threads import in_thread
from shared.errors import FleetError

VALIDATOR_SECONDS: Final = 60.0
FILES_MAX: Final = 20
"""Of a tree whose files are judged one by one: the newest ones, since one that passed and is unchanged still does."""
MAX_WORDS_CHARACTERS: Final = 1000


async def find_fault(tree: ConfigTree, stage_root: Path) -> str | None:
    """The validator's words; None when it accepts what is live, or when nothing is."""
    names = await asyncio.to_thread(_list_newest, Path(tree.live_dir))
    if needs_single_files(tree) and not names:
        return None
    return await _judge(Stage(tree, stage_root), {}, names)


async def find_refusal(tree: ConfigTree, stage_root: Path, action: PublishConfig) -> str | None:
    """The validator's words against what is live with this publication over it; None when it accepts that."""
    overlay: dict[str, bytes | None] = {Path(path).name: None for path in action.removals}
    overlay |= {Path(file.path).name: file.content.encode() for file in action.files}
    return await _judge(Stage(tree, stage_root), overlay, tuple(Path(file.path).name for file in action.files))


async def _judge(stage: Stage, overlay: Overlay, names: tuple[str, ...]) -> str | None:
    try:
        await in_thread(partial(stage.build, overlay))
        for argv in stage.commands(names):
            completed = await run(argv, timeout_seconds=VALIDATOR_SECONDS, accepted_codes=range(256))
            if completed.exit_code != 0:
                said = stage.translate(completed.stderr.strip() or completed.stdout)
                return said[:MAX_WORDS_CHARACTERS] or f"{argv[0]} refuses it without a word"
    except FleetError as error:
        return error.message[:MAX_WORDS_CHARACTERS]
    finally:
        await in_thread(stage.remove)
    return None


def _list_newest(live_dir: Path) -> tuple[str, ...]:
    if not live_dir.is_dir():
        return ()
    files = [(path.stat().st_mtime, path.name) for path in live_dir.glob("*.conf") if path.is_file()]
    return tuple(name for _, name in sorted(files, reverse=True)[:FILES_MAX])
