"""`checkrein hook install claude-code`: the settings that make Claude Code ask before it acts."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkrein.cli.hook.entry import Options

_FILES = {
    "project": ".claude/settings.json", "local": ".claude/settings.local.json",
    "user": "~/.claude/settings.json",
}  # fmt: skip
_WITH_MATCHER = ("PreToolUse", "PostToolUse", "PostToolUseFailure")
_BLOCKING = ("PreToolUse", "UserPromptSubmit")
_MARK = " hook claude-code"
QUICK_S = 10
SLACK_S = 30
"""How much longer than an approval Claude Code waits for the hook."""


def install(options: "Options") -> int:
    """Prints the settings, or merges them into the file of the scope. Exit code 0, or 2."""
    if options.words != ["install", "claude-code"]:
        sys.stderr.write("checkrein hook: hooks can be installed for claude-code\n")
        return 2
    hooks = settings(_command(options), options.wait_s)
    if "--write" not in options.flags:
        sys.stdout.write(json.dumps({"hooks": hooks}, indent=2) + "\n")
        return 0
    path = os.path.expanduser(_FILES[options.get("--scope", "project")])
    try:
        before = _read(path)
        merged = merge(before, hooks)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        new = f"{path}.{os.getpid()}"
        with open(new, "w") as file:
            file.write(json.dumps(merged, indent=2) + "\n")
        os.replace(new, path)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"checkrein hook: {path} was left as it is: {error}\n")
        return 2
    sys.stdout.write(f"{path} has Checkrein's hooks; Claude Code reads them when it starts\n")
    return 0


def settings(command: str, wait_s: float) -> dict[str, Any]:
    """The hooks of each event. A call that must not be made without an answer is blocked when the
    hook cannot be started, too (`onFailure`, Claude Code 2.1.295 and later)."""
    found: dict[str, Any] = {}
    for event in ("UserPromptSubmit", "PreToolUse", "PostToolUse", "PostToolUseFailure",
                  "SessionEnd"):  # fmt: skip
        timeout_s = round(wait_s) + SLACK_S if event == "PreToolUse" else QUICK_S
        hook: dict[str, Any] = {"type": "command", "command": command, "timeout": timeout_s}
        if event in _BLOCKING:
            hook["onFailure"] = "block"
        group: dict[str, Any] = {"matcher": "*"} if event in _WITH_MATCHER else {}
        found[event] = [group | {"hooks": [hook]}]
    return found


def merge(before: Mapping[str, Any], hooks: Mapping[str, Any]) -> dict[str, Any]:
    """Ours put in the place of what we had put there; all else stays. Raises ValueError for
    settings that are not Claude Code's."""
    kept = before.get("hooks", {})
    if not isinstance(kept, dict):
        raise ValueError("its `hooks` is no object")
    merged = dict(kept)
    for event, groups in hooks.items():
        others = merged.get(event, [])
        if not isinstance(others, list):
            raise ValueError(f"its `hooks.{event}` is no list")
        merged[event] = [*filter(None, map(_without_ours, others)), *groups]
    return dict(before) | {"hooks": merged}


def _without_ours(group: Any) -> Any:
    if not isinstance(group, dict) or not isinstance(group.get("hooks"), list):
        return group
    others = [hook for hook in group["hooks"] if not _is_ours(hook)]
    return group | {"hooks": others} if others else None


def _is_ours(hook: Any) -> bool:
    command = str(hook.get("command", "")) if isinstance(hook, dict) else ""
    return "checkrein" in command and _MARK in command


def _command(options: "Options") -> str:
    found = shutil.which("checkrein")
    words = [found] if found else [sys.executable, "-m", "checkrein"]
    words += ["hook", "claude-code"]
    for name in ("--key-file", "--gateway", "--run", "--on-error", "--ask", "--wait"):
        if options.get(name):
            value = options.get(name)
            words += [name, os.path.abspath(value) if name == "--key-file" else value]
    if "--grant" in options.flags:
        words.append("--grant")
    return shlex.join(words)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path) as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
