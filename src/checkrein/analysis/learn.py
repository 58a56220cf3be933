"""What agents really did: the tools they called with which arguments, and what runs took.

    learner = Learner()
    for event in events: learner.see(event)
    text = learn_text.text(learner, "support-bot")

Only calls that were made and succeeded count as evidence.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from checkrein.events.types import (
    Base,
    ModelResponse,
    RunEnd,
    StepStart,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)

VALUES_MAX = 200
"""So many different texts of an argument are remembered; of more, none."""
TEXT_CHARS_MAX = 2_000
NUMBER_MAX = 1e15
RUNS_MAX = 4096
RUNS_COUNTED_MAX = 20_000
CALLS_MAX = 4096
TOOLS_MAX = 500
ARGUMENTS_MAX = 100
MODELS_MAX = 100


class Argument(msgspec.Struct):
    """What one argument of a tool was given. `many`: too many different texts to remember; `odd`: a
    number without a bound (infinite, or too large to be exact)."""

    uses: int = 0
    types: Counter[str] = msgspec.field(default_factory=Counter)
    low: float = math.inf
    high: float = -math.inf
    texts: Counter[str] = msgspec.field(default_factory=Counter)
    many: bool = False
    odd: bool = False


class Tool(msgspec.Struct):
    """`shapeless`: calls whose arguments were no map, or had too many names."""

    uses: int = 0
    failed: int = 0
    shapeless: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    arguments: dict[str, Argument] = msgspec.field(default_factory=dict)
    seen_in: set[int] = msgspec.field(default_factory=set)

    @property
    def runs(self) -> int:
        """In how many runs it was called; from 20,000 on it is no longer counted."""
        return len(self.seen_in)


class Spending(msgspec.Struct):
    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: bool = False
    began: int = 0
    ended: int = 0


class Most(msgspec.Struct):
    """The most that any run took, and how many runs there were."""

    runs: int = 0
    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    wall_s: float = 0.0
    unpriced: bool = False

    def take(self, run: Spending) -> None:
        self.runs += 1
        self.steps = max(self.steps, run.steps)
        self.tool_calls = max(self.tool_calls, run.tool_calls)
        self.tokens = max(self.tokens, run.tokens)
        self.usd = max(self.usd, run.usd)
        self.wall_s = max(self.wall_s, (run.ended - run.began) / 1e9)
        self.unpriced = self.unpriced or run.unpriced


class Learner:
    """Not for several threads. State: 500 tools with 100 arguments each, 4,096 runs and open calls
    at once. `dropped`: tools beyond, which the text says nothing of. `only`: the agents that are
    learned from."""

    def __init__(self, only: Callable[[str], bool] = lambda agent: True) -> None:
        self._only = only
        self.agents: Counter[str] = Counter()
        self.tools: dict[str, Tool] = {}
        self.models: Counter[str] = Counter()
        self.dropped: set[str] = set()
        self._most = Most()
        self._runs: dict[str, Spending] = {}
        self._open: dict[tuple[str, str], tuple[str, str, Any]] = {}
        self._arguments: dict[tuple[str, str], Any] = {}

    def see(self, event: Base) -> None:
        if not self._only(event.agent):
            return
        run = self._run(event)
        run.ended = event.ts
        match event:
            case StepStart():
                run.steps += 1
            case ModelResponse():
                self._answered(run, event)
            case ToolArguments():
                _bounded(self._arguments, CALLS_MAX)
                self._arguments[event.run_id, event.call_id] = event.arguments
            case ToolInvoked():
                run.tool_calls += 1
                key = (event.run_id, event.call_id)
                _bounded(self._open, CALLS_MAX)
                self._open[key] = (event.tool, event.kind, self._arguments.pop(key, None))
            case ToolReturned():
                key = (event.run_id, event.call_id)
                self._arguments.pop(key, None)
                made = self._open.pop(key, None)
                if made is not None:
                    self._learn(event.run_id, *made, ok=event.status == "ok")
            case RunEnd():
                self._most.take(self._runs.pop(event.run_id))
            case _:
                pass

    @property
    def most(self) -> Most:
        """Of the runs that have ended and those that have not."""
        whole = msgspec.structs.replace(self._most)
        for run in self._runs.values():
            whole.take(run)
        return whole

    def _run(self, event: Base) -> Spending:
        run = self._runs.get(event.run_id)
        if run is None:
            if len(self._runs) >= RUNS_MAX:
                self._most.take(self._runs.pop(next(iter(self._runs))))
            run = self._runs[event.run_id] = Spending(began=event.ts, ended=event.ts)
            self.agents[event.agent] += 1
        return run

    def _answered(self, run: Spending, event: ModelResponse) -> None:
        if event.model and (event.model in self.models or len(self.models) < MODELS_MAX):
            self.models[event.model] += 1
        run.tokens += event.input_tokens + event.output_tokens
        run.usd += event.usd or 0.0
        run.unpriced = run.unpriced or event.usd is None

    def _learn(self, run_id: str, name: str, kind: str, arguments: Any, *, ok: bool) -> None:
        tool = self.tools.get(name)
        if tool is None:
            if len(self.tools) >= TOOLS_MAX:
                if ok and len(self.dropped) < TOOLS_MAX:
                    self.dropped.add(name)
                return
            tool = self.tools[name] = Tool()
        if not ok:
            tool.failed += 1
            return
        tool.uses += 1
        if len(tool.seen_in) < RUNS_COUNTED_MAX:
            tool.seen_in.add(hash(run_id))
        if kind:
            tool.kinds[kind] += 1
        if type(arguments) is not dict:
            tool.shapeless += 1
            return
        for field, value in arguments.items():
            argument = tool.arguments.get(field)
            if argument is None:
                if len(tool.arguments) >= ARGUMENTS_MAX:
                    tool.shapeless += 1
                    return
                argument = tool.arguments[field] = Argument()
            _take(argument, value)


def _bounded(kept: dict[Any, Any], most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]


def _take(argument: Argument, value: Any) -> None:
    argument.uses += 1
    match value:
        case bool():
            argument.types["boolean"] += 1
        case int():
            argument.types["integer"] += 1
            _take_number(argument, value)
        case float():
            argument.types["number"] += 1
            _take_number(argument, value)
        case str():
            argument.types["string"] += 1
            _take_text(argument, value)
        case list():
            argument.types["array"] += 1
        case dict():
            argument.types["object"] += 1
        case _:
            argument.types["any"] += 1


def _take_number(argument: Argument, value: int | float) -> None:
    if not -NUMBER_MAX <= value <= NUMBER_MAX:  # NaN too
        argument.odd = True
        return
    argument.low, argument.high = min(argument.low, value), max(argument.high, value)


def _take_text(argument: Argument, value: str) -> None:
    if argument.many:
        return
    argument.texts[value] += 1
    if len(argument.texts) > VALUES_MAX or len(value) > TEXT_CHARS_MAX:
        argument.many = True
        argument.texts.clear()
