"""What a pact would have done: recorded runs through a candidate, with no network and no effect.

A `Backtest` takes events and adds up; two of them over different runs can be merged
(`reports.merged`), so that several processes can share a history. Numbers are exact up to the first
verdict of a run that would have changed it; what comes after is what the rules say of a history
that they would have changed, and is counted apart.
"""

from collections.abc import Callable

from checkrein.analysis.following import ProfileOf, Schemas
from checkrein.analysis.judging import Judge, Key, Line
from checkrein.analysis.reports import (
    SHOWN_MAX,
    Change,
    Comparison,
    Difference,
    Released,
    Report,
    RuleCount,
    by_count,
    by_savings,
)
from checkrein.events.types import (
    Base,
    ModelResponse,
    RunEnd,
    ToolArguments,
    ToolInvoked,
    ToolReturned,
)
from checkrein.policy.guard import REFUSALS_MAX
from checkrein.policy.types import Pact

STRICTNESS = {"deny": 4, "ask": 3, "modify": 2, "steer": 1, "allow": 0}


class Backtest:
    """Not for several threads. Memory: a line for each run, and for each that changes."""

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
        self._in_a_row: dict[str, int] = {}
        self._rules: dict[tuple[str, str], RuleCount] = {}
        self._rule_runs: set[tuple[str, str, str]] = set()
        self._runs: set[str] = set()
        self.report = Report(pact=pact.pact, version=pact.version, rules=[], changes=[])

    def see(self, key: Key, event: Base) -> Line | None:
        """The verdict on this event, when there is one other than allow."""
        if not self._only(event.agent):
            return None
        report = self.report
        report.events += 1
        self._runs.add(key[0])
        change = self._changes.get(key[0])
        match event:
            case ToolInvoked():
                report.calls += 1
                if change is not None and change.halts:
                    change.calls += 1
            case ModelResponse():
                self._spent(event, change)
            case ToolReturned() if event.status == "denied":
                self._refused_then(key, event)
            case _:
                pass
        lines = self._judge.see(key, event)
        if type(event) is ToolInvoked and key[0] in self._in_a_row:
            if not lines or lines[0].verdict != "deny":
                del self._in_a_row[key[0]]
        elif type(event) is RunEnd:
            self._in_a_row.pop(key[0], None)
        if not lines or type(event) is ToolArguments:  # what cannot be read was never made
            return None
        self._count(lines[0], event)
        return lines[0]

    def _spent(self, event: ModelResponse, change: Change | None) -> None:
        tokens, usd = event.input_tokens + event.output_tokens, event.usd or 0.0
        self.report.tokens += tokens
        self.report.usd += usd
        if change is not None and change.halts:
            change.tokens += tokens
            change.usd += usd

    def _refused_then(self, key: Key, event: ToolReturned) -> None:
        report = self.report
        report.refused_then += 1
        now = self._judge.released(event)
        if now is None or now.kind in ("deny", "ask"):
            return
        report.released += 1
        if len(report.released_calls) < SHOWN_MAX:
            report.released_calls.append(Released(
                run_id=key[0], agent=event.agent, seq=key[1], step=event.step, tool=event.tool,
                was=event.error[:500],
            ))  # fmt: skip

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
        which = (line.rule, line.verdict)
        rule = self._rules.get(which)
        if rule is None:
            rule = self._rules[which] = RuleCount(rule=line.rule, verdict=line.verdict)
        rule.count += 1
        rule.exact += line.exact
        report.after_divergence += not line.exact
        if (line.run_id, *which) not in self._rule_runs:
            self._rule_runs.add((line.run_id, *which))
            rule.runs += 1
        if line.verdict in ("deny", "ask"):
            self._change(line, event)

    def _change(self, line: Line, event: Base) -> None:
        change = self._changes.get(line.run_id)
        if change is None:
            change = self._changes[line.run_id] = Change(
                run_id=line.run_id, agent=event.agent, seq=line.seq, step=line.step,
                verdict=line.verdict, rule=line.rule, tool=line.tool, why=line.why[:500],
            )  # fmt: skip
        if line.verdict == "ask":
            change.asked += 1
            return
        change.refused += 1
        change.calls += not change.halts and type(event) is ToolInvoked
        in_a_row = self._in_a_row[line.run_id] = self._in_a_row.get(line.run_id, 0) + 1
        change.halts = change.halts or line.runaway or in_a_row > REFUSALS_MAX

    def done(self) -> Report:
        """The sums so far, with the runs that save most first."""
        report, changes = self.report, self._changes.values()
        report.runs = len(self._runs)
        report.rules = by_count(self._rules.values())
        report.runs_changed = len(changes)
        report.halted = sum(change.halts for change in changes)
        report.saved_calls = sum(change.calls for change in changes)
        report.saved_tokens = sum(change.tokens for change in changes)
        report.saved_usd = sum(change.usd for change in changes)
        report.changes = by_savings(changes)
        return report


class Comparing:
    """Two candidates over the same events, with what one says otherwise than the other. Not for
    several threads."""

    def __init__(self, before: Backtest, after: Backtest) -> None:
        self._before, self._after = before, after
        self._found = Comparison(before=before.report, after=after.report)

    def see(self, key: Key, event: Base) -> None:
        old, new = self._before.see(key, event), self._after.see(key, event)
        if old is None and new is None:
            return
        before, after = (line.verdict if line else "allow" for line in (old, new))
        before_rule, after_rule = (line.rule if line else "" for line in (old, new))
        if before == after:
            return
        found = self._found
        if STRICTNESS[after] > STRICTNESS[before]:
            found.stricter += 1
        else:
            found.looser += 1
        pair = f"{before} to {after}"
        found.pairs[pair] = found.pairs.get(pair, 0) + 1
        if len(found.differences) < SHOWN_MAX:
            told = new or old
            found.differences.append(Difference(
                run_id=key[0], agent=event.agent, seq=key[1], step=event.step,
                tool=told.tool if told else "", before=before, after=after,
                before_rule=before_rule, after_rule=after_rule,
                why=told.why[:500] if told else "",
            ))  # fmt: skip

    def done(self) -> Comparison:
        self._found.before, self._found.after = self._before.done(), self._after.done()
        return self._found
