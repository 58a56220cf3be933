"""The least that an agent needs: a pact written from what it really did, for somebody to review.

    learner = Learner()
    for event in events: learner.see(event)
    text = learner.text("support-bot")

Only calls that were made and succeeded count. What the text allows is what was seen, rounded up a
little; every line that rests on few observations says so. Each comment gives the evidence, so that
a reviewer decides and does not guess.
"""

import math
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import msgspec

from checkrein.events.types import (
    Base,
    ModelResponse,
    RunEnd,
    RunStart,
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy.kinds import seems_read

VALUES_MAX = 12
"""Texts with at most so many different values are a list; others may be anything."""
USES_MIN = 5
"""Fewer uses than this say too little to limit an argument by."""
MARGIN = 1.25
RUNS_MAX = 4096
CALLS_MAX = 4096
TOOLS_MAX = 500
_PATHS = ("path", "file", "filename", "filepath", "directory", "folder", "dir")
_URLS = ("url", "uri", "link", "endpoint", "webpage")


class Argument(msgspec.Struct):
    """What one argument of a tool was given. `texts` empty and `many` True: too many to list."""

    uses: int = 0
    types: Counter[str] = msgspec.field(default_factory=Counter)
    low: float = math.inf
    high: float = -math.inf
    texts: Counter[str] = msgspec.field(default_factory=Counter)
    many: bool = False
    hosts: set[str] = msgspec.field(default_factory=set)
    folders: set[str] = msgspec.field(default_factory=set)


class Tool(msgspec.Struct):
    uses: int = 0
    failed: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    arguments: dict[str, Argument] = {}
    runs: set[str] = msgspec.field(default_factory=set)


class Spending(msgspec.Struct):
    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    began: int = 0
    ended: int = 0


class Learner:
    """Not for several threads. State: 500 tools, 4,096 runs and open calls at once."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.models: Counter[str] = Counter()
        self.runs: dict[str, Spending] = {}
        self.finished: list[Spending] = []
        self._open: dict[tuple[str, str], tuple[str, str, Any]] = {}
        self._arguments: dict[tuple[str, str], Any] = {}

    def see(self, event: Base) -> None:
        run = self._run(event)
        run.ended = event.ts
        key = (event.run_id, getattr(event, "call_id", ""))
        match event:
            case RunStart():
                run.began = event.ts
            case StepStart():
                run.steps += 1
            case ModelResponse() if not event.error:
                if event.model:
                    self.models[event.model] += 1
                run.tokens += event.input_tokens + event.output_tokens
                run.usd += event.usd or 0.0
            case ToolArguments():
                if len(self._arguments) < CALLS_MAX:
                    self._arguments[key] = event.arguments
            case ToolInvoked():
                if len(self._open) >= CALLS_MAX:
                    del self._open[next(iter(self._open))]
                self._open[key] = (event.tool, event.kind, self._arguments.pop(key, None))
            case ToolReturned():
                made = self._open.pop(key, None)
                if made is not None:
                    run.tool_calls += 1
                    self._learn(event.run_id, *made, ok=event.status == "ok")
            case RunEnd():
                self.finished.append(self.runs.pop(event.run_id))
            case _:
                pass

    def _run(self, event: Base) -> Spending:
        run = self.runs.get(event.run_id)
        if run is None:
            if len(self.runs) >= RUNS_MAX:
                self.finished.append(self.runs.pop(next(iter(self.runs))))
            run = self.runs[event.run_id] = Spending(began=event.ts, ended=event.ts)
        return run

    def _learn(self, run_id: str, name: str, kind: str, arguments: Any, *, ok: bool) -> None:
        if name not in self.tools and len(self.tools) >= TOOLS_MAX:
            return
        tool = self.tools.setdefault(name, Tool())
        if not ok:
            tool.failed += 1
            return
        tool.uses += 1
        tool.runs.add(run_id)
        if kind:
            tool.kinds[kind] += 1
        for field, value in arguments.items() if isinstance(arguments, dict) else ():
            _take(tool.arguments.setdefault(str(field), Argument()), str(field), value)

    # -- the text -----------------------------------------------------------------------------

    def text(self, agent: str, *, owner: str = "", period: str = "") -> str:
        """The pact as YAML. It can be loaded as it stands, and should be read first."""
        runs = self.finished + list(self.runs.values())
        lines = [
            f"# Learned from {len(runs)} runs of {agent}{f' in {period}' if period else ''}. "
            "Read every line before it is pushed.",
            f"pact: {_quoted(agent)}",
            "job: to be said  # one sentence: what is this agent for?",
        ]
        if owner:
            lines.append(f"owner: {_quoted(owner)}")
        if self.models:
            lines.append(f"models: [{', '.join(_quoted(one) for one in sorted(self.models))}]")
        lines.append("tools:" if self.tools else "tools: {}  # it called none")
        used = [(name, tool) for name, tool in sorted(self.tools.items()) if tool.uses]
        for name, tool in used:
            lines.extend(self._tool(name, tool))
        for name in sorted(set(self.tools) - {name for name, _ in used}):
            lines.append(f"  # {_comment(name)}: {self.tools[name].failed} calls, none succeeded")
        lines.extend(_budgets(runs))
        lines.append("flow: [directive, learned]  # asks while it knows little of a kind of task")
        return "\n".join(lines) + "\n"

    def _tool(self, name: str, tool: Tool) -> list[str]:
        kind, why = _kind(name, tool)
        lines = [
            f"  {_quoted(name)}:  # {tool.uses} calls in {len(tool.runs)} runs"
            + (f", {tool.failed} failed" if tool.failed else ""),
            f"    kind: {kind}{f'  # {why}' if why else ''}",
        ]
        shape = [f"{_quoted(field)}: {_type(one, tool.uses)}"
                 for field, one in sorted(tool.arguments.items())]  # fmt: skip
        if shape:
            lines.append(f"    arguments: {{{', '.join(shape)}}}")
        if tool.uses >= USES_MIN and kind != "read":
            wanted = [_condition(field, one) for field, one in sorted(tool.arguments.items())
                      if one.uses == tool.uses]  # fmt: skip
            conditions = [one for one in wanted if one]
            if conditions:
                lines.append(f"    allow: {_quoted(' && '.join(conditions))}")
        for word, field_of in (("hosts", "hosts"), ("paths", "folders")):
            scopes = [
                f"{_quoted('args.' + field)}: [{', '.join(_quoted(x) for x in sorted(found))}]"
                for field, one in sorted(tool.arguments.items())
                if (found := getattr(one, field_of)) and len(found) <= VALUES_MAX
            ]
            if scopes:
                lines.append(f"    {word}: {{{', '.join(scopes)}}}")
        return lines


def _take(argument: Argument, field: str, value: Any) -> None:
    argument.uses += 1
    match value:
        case bool():
            argument.types["boolean"] += 1
        case int():
            argument.types["integer"] += 1
        case float():
            argument.types["number"] += 1
        case str():
            argument.types["string"] += 1
            _take_text(argument, field, value)
        case list():
            argument.types["array"] += 1
        case dict():
            argument.types["object"] += 1
        case _:
            argument.types["any"] += 1
    if isinstance(value, int | float) and not isinstance(value, bool):
        argument.low, argument.high = min(argument.low, value), max(argument.high, value)


def _take_text(argument: Argument, field: str, value: str) -> None:
    if not argument.many:
        argument.texts[value] += 1
        if len(argument.texts) > VALUES_MAX or len(value) > 200:
            argument.many = True
            argument.texts.clear()
    word = field.lower()
    if any(word == one or word.endswith(f"_{one}") for one in _URLS) and "://" in value:
        host = urlsplit(value).hostname if len(argument.hosts) <= VALUES_MAX else None
        if host:
            argument.hosts.add(host)
    if any(word == one or word.endswith(f"_{one}") for one in _PATHS) and "/" in value:
        folder = value.rpartition("/")[0]
        if len(argument.folders) <= VALUES_MAX and not any(sign in folder for sign in "*?["):
            argument.folders.add(f"{folder}/**")


def _kind(name: str, tool: Tool) -> tuple[str, str]:
    if tool.kinds:
        return tool.kinds.most_common(1)[0][0], ""
    if seems_read(name):
        return "read", "by its name; nobody has declared it"
    return "irreversible", "nobody has declared it, so the worst is taken"


def _type(argument: Argument, uses: int) -> str:
    types = set(argument.types)
    if types == {"integer", "number"}:
        types = {"number"}
    word = next(iter(types)) if len(types) == 1 else "any"
    return word if argument.uses == uses else f"{word}?"


def _condition(field: str, argument: Argument) -> str:
    if not field.isidentifier():
        return ""
    if set(argument.types) <= {"integer", "number"} and math.isfinite(argument.high):
        bound = _rounded_up(argument.high * MARGIN if argument.high > 0 else argument.high)
        return f"args.{field} <= {bound}"
    few = set(argument.types) == {"string"} and not argument.many
    if few and argument.uses >= 2 * len(argument.texts) and len(argument.texts) <= 5:
        texts = ", ".join(_literal(text) for text in sorted(argument.texts))
        return f"args.{field} in [{texts}]"
    return ""


def _budgets(runs: list[Spending]) -> list[str]:
    if not runs:
        return []
    said = []
    for name in ("steps", "tool_calls", "tokens", "usd"):
        most = max(getattr(run, name) for run in runs)
        if most > 0:
            said.append(f"{name}: {_rounded_up(most * MARGIN)}")
    longest_s = max((run.ended - run.began) / 1e9 for run in runs)
    if longest_s > 0:
        said.append(f"wall: {max(1, math.ceil(longest_s * MARGIN))}s")
    if not said:
        return []
    return [
        f"budgets: {{{', '.join(said)}}}  # the most that any of {len(runs)} runs took, "
        f"and {MARGIN - 1:.0%} more"
    ]


def _rounded_up(value: float) -> str:
    """Two digits are enough for a limit."""
    if value <= 0:
        return f"{value:g}"
    size = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded = math.ceil(value / size - 1e-9) * size
    return str(math.ceil(rounded)) if rounded >= 10 else f"{rounded:.6g}"


def _quoted(text: str) -> str:
    plain = text.isascii() and text.replace("_", "a").replace("-", "a").isalnum()
    wordy = plain and not text[:1].isdigit() and text.lower() not in (
        "true", "false", "null", "yes", "no", "on", "off", "y", "n",
    )  # fmt: skip
    return text if wordy else _literal(text)


def _comment(text: str) -> str:
    return _literal(text)


def _literal(text: str) -> str:
    """In double quotes, as YAML and conditions both read it."""
    shown = (
        f"\\{char}" if char in '"\\' else char if " " <= char <= "~" else f"\\U{ord(char):08x}"
        for char in text.encode("utf-8", "replace").decode("utf-8")
    )
    return f'"{"".join(shown)}"'
