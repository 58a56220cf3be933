"""Each detector sees what it is for, and leaves alone what only looks like it."""

from random import Random
from typing import Any

import pytest

from checkrein.events.types import Loss
from checkrein.policy.pact import load
from tests.detect.loops import LOOPS, NOT_LOOPS, Made
from tests.detect.made import SECOND_NS, Run, Watched, halts, levels, signals

LONG = "an answer that is long enough to tell one from another, which says that all is well"


def watched(pact: str = "") -> Watched:
    return Watched(load(f"pact: test\n{pact}") if pact else None)


# --- budget --------------------------------------------------------------------------------------


def test_budget_warns_then_says_runaway_once_and_asks_for_a_halt() -> None:
    run, seen = Run(), watched("budgets: {tool_calls: 5, exhausted: stop}")
    seen.see(run.starts())
    for number in range(8):
        seen.see(run.calls(Made("get", {"n": number}, f"{LONG} {number}")))
    assert levels(seen.said, "budget") == ["warn", "runaway"]
    over = signals(seen.said, "budget")[-1]
    assert (over.value, over.limit) == (6.0, 5.0)
    assert [halt.run_id for halt in halts(seen.said)] == [run.run_id]


def test_a_budget_that_pauses_is_a_runaway_only_when_the_run_goes_on() -> None:
    run, seen = Run(), watched("budgets: {tool_calls: 2}\nwarn_at: 100%")
    seen.see(run.starts())
    for number in range(3):
        seen.see(run.calls(Made("get", {"n": number}, f"{LONG} {number}")))
    assert levels(seen.said, "budget") == ["warn", "breach"]
    for number in range(3, 8):
        seen.see(run.calls(Made("get", {"n": number}, f"{LONG} {number}")))
    assert levels(seen.said, "budget") == ["warn", "breach", "runaway"]


def test_a_raised_budget_is_over_only_beyond_what_was_added() -> None:
    run, seen = Run(), watched("budgets: {tool_calls: 2}\nwarn_at: 100%")
    seen.see(run.starts(), run.is_("running", raised={"tool_calls": 3}))
    for number in range(6):
        seen.see(run.calls(Made("get", {"n": number}, f"{LONG} {number}")))
    assert levels(seen.said, "budget") == ["warn", "breach"]
    assert signals(seen.said, "budget")[-1].limit == 5.0


def test_exactly_the_budget_is_not_over_it() -> None:
    run, seen = Run(), watched("budgets: {steps: 3, tokens: 30}\nwarn_at: 100%")
    seen.see(run.starts())
    for _ in range(3):
        seen.see(run.steps(), run.hears_model(10))
    assert levels(seen.said, "budget") == ["warn", "warn"]


def test_money_is_priced_when_nobody_has_and_said_when_nobody_can() -> None:
    run, seen = Run(), watched("budgets: {usd: 0.01, exhausted: stop}")
    seen.see(run.starts(), run.hears_model(10, model="home-made"))
    assert [each.subject for each in signals(seen.said, "budget")] == ["unpriced"]
    seen.see(run.hears_model(100_000, provider="openai", model="gpt-5-mini"))
    assert signals(seen.said, "budget")[-1].runaway


def test_wall_clock_counts_by_ticks_and_not_in_a_pause() -> None:
    run, seen = Run(), watched("budgets: {wall: 1m, exhausted: stop}\nwarn_at: 100%")
    seen.see(run.starts(), run.is_("paused"))
    assert not seen.tick(run.ts + 300 * SECOND_NS)
    run.ts += 300 * SECOND_NS
    seen.see(run.is_("running"))
    assert not seen.tick(run.ts + 30 * SECOND_NS)
    assert levels(seen.tick(run.ts + 61 * SECOND_NS), "budget") == ["runaway"]


def test_a_guards_refusal_is_the_breach_of_its_own_detector() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts())
    assert levels(seen.see(run.refused("budgets", "budgets.usd", "m")), "budget") == ["runaway"]
    assert not signals(seen.said, "scope")


