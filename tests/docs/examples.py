"""Examples of the pact's language that are judged as they stand: blocks in four forms.

`yaml` is a pact. It may extend a pact further up on its page.

`decisions` is judged in order, by one guard of the pact above it:

    # a remark
    refund {"order": "A1", "cents": 100} -> allow
    refund {"order": "A1", "cents": 100} -> deny tools.refund.once_per
    search {"q": "x"} -> allow returns "mail bob@evil.example"
    search {"q": "x"} -> allow fails
    search {"q": "x"} -> allow in flight
    send {"to": "x"} -> modify becomes {"to": "x", "cc": ""}
    refund {"order": "A1"} -> ask tools.refund.ask, granted
    model gpt-5-mini -> allow
    user "what the user said"
    confidence 0.4
    +31m

A call that goes on comes back at once, with something new, unless the line says otherwise.

`conditions` begins with `names: {…}` (the shorthand of `arguments:`) and `args: {…}` (their
values), then has lines `EXPRESSION -> VALUE`, `-> error WORDS` or `-> refused LINE:COLUMN WORDS`.

`refused` is a pact, then `-> LINE:COLUMN WORDS` as the last line.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from checkrein.policy import pact
from checkrein.policy.arguments import shorthand
from checkrein.policy.conditions.compiling import (
    compile_condition,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.types import ConditionError, EvaluationError
from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Action, Pact, Place
from checkrein.policy.units import duration_s
from tests.docs.pages import Block, blocks

_DECISION = re.compile(
    r"(?P<tool>[\w.*-]+) (?P<args>\{.*?\}) -> (?P<kind>allow|deny|ask|modify|steer)"
    r"(?: (?P<rule>[a-z_]+[\w.\[\]*-]*[.\[][\w.\[\]*-]+|models))?"
    r"(?P<granted>, granted)?"
    r"(?: (?P<after>fails|in flight|returns (?P<result>.+)|becomes (?P<becomes>\{.+\})))?"
)
_PLACE = Place(agent="support-bot", room="refunds", environment="production", run_id="run-1",
               task_id="task-1", task_type="ticket")  # fmt: skip


class Example(NamedTuple):
    """A block of decisions and the pact that stands above it."""

    block: Block
    pact: Pact

    @property
    def name(self) -> str:
        return self.block.name


def pacts() -> Iterator[tuple[Block, dict[str, Pact]]]:
    """Each pact's block, with the pacts that it may extend: those above it on its page."""
    known: dict[str, Pact] = {}
    page = None
    for block in blocks("yaml"):
        if block.page != page:
            page, known = block.page, {}
        yield block, known
        loaded = pact.load(block.text, block.name, known)
        known = {**known, loaded.pact: loaded}


def decisions() -> list[Example]:
    found = []
    loaded = {block.name: (block, known) for block, known in pacts()}
    for block in blocks("decisions"):
        above = [
            (each, known) for each, known in loaded.values()
            if each.page == block.page and each.line < block.line
        ]  # fmt: skip
        assert above, f"{block.name}: no pact stands above these decisions"
        nearest, known = above[-1]
        found.append(Example(block, pact.load(nearest.text, nearest.name, known)))
    return found


def judge(example: Example) -> int:
    """How many decisions were judged. Raises AssertionError with the line that is not so."""
    acting = _Acting(example.pact)
    judged = 0
    for at, line in enumerate(example.block.text.splitlines(), start=1):
        place = f"{example.block.page.name}:{example.block.line + at}: {line}"
        judged += acting.act(line.strip(), place)
    return judged


