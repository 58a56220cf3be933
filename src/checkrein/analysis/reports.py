"""What a backtest says, as plain data that adds up."""

from collections.abc import Iterable

import msgspec

SHOWN_MAX = 200


class RuleCount(msgspec.Struct, kw_only=True):
    """How often one rule decided, in how many runs; `exact` of those before anything changed."""

    rule: str
    verdict: str
    count: int = 0
    exact: int = 0
    runs: int = 0


class Change(msgspec.Struct, kw_only=True):
    """A run that would have gone otherwise, from its first refusal or question on (`seq`, `step`,
    `rule`, `tool`, `why` are of that). `calls`: the tool calls that would not have been made: those
    refused, and when the run would have been halted (`halts`) all that came after; `tokens` and
    `usd` are what was spent after the halt."""

    run_id: str
    agent: str
    seq: int
    step: int
    verdict: str
    rule: str
    tool: str
    why: str
    halts: bool = False
    refused: int = 0
    asked: int = 0
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0


class Released(msgspec.Struct, kw_only=True):
    """A call that was refused when it was recorded, and would now be let pass."""

    run_id: str
    agent: str
    seq: int
    step: int
    tool: str
    was: str


class Report(msgspec.Struct, kw_only=True):
    """The whole of a backtest. `calls`, `tokens` and `usd` are what the runs did and spent.
    `denied` to `steered` count verdicts, `after_divergence` those of them that came after a run's
    first refusal or question; `halted` and `runs_changed` count runs; `refused_then` counts the
    calls that a pact refused when they were recorded, `released` those of them that would now
    pass. Of `changes` the 200 runs that save most are kept, of `released_calls` the first 200."""

    pact: str
    version: str
    runs: int = 0
    events: int = 0
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    denied: int = 0
    asked: int = 0
    modified: int = 0
    steered: int = 0
    halted: int = 0
    refused_then: int = 0
    released: int = 0
    after_divergence: int = 0
    saved_calls: int = 0
    saved_tokens: int = 0
    saved_usd: float = 0.0
    runs_changed: int = 0
    rules: list[RuleCount] = []
    changes: list[Change] = []
    released_calls: list[Released] = []


_SUMS = tuple(
    name for name, kind in Report.__annotations__.items() if kind in (int, float)
)  # fmt: skip


def merged(reports: Iterable[Report]) -> Report:
    """The reports over different runs of one pact, added up. Raises ValueError for none."""
    parts = list(reports)
    if not parts:
        raise ValueError("no report to merge")
    whole = Report(pact=parts[0].pact, version=parts[0].version)
    rules: dict[tuple[str, str], RuleCount] = {}
    for part in parts:
        for name in _SUMS:
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        for rule in part.rules:
            known = rules.setdefault(
                (rule.rule, rule.verdict), RuleCount(rule=rule.rule, verdict=rule.verdict)
            )
            known.count += rule.count
            known.exact += rule.exact
            known.runs += rule.runs
        whole.changes += part.changes
        whole.released_calls += part.released_calls
    whole.rules = by_count(rules.values())
    whole.changes = by_savings(whole.changes)
    whole.released_calls.sort(key=lambda one: (one.run_id, one.seq))
    del whole.released_calls[SHOWN_MAX:]
    return whole


def by_count(rules: Iterable[RuleCount]) -> list[RuleCount]:
    return sorted(rules, key=lambda rule: (-rule.count, rule.rule, rule.verdict))


def by_savings(changes: Iterable[Change]) -> list[Change]:
    """Those that save most first, the 200 first of them."""
    whole = sorted(changes, key=lambda one: (-one.usd, -one.tokens, -one.calls, one.run_id))
    return whole[:SHOWN_MAX]


def summary(report: Report) -> dict[str, int | float]:
    """What is kept of a backtest beside a version of a pact."""
    return {
        name: round(value, 6) if isinstance(value := getattr(report, name), float) else value
        for name in _SUMS
    }


class Difference(msgspec.Struct, kw_only=True):
    """A call of which two pacts say different things. A verdict of `allow` has no rule."""

    run_id: str
    agent: str
    seq: int
    step: int
    tool: str
    before: str
    after: str
    before_rule: str = ""
    after_rule: str = ""
    why: str = ""


class Comparison(msgspec.Struct, kw_only=True):
    """Two candidates over the same runs. `pairs` counts by `BEFORE to AFTER`; of `differences` the
    first 200 are kept."""

    before: Report
    after: Report
    stricter: int = 0
    looser: int = 0
    pairs: dict[str, int] = {}
    differences: list[Difference] = []


def merged_comparisons(parts: Iterable[Comparison]) -> Comparison:
    """Comparisons over different runs, added up. Raises ValueError for none."""
    known = list(parts)
    whole = Comparison(
        before=merged(part.before for part in known), after=merged(part.after for part in known),
        stricter=sum(part.stricter for part in known), looser=sum(part.looser for part in known),
    )  # fmt: skip
    for part in known:
        for pair, count in part.pairs.items():
            whole.pairs[pair] = whole.pairs.get(pair, 0) + count
        whole.differences += part.differences
    whole.differences.sort(key=lambda one: (one.run_id, one.seq))
    del whole.differences[SHOWN_MAX:]
    return whole