# --- loop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOOPS)
def test_every_kind_of_loop_ends_as_runaway(name: str) -> None:
    for seed in range(10):
        run, seen = Run(), watched()
        seen.see(run.starts())
        for made in LOOPS[name](Random(seed)):
            seen.see(run.calls(made))
        assert levels(seen.said, "loop")[-1] == "runaway", seed
        assert halts(seen.said), seed


@pytest.mark.parametrize("name", NOT_LOOPS)
def test_hard_negatives_are_no_loops(name: str) -> None:
    for seed in range(10):
        run, seen = Run(), watched()
        seen.see(run.starts())
        for made in NOT_LOOPS[name](Random(seed)):
            seen.see(run.calls(made))
        assert not signals(seen.said, "loop"), seed
        assert not halts(seen.said), seed


def test_the_evidence_of_a_loop_is_its_calls() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts())
    for _ in range(3):
        seen.see(run.calls(Made("search", {"q": "x"}, LONG)))
    (warned,) = signals(seen.said, "loop")
    assert warned.evidence == [("rec-1", 5), ("rec-1", 9), ("rec-1", 13)]
    assert "3 times" in warned.why


def test_a_refusal_for_good_is_no_runaway_and_one_for_now_is_a_warning() -> None:
    run, seen = Run(), watched("tools: {pay: }")
    seen.see(run.starts())
    seen.see(run.refused("allow", "tools.pay.allow", "pay", "RETRYABLE"))
    seen.see(run.refused("once", "tools.pay.once_per", "pay", "TERMINAL", runaway=False))
    assert levels(seen.said, "scope") == ["warn", "breach"]
    assert not halts(seen.said)


def test_refused_loops_are_breaches_and_being_cut_off_is_runaway() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts())
    for advice in ("ESCALATE", "ESCALATE", "TERMINAL"):
        seen.see(run.refused("loops", "loops.same_call", "search", advice))
    assert levels(seen.said, "loop") == ["breach", "runaway"]


# --- duplicate side effects ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "kind", "said"),
    [("wire", "irreversible", ["breach"]), ("refund", "compensable", ["warn"]),
     ("send_mail", "", ["warn"]), ("sendMail", "", ["warn"]), ("search", "read", []),
     ("write_file", "", []), ("pay", "read", [])],
)  # fmt: skip
def test_the_same_effect_twice(tool: str, kind: str, said: list[str]) -> None:
    run, seen = Run(), watched()
    for number in range(2):
        made = Made(tool, {"to": "a", "cents": 5}, {"id": number, "text": LONG})
        seen.see(run.calls(made, kind))
    assert levels(seen.said, "duplicate-effect") == said


def test_other_arguments_or_a_failure_between_are_no_duplicates() -> None:
    run, seen = Run(), watched("tools: {wire: {kind: irreversible}}")
    for number in range(5):
        seen.see(run.calls(Made("wire", {"to": "a", "ref": number}, "ok")))
    seen.see(run.calls(Made("wire", {"to": "b"}, "timeout", failed=True)))
    seen.see(run.calls(Made("wire", {"to": "b"}, "ok")))
    assert not signals(seen.said, "duplicate-effect")


# --- tokens --------------------------------------------------------------------------------------


def test_a_surge_of_a_new_agent_warns_and_the_third_is_a_breach() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts())
    for tokens in (300, 400, 350, 5_000, 6_000, 7_000):
        seen.see(run.hears_model(tokens))
    assert levels(seen.said, "token-surge") == ["warn", "breach"]


@pytest.mark.parametrize("tokens", [[100, 1_900, 50, 1_500], [5_000] * 9, [900, 2_500, 900]])
def test_small_or_usual_calls_are_no_surge(tokens: list[int]) -> None:
    run, seen = Run(), watched()
    seen.see(run.starts(), [run.hears_model(each) for each in tokens])
    assert not signals(seen.said, "token-surge")


