"""What the conditions of a pact cost before a call, beside two implementations of CEL and beside
functions written by hand."""

import gc
import time
from collections.abc import Callable
from typing import Any

import cel
import celpy
from benches.harness import Row
from celpy.adapter import json_to_cel

from checkrein.policy.conditions.compiling import (
    Compiled,
    compile_condition,
    kind_of_schema,
    standard_names,
)
from checkrein.policy.conditions.interpreting import interpret

QUESTION = "How long do 20 conditions take for one call, and how long to compile?"
ROUNDS = 40
EVALUATIONS = 50
TYPICAL = 'args.currency == "USD" && args.cents <= 5000'
SCHEMA = {
    "type": "object",
    "properties": {
        "currency": {"type": "string"}, "cents": {"type": "integer"}, "to": {"type": "string"},
        "order": {"type": "string"}, "price": {"type": "number"}, "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "lines": {"type": "array", "items": {
            "type": "object",
            "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}},
        }},
    },
}  # fmt: skip
FACTS: dict[str, Any] = {
    "args": {
        "currency": "USD", "cents": 1_900, "to": "ann@example.com", "order": "ORD-1001",
        "price": 19.5, "urgent": False, "tags": ["damaged", "late", "first"],
        "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}],
    },
    "tool": "refund", "kind": "compensable", "agent": "support-bot", "room": "refunds",
    "environment": "production", "task_type": "refund", "goal": "refund order ORD-1001",
    "step": 7, "confidence": 0.8, "model": "gpt-5-mini",
    "spent": {"steps": 7, "tool_calls": 5, "tokens": 12_000, "usd": 0.07, "wall_s": 41.0},
}  # fmt: skip
Facts = dict[str, Any]
Run = Callable[[Facts], object]
# Each beside the function that somebody would write for it, trusting every type.
CONDITIONS: list[tuple[str, Run]] = [
    (TYPICAL, lambda f: f["args"]["currency"] == "USD" and f["args"]["cents"] <= 5000),
    ("args.cents > 2000", lambda f: f["args"]["cents"] > 2000),
    ("args.cents > 4000 || confidence < 0.5",
     lambda f: f["args"]["cents"] > 4000 or f["confidence"] < 0.5),
    ('args.to.endsWith("@example.com")', lambda f: f["args"]["to"].endswith("@example.com")),
    ('args.order.startsWith("ORD-")', lambda f: f["args"]["order"].startswith("ORD-")),
    ('args.currency in ["USD", "EUR", "GBP"]',
     lambda f: f["args"]["currency"] in ("USD", "EUR", "GBP")),
    ("args.price * 1.2 < 100.0", lambda f: f["args"]["price"] * 1.2 < 100.0),
    ("has(args.urgent) && args.urgent", lambda f: "urgent" in f["args"] and f["args"]["urgent"]),
    ("size(args.tags) <= 10", lambda f: len(f["args"]["tags"]) <= 10),
    ('"late" in args.tags', lambda f: "late" in f["args"]["tags"]),
    ('args.tags.exists(t, t == "late")', lambda f: any(t == "late" for t in f["args"]["tags"])),
    ("args.lines.all(l, l.count < 5)", lambda f: all(x["count"] < 5 for x in f["args"]["lines"])),
    ("spent.usd < 1.0 && spent.tool_calls < 50",
     lambda f: f["spent"]["usd"] < 1.0 and f["spent"]["tool_calls"] < 50),
    ('environment == "production" && kind != "irreversible"',
     lambda f: f["environment"] == "production" and f["kind"] != "irreversible"),
    ("step < 35", lambda f: f["step"] < 35),
    ('task_type == "refund" ? args.cents < 5000 : args.cents < 100',
     lambda f: f["args"]["cents"] < (5000 if f["task_type"] == "refund" else 100)),
    ('!(args.to.contains("..")) && size(args.to) < 200',
     lambda f: ".." not in f["args"]["to"] and len(f["args"]["to"]) < 200),
    ("goal.contains(args.order)", lambda f: f["args"]["order"] in f["goal"]),
    ("args.cents + 500 <= 5000", lambda f: f["args"]["cents"] + 500 <= 5000),
    ('agent == "support-bot" && model != ""',
     lambda f: f["agent"] == "support-bot" and f["model"] != ""),
]  # fmt: skip