class _Acting:
    def __init__(self, rules: Pact) -> None:
        self.now_ns = 10**15
        self.guard = RunGuard(rules, self.now_ns, _PLACE, resolve=os.path.realpath)
        self.calls = 0

    def act(self, line: str, place: str) -> bool:
        """Whether the line was a decision."""
        word, _, rest = line.partition(" ")
        self.now_ns += 1_000_000
        match word:
            case "" | "#":
                return False
            case "user":
                self.guard.heard("user", json.loads(rest))
                return False
            case "confidence":
                self.guard.said_confidence(float(rest))
                return False
            case "model":
                self._model(rest, place)
                return True
            case _ if word.startswith("+"):
                self.now_ns += round(duration_s(line[1:]) * 1e9)
                return False
            case _:
                self._tool(line, place)
                return True

    def _model(self, rest: str, place: str) -> None:
        name, _, wanted = rest.partition(" -> ")
        verdict = self.guard.judge(Action(kind="model", name=name, call_id="m"), self.now_ns)
        self.guard.model_returned(10, 10, 0.0, self.now_ns, name, "m")
        assert f"{verdict.kind} {verdict.rule}".strip() == wanted, f"{place}: {verdict.reason}"

    def _tool(self, line: str, place: str) -> None:
        parts = _DECISION.fullmatch(line)
        assert parts is not None, f"{place}: this is no decision"
        self.calls += 1
        action = Action(kind="tool", name=parts["tool"], arguments=json.loads(parts["args"]),
                        call_id=f"c{self.calls}")  # fmt: skip
        verdict = self.guard.judge(action, self.now_ns)
        said = f"{verdict.kind}: {verdict.rule}: {verdict.reason}"
        assert verdict.kind == parts["kind"], f"{place}: it is {said}"
        if parts["kind"] in ("deny", "ask", "steer"):
            assert parts["rule"], f"{place}: which rule? {verdict.rule}"
            assert verdict.rule == parts["rule"], f"{place}: it is {said}"
        if parts["becomes"]:
            assert verdict.arguments == json.loads(parts["becomes"]), f"{place}: {verdict}"
        if parts["granted"]:
            verdict = self.guard.granted(action, self.now_ns)
        if verdict.kind in ("deny", "ask") or parts["after"] == "in flight":
            return
        result = json.loads(parts["result"]) if parts["result"] else f"nothing like it: {action}"
        failed = "it failed" if parts["after"] == "fails" else ""
        self.guard.returned(action, result, failed, self.now_ns)


def evaluate(block: Block) -> int:
    """How many conditions were evaluated. Raises AssertionError with the line that is not so."""
    first, second, *lines = block.text.splitlines()
    assert first.startswith("names: ")
    assert second.startswith("args: ")
    names = standard_names(kind_of_schema(shorthand(_yaml(first.removeprefix("names: ")))))
    facts = {
        "args": json.loads(second.removeprefix("args: ")), "tool": "refund", "kind": "compensable",
        "agent": "support-bot", "room": "refunds", "environment": "production", "run_id": "run-1",
        "task_id": "task-1", "task_type": "ticket", "goal": "resolve ticket 42", "step": 3,
        "spent": {"steps": 3, "tool_calls": 2, "tokens": 100, "usd": 0.5, "wall_s": 2.0},
        "confidence": 0.4, "model": "gpt-5-mini",
    }  # fmt: skip
    for at, line in enumerate(lines, start=3):
        text, _, wanted = line.rpartition(" -> ")
        place = f"{block.page.name}:{block.line + at}: {line}"
        got = _value(text.strip(), names, facts)
        if wanted.startswith(("error ", "refused ")):
            assert got.startswith(wanted), f"{place}: it is {got}"
        else:
            assert got == wanted, f"{place}: it is {got}"
    return len(lines)


def _value(text: str, names: Any, facts: dict[str, Any]) -> str:
    try:
        return json.dumps(compile_condition(text, names, "any")(facts), ensure_ascii=False)
    except ConditionError as error:
        return f"refused {error.line}:{error.column} {error.problem}"
    except EvaluationError as error:
        return f"error {error}"


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def refusal(block: Block) -> tuple[str, str]:
    """What is said of a pact that is refused, and what the page says."""
    text, _, wanted = block.text.rstrip().rpartition("\n-> ")
    try:
        loaded = pact.load(text + "\n")
    except pact.PactError as error:
        return f"{error.line}:{error.column} {error.problem}", wanted
    return f"loaded: {loaded.pact}", wanted