def test_against_history_only_piled_up_evidence_counts() -> None:
    seen, random = watched(), Random(7)
    for number in range(1, 200):
        run = Run(number)
        usual = [round(random.lognormvariate(6, 1)) for _ in range(10)]
        seen.see(run.starts(), [run.hears_model(each) for each in usual], run.ends())
    assert len(signals(seen.said, "token-surge")) <= 2, "2,000 healthy calls"
    run = Run(500)
    seen.see(run.starts(), run.hears_model(400))
    burning = seen.see([run.hears_model(30_000) for _ in range(6)])
    assert levels(burning, "token-surge") == ["warn", "breach"]


# --- tools ---------------------------------------------------------------------------------------


def test_a_tool_that_keeps_failing() -> None:
    run, seen = Run(), watched()
    for number in range(6):
        seen.see(run.calls(Made("get", {"n": number}, f"503 {number}", failed=True)))
    assert levels(seen.said, "tool-failure") == ["warn", "breach"]


def test_single_failures_are_life() -> None:
    run, seen = Run(), watched()
    for number in range(12):
        failed = number % 4 == 0
        seen.see(run.calls(Made("get", {"n": number}, f"{LONG} {number}", failed=failed)))
    assert not signals(seen.said, "tool-failure")


def test_half_of_the_calls_failing_warns() -> None:
    run, seen = Run(), watched()
    for number in range(10):
        made = Made("get", {"n": number}, f"{LONG} {number}", failed=bool(number % 2))
        seen.see(run.calls(made))
    assert levels(seen.said, "tool-failure") == ["warn"]


def test_a_slow_tool_is_seen_while_it_runs() -> None:
    run, seen = Run(), watched("tools: {get: {timeout: 5s}, other: }")
    events = run.calls(Made("get", {}, "late"), duration_ns=20 * SECOND_NS)
    seen.see(events[:3])
    begun = events[2].ts
    assert not seen.tick(begun + 4 * SECOND_NS)
    assert levels(seen.tick(begun + 6 * SECOND_NS), "slow-tool") == ["warn"]
    assert not seen.tick(begun + 7 * SECOND_NS), "once is enough"
    assert levels(seen.tick(begun + 16 * SECOND_NS), "slow-tool") == ["breach"]
    assert not signals(seen.see(events[3:]), "slow-tool")


def test_a_slow_tool_is_seen_when_it_returns() -> None:
    run, seen = Run(), watched("tools: {get: {timeout: 5s}}")
    seen.see(run.calls(Made("get", {}, "x"), duration_ns=4 * SECOND_NS))
    assert not seen.said
    seen.see(run.calls(Made("get", {}, "y"), duration_ns=6 * SECOND_NS))
    assert levels(seen.said, "slow-tool") == ["warn"]


def test_a_tool_that_does_not_exist() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts(tools=["search_kb", "read_kb"]))
    for name in ("searhc_kb", "reed_kb", "wire_all"):
        seen.see(run.calls(Made(name, {"n": name}, f"no such tool {name}", failed=True)))
    assert levels(seen.said, "unknown-tool") == ["warn", "warn", "breach"]
    assert "did you mean `search_kb`" in signals(seen.said, "unknown-tool")[0].why


def test_an_unlisted_tool_that_works_exists() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts(tools=["search"]))
    for number in range(4):
        seen.see(run.calls(Made("later", {"n": number}, f"{LONG} {number}")))
    seen.see(run.asks_model(tools=["added"]))
    seen.see(run.calls(Made("added", {}, "broken", failed=True)))
    assert not signals(seen.said, "unknown-tool")


def test_a_tool_outside_the_pact_that_ran_is_a_breach() -> None:
    run, seen = Run(), watched("tools: {search: }")
    seen.see(run.calls(Made("search", {"q": 1}, LONG)))
    assert not seen.said
    seen.see(run.calls(Made("drop_table", {}, LONG)))
    assert levels(seen.said, "unknown-tool") == ["breach"]


