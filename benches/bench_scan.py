"""What a text costs to scan for secrets and personal data, and an argument to hold against a scope.

    python -m benches scan

Limits beside it, in the same run: the RE2 set of all signs alone (the least that any scan does),
and Python's `re`, one expression after the other (what a scanner without such a set pays).
"""

import re
import time
from collections.abc import Callable
from random import Random

from benches.harness import Row
from tests.canaries import PERSONAL, SECRETS

from checkrein.policy.redact import compile_redaction
from checkrein.policy.redact_patterns import PII
from checkrein.policy.redact_patterns import SECRETS as SECRET_PATTERNS
from checkrein.policy.scopes.compiling import Scope, compile_scope
from checkrein.policy.scopes.types import ScopeKind, ScopeRule

QUESTION = "What does it cost to scan 2 kB for secrets, and to judge one argument by a scope?"

ROUNDS = 400
TEXT = (
    "the order 42 of 2024-01-31 was shipped to the warehouse for $12.50 and the customer was told "
    "by the agent that request 7f9c24e5 would be answered within 3 days ; see section 4.2 of it"
)
WORDS = TEXT.split()


def texts(secrets: int) -> list[str]:
    """Texts of 2 kB, each with so many secrets in it."""
    chance = Random(7)
    made = []
    kinds = [*SECRETS.values(), *PERSONAL.values()]
    for _ in range(ROUNDS):
        words: list[str] = []
        while sum(map(len, words)) + len(words) < 2048:
            words.append(chance.choice(WORDS))
        for _ in range(secrets):
            words.insert(chance.randrange(len(words)), chance.choice(kinds)(chance))
        made.append(" ".join(words)[: 2048 if not secrets else None])
    return made


def median_us(work: Callable[[str], object], inputs: list[str], warm: bool = True) -> float:
    """One call, in microseconds; the median, so that a busy machine disturbs little."""
    if warm:
        for text in inputs[:20]:
            work(text)
    times = []
    for text in inputs:
        begun = time.perf_counter_ns()
        work(text)
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)[len(times) // 2] / 1e3


def scans() -> list[Row]:
    redactor = compile_redaction(["secrets", "pii"])
    signs = redactor._set.Match
    one_by_one = [re.compile(p.exact) for p in (*SECRET_PATTERNS, *PII)]
    plain, with_two = texts(0), texts(2)
    signs_us = median_us(lambda text: signs(text.encode()), plain)
    slow_us = median_us(lambda text: [list(e.finditer(text)) for e in one_by_one], plain[:60])
    ours_us = median_us(redactor.text, plain)
    found_us = median_us(redactor.text, with_two)
    count = len(one_by_one)
    return [
        Row(name="scan 2 kB with nothing in it", measured=ours_us, limit=signs_us,
            target=2 * signs_us, unit="us",
            note=f"limit: the RE2 set of {count} signs alone"),
        Row(name="the same, beside `re` one by one", measured=ours_us, limit=slow_us,
            target=slow_us / 20, unit="us", note=f"limit: {count} expressions of Python's `re`"),
        Row(name="scan 2 kB with two secrets, and take them out", measured=found_us,
            limit=slow_us, target=slow_us / 10, unit="us"),
    ]  # fmt: skip


def scope(kind: ScopeKind, argument: str, *allow: str, write: tuple[str, ...] = ()) -> Scope:
    deny = ("secret*",) if kind == "tables" else ()
    return compile_scope(
        ScopeRule(kind=kind, argument=argument, allow=allow, deny=deny, write=write)
    )


SCOPES: tuple[tuple[str, Scope, str, str], ...] = (
    ("paths", scope("paths", "a", "/opt/**", "/srv/*/data/**"), "/opt/src/x{}/y.py", "us"),
    ("hosts", scope("hosts", "a", "*.acme.com", "acme.com"), "https://a{}.acme.com/v1/x", "us"),
    ("repos", scope("repos", "a", "github.com/acme/*"), "git@github.com:acme/x{}.git", "us"),
    ("tables", scope("tables", "a", "orders", "customers", write=("orders",)),
     "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer WHERE o.id = {}",
     "us"),
)  # fmt: skip


def judgements() -> list[Row]:
    rows = []
    for name, judging, template, unit in SCOPES:
        fresh = [template.format(number) for number in range(ROUNDS)]
        for text in fresh:
            if reason := judging.judge({"a": text}):
                raise RuntimeError(f"the bench was refused: {reason}")
        seen_us = median_us(lambda text, j=judging: j.judge({"a": text}), fresh)  # type: ignore[misc]
        new = [template.format(number) for number in range(10**6, 10**6 + ROUNDS)]
        new_us = median_us(lambda text, j=judging: j.judge({"a": text}), new, warm=False)  # type: ignore[misc]
        parse_us = parsing_us(new) if name == "tables" else None
        rows.append(
            Row(name=f"{name}: a value seen before", measured=seen_us, target=10.0, unit=unit)
        )
        rows.append(
            Row(
                name=f"{name}: a new value", measured=new_us, limit=parse_us, unit=unit,
                target=2.5 * parse_us if parse_us else 25.0,
                note="limit: `sqlglot.parse` alone" if parse_us else "",
            )
        )  # fmt: skip
    return rows


def parsing_us(statements: list[str]) -> float:
    import sqlglot

    return median_us(sqlglot.parse, statements)


def run() -> list[Row]:
    return scans() + judgements()