def run() -> list[Row]:
    names = standard_names(kind_of_schema(SCHEMA))
    ours = [_compiled(text, names) for text, _ in CONDITIONS]
    by_hand = [function for _, function in CONDITIONS]
    rust = [_rust(text) for text, _ in CONDITIONS]
    python = [_python(text) for text, _ in CONDITIONS]
    for number, (text, _) in enumerate(CONDITIONS):
        answers = {bool(each[number](FACTS)) for each in (ours, by_hand, rust, python)}
        if len(answers) != 1:
            raise RuntimeError(f"the bench's answers differ: {text}")
    took = _side_by_side({
        "ours": _each(ours), "hand": _each(by_hand),
        "rust": _each(rust), "rust, new facts": _rust_with_new_facts(), "python": _each(python),
        "read": _each([_interpreted(each) for each in ours]),
        "one": _each(ours[:1]), "one by hand": _each(by_hand[:1]), "one rust": _each(rust[:1]),
        "one of closures": _each([_closures()]), "one read": _each([_interpreted(ours[0])]),
        "one missing": _each([_missing(names)]),
    })  # fmt: skip
    return [
        Row(name="20 conditions, p50", measured=took["ours"], limit=took["hand"], target=15,
            unit="µs", note="limit: Python functions written by hand, which check no type"),
        Row(name="20 conditions beside cel (Rust), p50", measured=took["ours"],
            limit=took["rust"], unit="µs", note="its compiled programs, the facts made CEL's once"),
        Row(name="20 conditions beside cel (Rust) on a new call's facts, p50",
            measured=took["ours"], limit=took["rust, new facts"], unit="µs",
            note="the same, with the facts made CEL's once for all 20"),
        Row(name="20 conditions beside cel-python, p50", measured=took["ours"],
            limit=took["python"], unit="µs", note="its programs, the facts made CEL's once"),
        Row(name="20 conditions, interpreted, p50", measured=took["read"], limit=took["ours"],
            unit="µs", note="limit: the compiled ones; interpreted is what raised an error"),
        Row(name="one condition, p50", measured=took["one"], limit=took["one by hand"],
            target=0.5, unit="µs", note=TYPICAL),
        Row(name="one condition beside cel (Rust), p50", measured=took["one"],
            limit=took["one rust"], unit="µs"),
        Row(name="one condition as a closure for each node, p50",
            measured=took["one of closures"], limit=took["one"], unit="µs",
            note="limit: compiled; why it is no tree of closures"),
        Row(name="one condition, interpreted, p50", measured=took["one read"], limit=took["one"],
            unit="µs"),
        Row(name="one condition whose field is missing, p50", measured=took["one missing"],
            limit=took["one"], unit="µs", note="judged twice: compiled, then interpreted"),
        *_compiling(),
    ]  # fmt: skip


def _compiling() -> list[Row]:
    took = []
    for number in range(200):
        text = f"{TYPICAL} && args.order != 'ORD-{number}'"
        begun = time.perf_counter()
        compile_condition(text)
        took.append((time.perf_counter() - begun) * 1e3)
    rust = []
    for number in range(200):
        begun = time.perf_counter()
        cel.compile(f"{TYPICAL} && args.order != 'ORD-{number}'")
        rust.append((time.perf_counter() - begun) * 1e3)
    middle = len(took) // 2
    return [
        Row(name="compile one condition, p50", measured=sorted(took)[middle],
            limit=sorted(rust)[middle], target=2, unit="ms", note="limit: cel (Rust)")
    ]  # fmt: skip


def _compiled(text: str, names: Any) -> Compiled:
    made = compile_condition(text, names)
    if not isinstance(made, Compiled):
        raise TypeError(f"not compiled: {made}")
    return made


def _interpreted(condition: Compiled) -> Run:
    return lambda facts: interpret(condition.node, facts)


def _rust(text: str) -> Run:
    program = cel.compile(text)
    facts = cel.Context(variables=FACTS)
    return lambda _: program.execute(facts)


def _rust_with_new_facts() -> Callable[[], None]:
    programs = [cel.compile(text) for text, _ in CONDITIONS]

    def step() -> None:
        facts = cel.Context(variables=FACTS)
        for program in programs:
            program.execute(facts)

    return step


def _python(text: str) -> Run:
    environment = celpy.Environment()
    program = environment.program(environment.compile(text))
    facts = {name: json_to_cel(value) for name, value in FACTS.items()}
    return lambda _: program.evaluate(facts)


def _missing(names: Any) -> Run:
    condition = _compiled("args.cents > 5000 || args.urgent", names)
    facts = {**FACTS, "args": {"cents": 6_000_000_000.5, "urgent": None}}
    without = {**FACTS, "args": {"urgent": True}}
    if condition(without) is not True or condition(facts) is not True:
        raise RuntimeError("the bench's answer is wrong")
    return lambda _: condition(without)


def _closures() -> Run:
    """`TYPICAL` as a compiler to closures would make it: a call for each node."""

    def constant(value: Any) -> Run:
        return lambda facts: value

    def variable(name: str) -> Run:
        return lambda facts: facts[name]

    def select(of: Any, field: str) -> Run:
        return lambda facts: of(facts)[field]

    def equal(left: Any, right: Any) -> Run:
        def judge(facts: Facts) -> bool:
            one, other = left(facts), right(facts)
            if type(one) is not type(other):
                raise TypeError
            return bool(one == other)

        return judge

    def at_most(left: Any, right: Any) -> Run:
        def judge(facts: Facts) -> bool:
            one, other = left(facts), right(facts)
            if type(one) is not type(other):
                raise TypeError
            return bool(one <= other)

        return judge

    def both(left: Run, right: Run) -> Run:
        return lambda facts: left(facts) and right(facts)

    args = variable("args")
    return both(
        equal(select(args, "currency"), constant("USD")),
        at_most(select(args, "cents"), constant(5000)),
    )


def _each(runs: list[Any]) -> Callable[[], None]:
    def step() -> None:
        for run in runs:
            run(FACTS)

    return step


def _side_by_side(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Microseconds of each, the middle of many; the steps take turns."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    gc.collect()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            count = EVALUATIONS * (10 if name.startswith("one") else 1)
            begun = time.perf_counter_ns()
            for _ in range(count):
                step()
            took[name].append((time.perf_counter_ns() - begun) / count / 1e3)
    return {name: sorted(times)[len(times) // 2] for name, times in took.items()}
