"""What stands in fenced blocks is true: programs run, pacts load, commands exist."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from checkrein.bus.oidc_settings import settings_of as identity_settings
from checkrein.cli.order import full_target
from checkrein.cli.root import root
from checkrein.gateway.settings import settings_of as gateway_settings
from checkrein.server.api.routes.commands import _TARGET
from tests.docs.pages import ROOT, Block, blocks, commands

ENDLESS = "for step in run.steps():\n        search_kb"
"""The one program that goes on until it is halted; tests/docs/test_session.py runs it."""


def _ids(block: Block) -> str:
    return block.name


def _ending() -> list[Block]:
    return [block for block in blocks("python") if ENDLESS not in block.text]


def test_there_are_programs_to_run() -> None:
    assert len(_ending()) >= 4
    assert len(blocks("python")) - len(_ending()) == 1


@pytest.mark.parametrize("block", _ending(), ids=_ids)
def test_programs_run_as_written(block: Block, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(block.text)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHECKREIN_")}
    homes = {"XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True,
        timeout=50, check=False, env={**clean, **homes},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", blocks("json"), ids=_ids)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize(("place", "line"), commands())
def test_commands_exist_with_their_options(place: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), f"{place}: {line}"
        return
    assert words[0] == "checkrein", f"{place}: {line}"
    _parse(words[1:], tmp_path)


def _parse(words: list[str], folder: Path) -> None:
    """As click would, without running. Files that are named are made to be there."""
    command = root.get_command(click.Context(root), words[0])
    assert command is not None, f"no command {words[0]}"
    given = [_there(word, folder) for word in words[1:]]
    context = command.make_context(words[0], given)
    target = context.params.get("target")
    if target is not None:
        assert target == "all" or _TARGET.fullmatch(full_target(target)), target


def _there(word: str, folder: Path) -> str:
    if not re.fullmatch(r"[\w-]+\.(jsonl|jsonl\.gz|yaml)", word):
        return word
    (folder / word).touch()
    return str(folder / word)


@pytest.mark.parametrize("block", blocks("toml"), ids=_ids)
def test_settings_are_taken_as_written(block: Block) -> None:
    config = tomllib.loads(block.text)
    assert config.keys() <= {"gateway", "identity"}
    gateway_settings(config, {})
    identity_settings(config)


def test_words_of_make_in_tables_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set()
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs/figures.md", ROOT / "README.md"):
        named |= set(re.findall(r"`make (\w+)`", page.read_text()))
    assert len(named) >= 8
    for word in named:
        assert re.search(rf"^{word}:", makefile, re.MULTILINE), word
