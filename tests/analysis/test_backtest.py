"""What a backtest says of runs whose answer is known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.analysis.made import events, lines, packed

from checkrein.analysis import sharing
from checkrein.analysis.backtest import Backtest, Comparing
from checkrein.analysis.reports import Report, merged, summary
from checkrein.analysis.sharing import Job, own_lines
from checkrein.events.types import ScopeDecision, ToolArguments, ToolReturned
from checkrein.policy.pact import load

PACT = """\
pact: p
tools:
  pay: {allow: args.cents <= 100, ask: args.cents > 50}
  look: {}
  say: {set: {text: '"hello"'}}
budgets: {tool_calls: 8}
warn_at: 100%
loops: {same_call: 15, similar_call: 15, no_progress: 15}
"""


def report_of(pact: str, *runs: list[dict[str, object]]) -> Report:
    test = Backtest(load(pact))
    for key, event in events(*runs):
        test.see(key, event)
    return test.done()


def test_verdicts_are_counted_by_rule_and_told_apart_from_estimates() -> None:
    report = report_of(
        PACT,
        lines([("pay", {"cents": 10}, "ok"), ("pay", {"cents": 500}, "ok"),
               ("pay", {"cents": 60}, "ok"), ("say", {"text": "x"}, "ok")]),
        lines([("look", {}, "ok")], run_id="r2"),
    )  # fmt: skip
    assert (report.runs, report.calls, report.denied, report.asked, report.modified) == (
        2, 5, 1, 1, 1,
    )  # fmt: skip
    assert [(rule.rule, rule.verdict, rule.count, rule.exact) for rule in report.rules] == [
        ("tools.pay.allow", "deny", 1, 1), ("tools.pay.ask", "ask", 1, 0),
        ("tools.say.set", "modify", 1, 0),
    ]  # fmt: skip
    assert report.after_divergence == 2
    assert report.tokens == 5 * 110
    assert report.usd == pytest.approx(0.05)
    (change,) = report.changes
    assert (change.run_id, change.seq, change.step, change.tool, change.refused) == (
        "r1", 7, 2, "pay", 1,
    )  # fmt: skip
    assert (report.runs_changed, report.halted, report.saved_calls) == (1, 0, 1)


def test_a_used_up_budget_saves_what_comes_after() -> None:
    report = report_of(
        PACT.replace("tool_calls: 8", "tool_calls: 8, exhausted: stop"),
        lines([("look", {"n": n}, n) for n in range(12)]),
    )
    assert report.halted == 1
    assert report.saved_calls == 12 - 8
    assert report.saved_tokens == 3 * 110, "the model calls before the halt were made"
    assert report.saved_usd == pytest.approx(0.03)


def test_refusals_in_a_row_halt_the_run() -> None:
    pact = PACT.replace("budgets: {tool_calls: 8}\n", "")
    refused = [("pay", {"cents": 500 + n}, "ok") for n in range(9)]
    kept_apart = report_of(pact, lines([*refused[:5], ("look", {}, "ok"), *refused[5:]]))
    assert (kept_apart.denied, kept_apart.halted) == (9, 0)
    in_a_row = report_of(pact, lines(refused))
    assert (in_a_row.denied, in_a_row.halted, in_a_row.saved_calls) == (9, 1, 9)
    assert in_a_row.saved_tokens == 3 * 110, "of the steps after the sixth refusal"


def test_arguments_that_could_not_be_read_change_nothing() -> None:
    run = lines([("look", {}, "ok")])
    broken = {"type": "tool.call", "tool": "look", "call_id": "x", "parse_error": "not JSON"}
    run.insert(2, {"run_id": "r1", "seq": 90, **broken})
    report = report_of(PACT, run)
    assert (report.denied, report.runs_changed) == (0, 0)


def refused_then(rule: str, error: str = "too much") -> list[tuple[tuple[str, int], object]]:
    """A run in which `pay` of 80 was refused."""
    start = next(event for _, event in events(lines([], run_id="live")))
    place = {name: getattr(start, name) for name in (
        "recorder", "ts", "environment", "room", "agent", "run_id", "task_id")}  # fmt: skip
    call = {"call_id": "c1", **place, "step": 1}
    action = {"kind": "tool", "name": "pay", "arguments": {"cents": 40}}
    made = [
        start,
        ToolArguments(seq=2, tool="pay", arguments={"cents": 40}, **call),
        ScopeDecision(seq=3, action=action, verdict="deny", rule=rule, **call),
        ToolReturned(seq=4, tool="pay", status="denied", error=error, **call),
    ]
    return [(("live", event.seq), event) for event in made]


@pytest.mark.parametrize(
    ("pact", "rule", "released"),
    [
        (PACT, "tools.pay.allow", 1),
        (PACT.replace("<= 100", "<= 30").replace("ask: args.cents > 50", "timeout: 5s"),
         "tools.pay.allow", 0),
        (PACT.replace("> 50", "> 30"), "tools.pay.allow", 0),
        (PACT, "tools.unknown", 0),
    ],
)  # fmt: skip
def test_what_was_refused_then_and_would_now_pass(pact: str, rule: str, released: int) -> None:
    test = Backtest(load(pact))
    for key, event in refused_then(rule):
        test.see(key, event)  # type: ignore[arg-type] # they are events
    report = test.done()
    assert (report.refused_then, report.released) == (1, released)
    assert [one.was for one in report.released_calls] == ["too much"] * released
    assert report.calls == 0, "a refused call was not made"


def test_two_candidates_are_told_apart_call_by_call() -> None:
    looser = PACT.replace("<= 100", "<= 1000")
    both = Comparing(Backtest(load(PACT)), Backtest(load(looser)))
    run = lines([("pay", {"cents": 10}, "ok"), ("pay", {"cents": 500}, "ok")])
    for key, event in events(run):
        both.see(key, event)
    found = both.done()
    assert (found.stricter, found.looser, found.pairs) == (0, 1, {"deny to ask": 1})
    (one,) = found.differences
    assert (one.seq, one.before_rule, one.after_rule) == (7, "tools.pay.allow", "tools.pay.ask")
    assert (found.before.denied, found.after.denied) == (1, 0)


def test_a_pact_against_itself_says_the_same() -> None:
    text = PACT + "sequence:\n  - deny pay if count pay in task >= 2\n"
    both = Comparing(Backtest(load(text)), Backtest(load(text)))
    for key, event in events(lines([("pay", {"cents": n}, n) for n in (1, 2, 3)])):
        both.see(key, event)
    found = both.done()
    assert (found.stricter, found.looser) == (0, 0)
    assert found.after.denied == 2


def mixed(count: int) -> bytes:
    """Many runs of which some change, a few with ids that need care."""
    runs = [
        lines([("pay", {"cents": 10 * n % 700}, n), ("look", {"n": n}, n)], run_id=f"run-{n}")
        for n in range(count)
    ]
    runs += [lines([("pay", {"cents": 999}, 1)], run_id=name) for name in ('a"b', "ü", "\\", "")]
    return packed(*runs) + b'{"seq": 1, "run_id": "late", "type": "run.start"}\nno json\n[1]\n'


def test_several_processes_say_what_one_says(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(mixed(60))
    job = Job(paths=[str(path)], pact=load(PACT))
    alone = sharing.run(job)
    seen: list[int] = []
    shared = sharing.run(job, 3, seen.append)
    assert alone.report is not None
    assert alone.report.denied > 10
    assert shared.report is not None
    assert shared.report.usd == pytest.approx(alone.report.usd)
    shared.report.usd = alone.report.usd  # sums of floats depend on their order
    assert msgspec.to_builtins(shared.report) == msgspec.to_builtins(alone.report)
    assert (shared.rejected_count, shared.lines) == (alone.rejected_count, alone.lines)
    assert shared.rejected == alone.rejected
    assert seen[-1] == alone.lines


def test_comparisons_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(mixed(40))
    against = load(PACT.replace("<= 100", "<= 1000"))
    job = Job(paths=[str(path)], pact=load(PACT), against=against)
    alone, shared = sharing.run(job).comparison, sharing.run(job, 2).comparison
    assert alone is not None
    assert shared is not None
    assert shared.stricter == alone.stricter > 5
    assert shared.pairs == alone.pairs
    assert {(one.run_id, one.seq) for one in shared.differences} == {
        (one.run_id, one.seq) for one in alone.differences
    }


def test_every_line_falls_to_one_share() -> None:
    raw = mixed(30).splitlines()
    shares = [list(own_lines(raw, share, 4)) for share in range(4)]
    assert all(len(share) == len(raw) for share in shares), "lines keep their numbers"
    for number, line in enumerate(raw):
        assert [share[number] for share in shares if share[number]] == [line]
    owners: dict[str, set[int]] = {}
    for number, share in enumerate(shares):
        for line in share:
            if line.startswith(b"{"):
                owners.setdefault(json.loads(line)["run_id"], set()).add(number)
    assert all(len(one) == 1 for one in owners.values()), "a run is judged as a whole"
    assert len({number for one in owners.values() for number in one}) == 4


def test_merged_reports_add_up() -> None:
    one = report_of(PACT, lines([("pay", {"cents": 500}, 1)]))
    two = report_of(PACT, lines([("pay", {"cents": 700}, 1), ("look", {}, 1)], run_id="r2"))
    whole = merged([one, two])
    assert (whole.runs, whole.calls, whole.denied, whole.runs_changed) == (2, 3, 2, 2)
    assert [rule.count for rule in whole.rules] == [2]
    assert summary(whole)["denied"] == 2
    with pytest.raises(ValueError, match="no report"):
        merged([])


def test_judging_needs_no_network(tmp_path: Path) -> None:
    """In a process where no socket can be made, and no network library is loaded by judging."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(mixed(5))
    program = f"""
import socket, sys
def refuse(*_, **__): raise AssertionError("a socket")
socket.socket.connect = socket.socket.bind = socket.create_connection = refuse
from checkrein.analysis import sharing
from checkrein.policy.pact import load
answer = sharing.run(sharing.Job(paths=[{str(path)!r}], pact=load({PACT!r})))
assert answer.report.runs == 9, answer.report.runs
assert not {{"nats", "http.client", "urllib.request", "httpx"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
