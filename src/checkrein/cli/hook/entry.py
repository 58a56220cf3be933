"""`checkrein hook claude-code`: reads one event, asks, says what came of it.

Exits 0 with what is to be said on stdout; 2 (which blocks) when the hook itself is at fault.
"""

from __future__ import annotations

import json
import os
import sys

from checkrein.cli.hook import claude_code
from checkrein.cli.hook.asking import HookError, ask, key_of, place_of

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence

INPUT_BYTES_MAX = 16 * 1024 * 1024
USAGE = """\
Usage: checkrein hook claude-code [EVENT] [OPTIONS]    answer one hook event, read from stdin
       checkrein hook install claude-code [OPTIONS]    print the settings, or --write them

EVENT is taken from stdin; pre-tool, post-tool, post-tool-failure, prompt or end say it otherwise.

  --key-file FILE          the agent's key (default: CHECKREIN_KEY)
  --gateway ADDRESS        http://HOST:PORT or a socket's path (default: CHECKREIN_GATEWAY, else
                           that of this user's `checkrein up`)
  --run NAME               the run's name (default: the session's id)
  --on-error deny|allow    what to answer when nobody decides (default: deny)
  --ask approvals|terminal who approves what a person must approve: Checkrein's approvers, or
                           whoever sits at the terminal (default: approvals)
  --wait SECONDS           how long to wait for an approval (default: 540)
  --grant                  what the pact allows needs no permission of the coding agent's own

install only:
  --write                  merge into the settings file instead of printing
  --scope project|user|local   which file (default: project)
"""
_TAKES = {
    "--key-file": None, "--gateway": None, "--run": None, "--on-error": ("deny", "allow"),
    "--ask": ("approvals", "terminal"), "--wait": None, "--scope": ("project", "user", "local"),
}  # fmt: skip
_FLAGS = ("--grant", "--write")


class Misused(Exception):
    """What was typed makes no sense. Says what would."""


class Options:
    """What was typed: words in order, options by name, flags."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.words: list[str] = []
        self.flags: set[str] = set()
        self.given: dict[str, str] = {}
        rest = iter(arguments)
        for argument in rest:
            name, equals, value = argument.partition("=")
            if not argument.startswith("-"):
                self.words.append(argument)
            elif argument in _FLAGS:
                self.flags.add(argument)
            elif name in _TAKES:
                self.given[name] = _choice(name, value if equals else next(rest, ""))
            else:
                raise Misused(f"no option {argument!r}; `checkrein hook --help` lists them")
        try:
            self.wait_s = float(self.get("--wait", "540"))
        except ValueError:
            raise Misused(f"--wait takes seconds, got {self.get('--wait')!r}") from None
        if not 0 <= self.wait_s <= 3600:
            raise Misused("--wait takes 0 to 3600 seconds")

    def get(self, name: str, default: str = "") -> str:
        return self.given.get(name, default)


def main(arguments: Sequence[str]) -> int:
    """The exit code. Never raises an Exception: a hook that fails must block."""
    try:
        if not arguments or set(arguments) & {"-h", "--help"}:
            sys.stdout.write(USAGE)
            return 0 if arguments else 2
        options = Options(arguments)
        if options.words[:1] == ["install"]:
            from checkrein.cli.hook.install import install

            return install(options)
        if options.words[:1] != ["claude-code"] or len(options.words) > 2:
            raise Misused("hooks are known of claude-code: `checkrein hook --help`")
        return _hook(options)
    except Misused as error:
        sys.stderr.write(f"checkrein hook: {error}\n")
    except Exception as error:
        sys.stderr.write(f"checkrein hook failed, so no: {type(error).__name__}: {error}\n")
    return 2


def _hook(options: Options) -> int:
    data = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    if len(data) > INPUT_BYTES_MAX:
        raise Misused(f"the event on stdin is over {INPUT_BYTES_MAX} bytes")
    try:
        given = json.loads(data)
    except ValueError as error:
        raise Misused(f"stdin is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise Misused("stdin is no JSON object")
    event = claude_code.event_of(given, options.words[1] if len(options.words) > 1 else "")
    if not event:
        return 0
    manner = claude_code.Manner(
        grant="--grant" in options.flags, terminal=options.get("--ask") == "terminal",
        run=options.get("--run"), wait_s=options.wait_s,
    )  # fmt: skip
    body = claude_code.question(event, given, manner)
    try:
        place = place_of(options.get("--gateway"), os.environ)
        told = ask(place, key_of(options.get("--key-file"), os.environ), body, options.wait_s)
    except HookError as error:
        return _unanswered(event, str(error), options.get("--on-error", "deny"))
    _say(claude_code.answer(event, told, manner))
    return 0


def _unanswered(event: str, why: str, on_error: str) -> int:
    refusal = claude_code.refusal(event, why) if on_error == "deny" else {}
    if refusal:
        _say(refusal)
        return 0
    sys.stderr.write(f"checkrein: {why}\n")
    if on_error == "allow":
        _say({"systemMessage": f"checkrein: not asked: {why}"})
        return 0
    return 1


def _say(said: dict[str, object]) -> None:
    if said:
        sys.stdout.write(json.dumps(said) + "\n")


def _choice(name: str, value: str) -> str:
    choices = _TAKES[name]
    if not value or (choices and value not in choices):
        raise Misused(f"{name} takes {' or '.join(choices) if choices else 'a value'}")
    return value
