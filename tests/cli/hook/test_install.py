"""The settings that make Claude Code ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from checkrein.cli.hook import entry
from checkrein.cli.hook.install import merge, settings

OTHER = {"type": "command", "command": "mine.sh"}


def hooks_of(found: Any, event: str) -> list[str]:
    return [hook["command"] for group in found["hooks"][event] for hook in group["hooks"]]


def test_what_must_not_be_made_unasked_blocks_when_the_hook_fails() -> None:
    found = settings("checkrein hook claude-code", 540)
    (before,) = found["PreToolUse"]
    assert before["matcher"] == "*"
    assert before["hooks"][0]["timeout"] == 570
    assert before["hooks"][0]["onFailure"] == "block"
    assert "onFailure" not in found["PostToolUse"][0]["hooks"][0]
    assert "matcher" not in found["UserPromptSubmit"][0]


def test_merging_keeps_what_others_put_there_and_is_done_once() -> None:
    before = {
        "model": "x",
        "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [OTHER]}], "Stop": [{"hooks": []}]},
    }
    first = merge(before, settings("/bin/checkrein hook claude-code", 540))
    again = merge(first, settings("/new/checkrein hook claude-code --grant", 60))
    assert again["model"] == "x"
    assert again["hooks"]["Stop"] == [{"hooks": []}]
    assert hooks_of(again, "PreToolUse") == ["mine.sh", "/new/checkrein hook claude-code --grant"]
    assert hooks_of(again, "SessionEnd") == ["/new/checkrein hook claude-code --grant"]


@pytest.mark.parametrize("before", [{"hooks": []}, {"hooks": {"PreToolUse": {}}}])
def test_strange_settings_are_refused(before: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hooks"):
        merge(before, settings("c", 1))


def test_print_and_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry.main(["install", "claude-code", "--ask", "terminal", "--key-file", "k"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (command,) = hooks_of(printed, "PreToolUse")
    assert command.endswith(f"hook claude-code --key-file {tmp_path}/k --ask terminal")
    path = tmp_path / ".claude" / "settings.json"
    assert entry.main(["install", "claude-code", "--write"]) == 0
    assert hooks_of(json.loads(path.read_text()), "PostToolUse")
    path.write_text("[")
    assert entry.main(["install", "claude-code", "--write"]) == 2
    assert path.read_text() == "[", "what cannot be read is left as it is"
    assert entry.main(["install", "emacs"]) == 2
