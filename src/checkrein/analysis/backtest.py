"""What a pact would have done: recorded runs through a candidate, with no network and no effect.

A `Backtest` takes events and adds up; two of them over different runs can be `merged`, so that
several processes can share a history. Numbers are exact up to the first verdict of a run that would
have changed it; what comes after is what the rules say of a history that they would have changed,
and is counted apart.
"""

from collections.abc import Callable, Iterable

import msgspec

from checkrein.analysis.judging import Judge, Key, Line, ProfileOf, Schemas
from checkrein.events.types import Base, ModelResponse, RunStart, ScopeDecision, ToolInvoked
from checkrein.policy.types import Pact

RUNS_SHOWN_MAX = 200


class RuleCount(msgspec.Struct, kw_only=True):
    """How often one rule decided, in how many runs; `exact` of those before anything changed."""

    rule: str
    verdict: str
    count: int = 0
    exact: int = 0
    runs: int = 0


class Change(msgspec.Struct, kw_only=True):
    """A run that would have gone otherwise, from its first refusal or question on. `calls`,
    `tokens` and `usd` are what was spent after it and would not have been, if the run had ended
    there (`halts`), else only the refused calls."""

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


class Report(msgspec.Struct, kw_only=True):
    """`released`: calls that were refused when they were recorded, and would now be let pass."""

    pact: str
    version: str
    runs: int = 0
    events: int = 0
    calls: int = 0
    usd: float = 0.0
    denied: int = 0
    asked: int = 0
    modified: int = 0
    steered: int = 0
    halted: int = 0
    released: int = 0
    after_divergence: int = 0
    saved_calls: int = 0
    saved_tokens: int = 0
    saved_usd: float = 0.0
    runs_changed: int = 0
    rules: list[RuleCount] = []
    changes: list[Change] = []


class Backtest:
    """Not for several threads."""

    def __init__(
        self,
        pact: Pact,
        *,
        profile_of: ProfileOf = lambda agent: None,
        schemas_of: Schemas = lambda labels: {},
        only: Callable[[str], bool] = lambda agent: True,
    ) -> None:
        """`only`: the agents whose runs are judged; the others pass unseen."""
        self._judge = Judge(
            lambda agent: pact, profile_of=profile_of, schemas_of=schemas_of, detecting=False
        )
        self._only = only
        self._changes: dict[str, Change] = {}
        self._rules: dict[tuple[str, str], RuleCount] = {}
        self._rule_runs: set[tuple[str, str, str]] = set()
        self._runs: set[str] = set()
        self.report = Report(pact=pact.pact, version=pact.version)

    def see(self, key: Key, event: Base) -> None:
        if not self._only(event.agent):
            return
        report = self.report
        report.events += 1
        if isinstance(event, RunStart) or key[0] not in self._runs:
            self._runs.add(key[0])
        change = self._changes.get(key[0])
        match event:
            case ToolInvoked():
                report.calls += 1
                if change is not None and change.halts:
                    change.calls += 1
            case ModelResponse():
                report.usd += event.usd or 0.0
                if change is not None and change.halts:
                    change.tokens += event.input_tokens + event.output_tokens
                    change.usd += event.usd or 0.0
            case ScopeDecision() if event.verdict == "deny" and not event.shadow:
                report.released += self._judge.would_pass(event)
            case _:
                pass
        for line in self._judge.see(key, event):
            self._count(line, event)

    def _count(self, line: Line, event: Base) -> None:
        report = self.report
        match line.verdict:
            case "deny":
                report.denied += 1
            case "ask":
                report.asked += 1
            case "modify":
                report.modified += 1
            case _:
                report.steered += 1
        rule = self._rules.setdefault(
            (line.rule, line.verdict), RuleCount(rule=line.rule, verdict=line.verdict)
        )
        rule.count += 1
        rule.exact += line.exact
        report.after_divergence += not line.exact
        if (line.run_id, line.rule, line.verdict) not in self._rule_runs:
            self._rule_runs.add((line.run_id, line.rule, line.verdict))
            rule.runs += 1
        if line.verdict in ("deny", "ask"):
            self._change(line, event)

    def _change(self, line: Line, event: Base) -> None:
        change = self._changes.get(line.run_id)
        if change is None:
            change = self._changes[line.run_id] = Change(
                run_id=event.run_id, agent=event.agent, seq=line.seq, step=line.step,
                verdict=line.verdict, rule=line.rule, tool=line.tool, why=line.why,
            )  # fmt: skip
        if line.verdict == "ask":
            change.asked += 1
            return
        change.refused += 1
        change.calls += not change.halts and bool(line.tool)
        change.halts = change.halts or line.runaway

    def done(self) -> Report:
        """The sums so far, with the runs that save most first."""
        report = self.report
        report.runs = len(self._runs)
        report.rules = sorted(self._rules.values(), key=lambda rule: (-rule.count, rule.rule))
        changes = sorted(
            self._changes.values(), key=lambda change: (-change.usd, -change.calls, change.run_id)
        )
        report.runs_changed = len(changes)
        report.halted = sum(change.halts for change in changes)
        report.saved_calls = sum(change.calls for change in changes)
        report.saved_tokens = sum(change.tokens for change in changes)
        report.saved_usd = sum(change.usd for change in changes)
        report.changes = changes[:RUNS_SHOWN_MAX]
        return report


_SUMS = (
    "runs", "events", "calls", "usd", "denied", "asked", "modified", "steered", "halted",
    "released", "after_divergence", "saved_calls", "saved_tokens", "saved_usd", "runs_changed",
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
    whole.rules = sorted(rules.values(), key=lambda rule: (-rule.count, rule.rule))
    whole.changes.sort(key=lambda change: (-change.usd, -change.calls, change.run_id))
    del whole.changes[RUNS_SHOWN_MAX:]
    return whole