def test_refused_attempts_are_breaches_of_scope_one_for_each_tool() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts())
    for tool in ("delete", "delete", "wire"):
        seen.see(run.refused("tools", "tools.pact", tool))
    assert levels(seen.said, "scope") == ["breach", "breach"]
    assert not halts(seen.said), "one kind of breach alone does not halt"
    seen.see(run.refused("tools", "tools.unknown", "x"))
    assert levels(seen.said, "unknown-tool") == ["warn"]


# --- endings and silence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "detector", "said"),
    [
        ("lost", {}, "process-death", ["breach"]),
        ("failed", {"signal": "SIGKILL"}, "process-death", ["breach"]),
        ("failed", {"signal": "SIGINT"}, "process-death", []),
        ("halted", {"signal": "SIGKILL"}, "process-death", []),
        ("failed", {"exit_code": 1}, "process-death", []),
        ("unfinished", {"exit_code": 0}, "unfinished", ["breach"]),
        ("completed", {}, "unfinished", []),
    ],
)
def test_endings(status: str, fields: dict[str, Any], detector: str, said: list[str]) -> None:
    run, seen = Run(), watched()
    seen.see(run.starts(), run.ends(status, **fields))
    assert levels(seen.said, detector) == said
    assert not halts(seen.said), "there is nothing left to halt"


def test_completed_with_calls_open_warns_unless_it_is_the_last() -> None:
    run, seen = Run(), watched()
    hanging = run.calls(Made("get", {}, ""))[:3]
    seen.see(run.starts(), hanging, run.ends())
    assert not seen.said
    run = Run(2)
    hanging = run.calls(Made("get", {}, ""))[:3]
    seen.see(run.starts(), hanging, run.calls(Made("b", {}, LONG)), run.ends())
    assert levels(seen.said, "unfinished") == ["warn"]


def test_silence_by_the_quantile_of_the_fleet() -> None:
    seen = watched()
    fleet = [Run(number) for number in range(1, 41)]
    for run in fleet:
        seen.see(run.starts(framework="slow"))
        for number in range(60):
            stall_s = 25 if number == 30 else 0
            run.ts += (9 + stall_s) * SECOND_NS
            seen.see(run.beats())
    last = fleet[0].ts
    assert not seen.tick(last + 45 * SECOND_NS), "the fleet has stalled so long before"
    gone = seen.tick(last + 60 * SECOND_NS)
    assert len(signals(gone, "silence")) == 40
    assert not seen.tick(last + 70 * SECOND_NS)
    assert not halts(gone)


def test_silence_of_a_new_fleet_is_three_periods() -> None:
    run, seen = Run(), watched()
    seen.see(run.starts(), run.beats())
    assert not seen.tick(run.ts + 29 * SECOND_NS)
    assert levels(seen.tick(run.ts + 31 * SECOND_NS), "silence") == ["breach"]
    seen.see(run.beats())
    assert levels(seen.tick(run.ts + 31 * SECOND_NS), "silence") == ["breach"], "silent once more"


def test_a_call_in_flight_a_pause_an_end_or_no_beats_are_no_silence() -> None:
    seen = watched()
    calling, held, ended, recorded = (Run(number) for number in range(1, 5))
    seen.see(calling.starts(), calling.beats(in_flight=1))
    seen.see(held.starts(), held.beats(), held.is_("paused"))
    seen.see(ended.starts(), ended.beats(), ended.ends())
    seen.see(recorded.starts(), recorded.steps())
    assert not seen.tick(calling.ts + 200 * SECOND_NS)
    assert levels(seen.tick(calling.ts + 400 * SECOND_NS), "silence") == ["breach"]


def test_loss_is_said() -> None:
    run, seen = Run(), watched()
    for first in (1, 500):
        seen.see(Loss(**run.common(), lost_recorder="r", count=600, first=first, last=first + 599))
    assert levels(seen.said, "loss") == ["warn", "breach"]
    assert not halts(seen.said)
