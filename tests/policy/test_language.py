"""The language of pacts: what each rule lets pass and refuses, and what is refused when read."""

from typing import Any

import pytest

from checkrein.policy.guard import RunGuard
from checkrein.policy.lint import lint, rules_of
from checkrein.policy.pact import PactError, load, pack
from checkrein.policy.pair import PairGuard
from checkrein.policy.types import Action, Place, Verdict

SECOND_NS = 1_000_000_000

SUPPORT = """\
pact: support-bot
job: resolve refund tickets up to 50 dollars
owner: payments-oncall
models: [gpt-5-mini, claude-haiku-*]
tools:
  search_kb: {kind: read, timeout: 5s}
  verify_customer: {kind: read}
  read_file: {kind: read, paths: [/srv/docs/**, "!**/.env"]}
  query: {kind: read, tables: {args.sql: {read: [orders, customers]}}}
  fetch: {kind: read, hosts: {args.url: ["*.example.com"]}}
  refund:
    kind: compensable
    undo: reverse_refund
    arguments: {order: string, cents: integer, currency: string}
    allow: args.currency == "USD" && args.cents <= 5000
    ask: args.cents > 2000
    once_per: args.order
    steer: [{when: args.cents > 1000, say: "Tell the customer that it takes three days."}]
  search_web: {kind: read, set: {limit: "args.limit > 10 ? 10 : args.limit"}}
  notify: {kind: irreversible}
sequence:
  - deny refund unless formerly verify_customer within 30m
  - ask notify if count notify > 2
escalate:
  - {when: args.cents > 1500, to: payments-oncall, within: 5m}
  - {when: confidence >= 0.0 && confidence < 0.2, to: lead, within: 1m, hold: true}
budgets: {steps: 35, tool_calls: 50, tokens: 200000, usd: 2.00, wall: 10m}
"""


class Agent:
    def __init__(self, text: str = SUPPORT, **named: Any) -> None:
        self.guard = RunGuard(load(text), place=Place(agent="bot", task_id="t1"), **named)
        self.now_ns = SECOND_NS
        self.calls = 0

    def asks(self, tool: str, **arguments: Any) -> Verdict:
        self.now_ns += SECOND_NS
        self.calls += 1
        self.action = Action(kind="tool", name=tool, arguments=arguments, call_id=f"c{self.calls}")
        return self.guard.judge(self.action, self.now_ns)

    def uses(self, tool: str, **arguments: Any) -> Verdict:
        verdict = self.asks(tool, **arguments)
        if verdict.kind in ("allow", "modify", "steer"):
            result = {"n": self.calls, "of": tool}
            self.guard.returned(self.action, result, "", self.now_ns)
        return verdict


@pytest.fixture
def verified() -> Agent:
    agent = Agent()
    assert agent.uses("verify_customer", id=7).kind == "allow"
    return agent


def test_a_refund_passes_every_rule(verified: Agent) -> None:
    assert verified.uses("refund", order="A1", cents=500, currency="USD").kind == "allow"


@pytest.mark.parametrize(
    ("arguments", "kind", "rule", "advice"),
    [
        ({"order": "A1", "cents": 500, "currency": "EUR"}, "deny", "tools.refund.allow",
         "ESCALATE"),
        ({"order": "A1", "cents": 9000, "currency": "USD"}, "deny", "tools.refund.allow",
         "ESCALATE"),
        ({"order": "A1", "cents": 2500, "currency": "USD"}, "ask", "tools.refund.ask", "WAIT"),
        ({"order": "A1", "cents": 1200, "currency": "USD"}, "steer", "tools.refund.steer[0]", ""),
        ({"order": "A1", "cents": "many", "currency": "USD"}, "deny", "tools.refund.arguments",
         "RETRYABLE"),
        ({"order": "A1", "currency": "USD"}, "deny", "tools.refund.arguments", "RETRYABLE"),
    ],
)  # fmt: skip
def test_conditions_decide(
    verified: Agent, arguments: dict[str, Any], kind: str, rule: str, advice: str
) -> None:
    verdict = verified.asks("refund", **arguments)
    assert (verdict.kind, verdict.rule, verdict.advice) == (kind, rule, advice)
    assert verdict.reason
    if rule.endswith(("allow", "ask")):
        assert verdict.inputs["args"] == arguments


def test_forbid_wins_over_ask() -> None:
    verdict = Agent().asks("refund", order="A1", cents=2500, currency="USD")
    assert (verdict.kind, verdict.rule) == ("deny", "sequence[0]"), "not verified, whoever says yes"


def test_once_per_value_and_in_flight_counts(verified: Agent) -> None:
    assert verified.asks("refund", order="A1", cents=1, currency="USD").kind == "allow"
    second = verified.asks("refund", order="A1", cents=2, currency="USD")
    assert (second.kind, second.rule, second.advice) == (
        "deny", "tools.refund.once_per", "TERMINAL",
    )  # fmt: skip
    assert verified.asks("refund", order="A2", cents=2, currency="USD").kind == "allow"


def test_a_call_that_failed_may_be_made_again(verified: Agent) -> None:
    assert verified.asks("refund", order="A1", cents=1, currency="USD").kind == "allow"
    verified.guard.returned(verified.action, None, "bank is closed", verified.now_ns)
    assert verified.asks("refund", order="A1", cents=1, currency="USD").kind == "allow"


def test_granted_counts_and_still_forbids(verified: Agent) -> None:
    asked = verified.asks("refund", order="A1", cents=2500, currency="USD")
    assert asked.kind == "ask"
    assert verified.guard.spent.tool_calls == 1, "asking is not making"
    assert verified.guard.granted(verified.action, verified.now_ns).kind == "steer"
    assert verified.guard.spent.tool_calls == 2
    edited = Action(kind="tool", name="refund", call_id="e", arguments={
        "order": "A9", "cents": 9999, "currency": "USD",
    })  # fmt: skip
    assert verified.guard.granted(edited, verified.now_ns).rule == "tools.refund.allow"
    again = Action(kind="tool", name="refund", call_id="f", arguments={
        "order": "A1", "cents": 2500, "currency": "USD",
    })  # fmt: skip
    assert verified.guard.granted(again, verified.now_ns).rule == "tools.refund.once_per"


def test_set_changes_what_is_called() -> None:
    agent = Agent()
    verdict = agent.asks("search_web", q="x", limit=500)
    assert (verdict.kind, verdict.arguments) == ("modify", {"q": "x", "limit": 10})
    assert agent.asks("search_web", q="y", limit=5).kind == "allow"
    missing = agent.asks("search_web", q="z")
    assert (missing.kind, missing.advice) == ("deny", "RETRYABLE")
    assert "limit" in missing.reason


@pytest.mark.parametrize(
    ("tool", "arguments", "kind"),
    [
        ("read_file", {"path": "/srv/docs/a.md"}, "allow"),
        ("read_file", {"path": "/srv/docs/../../etc/passwd"}, "deny"),
        ("read_file", {"path": "/srv/docs/x/.env"}, "deny"),
        ("query", {"sql": "select * from orders"}, "allow"),
        ("query", {"sql": "select * from salaries"}, "deny"),
        ("query", {"sql": "delete from orders"}, "deny"),
        ("fetch", {"url": "https://docs.example.com/x"}, "allow"),
        ("fetch", {"url": "https://docs.example.com@evil.com/"}, "deny"),
    ],
)
def test_scopes_decide(tool: str, arguments: dict[str, Any], kind: str) -> None:
    verdict = Agent().asks(tool, **arguments)
    assert verdict.kind == kind, verdict.reason
    if kind == "deny":
        assert verdict.guard == "scope"


def test_sequences_ask_after_two() -> None:
    agent = Agent()
    assert [agent.uses("notify", who=n).kind for n in range(3)] == ["allow", "allow", "ask"]


def test_duties_are_named_and_one_that_holds_asks(verified: Agent) -> None:
    verdict = verified.asks("refund", order="A1", cents=1800, currency="USD")
    assert [duty.to for duty in verdict.duties] == ["payments-oncall"]
    assert verified.asks("notify", who="x").duties == (), "it has no cents"
    verified.guard.said_confidence(0.1)
    held = verified.asks("search_kb", q="x")
    assert (held.kind, held.rule) == ("ask", "escalate[1]")
    assert [duty.to for duty in held.duties] == ["lead"]


def test_a_rule_that_has_no_answer_denies() -> None:
    agent = Agent("pact: a\ntools: {pay: {allow: args.cents < 5}}")
    verdict = agent.asks("pay", euros=1)
    assert (verdict.kind, verdict.advice) == ("deny", "RETRYABLE")
    assert "tools.pay.allow" in verdict.rule
    assert "cents" in verdict.reason


def test_what_a_pact_extends_bounds_it() -> None:
    parent = load("pact: team\ntools: {pay: {allow: args.cents < 100}, look: }\nmodels: [a-*]\n"
                  "budgets: {usd: 5}")  # fmt: skip
    text = "pact: bot\nextends: team\ntools: {pay: {allow: args.cents < 1000}, wipe: }\nmodels: [b]"
    guard = RunGuard(load(text, known={"team": parent}))

    def judged(tool: str, **arguments: Any) -> str:
        return guard.judge(Action(kind="tool", name=tool, arguments=arguments), 1).rule

    assert judged("pay", cents=50) == ""
    assert judged("pay", cents=500) == "tools.pay.allow"
    assert judged("wipe") == "tools.pact"
    assert judged("look") == "tools.pact"
    assert guard.judge(Action(kind="model", name="b"), 1).kind == "deny"
    assert guard.budgets.usd == 5
    with pytest.raises(PactError, match=r"my:3:16: `budgets\.usd` is 6: more than the pact `team`"):
        load("pact: bot\nextends: team\nbudgets: {usd: 6}", "my", known={"team": parent})


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("tools: {x: {arguments: {cents: integer}, allow: args.cent < 5}}", "2:54",
         "did you mean `cents`"),
        ("tools: {x: {arguments: {cents: integer}, allow: args.cents == 'a'}}", "2:", "`tools.x."),
        ("tools:\n  x:\n    allow: args.a > 1 &&", "4:", "`tools.x.allow`"),
        ("tools: {x: {allow: args.a > 5 && args.a < 3}}", "2:20", "is false for every call"),
        ("tools: {x: {ask: 1 < 2}}", "2:18", "is true for every call"),
        ("tools: {x: {arguments: {a: sting}}}", "2:24", "did you mean `string`"),
        ("tools: {x: {paths: []}}", "2:", "scope"),
        ("tools: {x: {source: bad}}", "2:21", "trusted, untrusted, private"),
        ("tools: {x: {steer: [{when: true}]}}", "2:", "should be {when: CONDITION, say: TEXT}"),
        ("sequence:\n  - deny x unless formerly", "3:", "sequence[0]"),
        ("tools: {pay: }\nsequence:\n  - deny paay if once paay", "4:5", "did you mean `pay`"),
        ("escalate:\n  - {when: args.x > 1, to: me}", "3:5", "should say within"),
        ("budgets: {hour: {steps: 3}}", "2:18", "unknown key `steps`"),
        ("budgets: {exhausted: never}", "2:22", "pause, stop"),
        ("output: {schema: reply.json}", "2:18", "is not packed"),
        ("redact: [names]", "2:10", "secrets, pii"),
        ("approval: soon", "2:11", "is not a duration"),
    ],
)  # fmt: skip
def test_what_cannot_hold_is_refused_when_it_is_read(text: str, place: str, says: str) -> None:
    with pytest.raises(PactError) as refused:
        load(f"pact: a\n{text}", "my.yaml")
    assert str(refused.value).startswith(f"my.yaml:{place}"), str(refused.value)
    assert says in str(refused.value)


def test_a_schema_in_a_file_travels_with_the_pact() -> None:
    text = "pact: a\noutput: {schema: reply.json}\n"
    whole = pack(text, {"reply.json": '{"type": "object", "required": ["answer"]}'}.__getitem__)
    pact = load(whole)
    guard = RunGuard(pact)
    assert guard.objections({"answer": 1}) == []
    assert "answer" in guard.objections({})[0]
    assert pack(whole, {}.__getitem__) == whole


def test_a_watched_pact_says_and_lets_pass() -> None:
    strict = load("pact: a\ntools: {look: }")
    pair = PairGuard(RunGuard(load("pact: a\ntools: {look: , pay: }")),
                     RunGuard(strict, watching=True))  # fmt: skip
    verdict = pair.judge(Action(kind="tool", name="pay", call_id="1"), 1)
    assert verdict.kind == "allow"
    assert verdict.beside is not None
    assert (verdict.beside.kind, verdict.beside.shadow, verdict.beside.rule) == (
        "deny", True, "tools.pact",
    )  # fmt: skip
    assert pair.judge(Action(kind="tool", name="look", call_id="2"), 2).beside is None


def test_a_pact_can_be_changed_while_a_run_goes_on() -> None:
    agent = Agent("pact: a\ntools: {verify: , refund: , other: }")
    agent.uses("verify", id=1)
    agent.uses("refund", n=1)
    agent.guard.adopt(load(
        "pact: a\ntools: {verify: , refund: }\nsequence:\n"
        "  - deny refund unless formerly verify\n  - deny refund if count refund > 2\n"
        "budgets: {tool_calls: 4, exhausted: stop}\nwarn_at: 100%"
    ))  # fmt: skip
    assert agent.uses("refund", n=2).kind == "allow", "it was verified before the rule was there"
    assert agent.asks("refund", n=3).rule == "sequence[1]", "and has been called once before it"
    assert agent.asks("other").rule == "tools.pact"
    assert agent.guard.spent.tool_calls == 3, "what was spent stays spent"


def test_lint_remarks_on_what_is_odd() -> None:
    pact = load("""\
pact: a
tools:
  wipe_*: {kind: irreversible}
  pay: {kind: irreversible, allow: args.cents < 10, ask: args.cents > 20}
""")
    said = [f"{remark.rule}: {remark.problem}" for remark in lint(pact)]
    for rule, problem in (
        ("job", "no job"), ("tools.wipe_*", "a pattern over tools that change things"),
        ("tools.wipe_*", "nothing limits it"), ("tools.pay.ask", "can never fire"),
        ("budgets", "neither money nor tokens"),
    ):  # fmt: skip
        assert any(one.startswith(f"{rule}: ") and problem in one for one in said), said
    silent = [remark.rule for remark in lint(pact, {"tools.pay.allow": 3})]
    assert "tools.pay.ask" in silent
    assert "tools.pay.allow" not in silent


def test_lint_sees_sequences_that_never_or_always_fire() -> None:
    pact = load("""\
pact: a
job: b
tools: {read_a: {kind: read}, pay: {allow: args.cents < 10}}
budgets: {usd: 1}
sequence:
  - deny read_a if count pay > 3 and never before pay and count fly > 2
  - deny pay unless formerly verify
  - deny pay unless formerly read_a
""")
    assert [(remark.rule, remark.problem.split(":")[0]) for remark in lint(pact)] == [
        ("sequence[0]", "it can never fire"), ("sequence[1]", "it fires at every call"),
    ]  # fmt: skip
    assert rules_of(pact) == ["tools.pay.allow", "sequence[0]", "sequence[1]", "sequence[2]"]


def test_many_unrelated_tools_are_split() -> None:
    names = [f"{verb}_{thing}" for thing in (
        "invoice", "ticket", "flight", "hotel", "file", "repo", "email", "report", "badge", "lamp",
    ) for verb in ("get", "send")]  # fmt: skip
    pact = load("pact: a\njob: all\nbudgets: {usd: 1}\ntools: {" + ": , ".join(names) + ": }")
    [remark] = [remark for remark in lint(pact) if remark.rule == "tools"]
    assert "20 tools of 10 unrelated things" in remark.problem
    assert "get_invoice, send_invoice" in remark.proposal


def test_a_rule_may_come_before_its_tool_and_a_slip_is_refused() -> None:
    pact = load("""\
pact: a
job: b
tools: {refund: {kind: compensable}}
budgets: {usd: 1}
sequence:
  - deny ship_parcel unless formerly refund
flow:
  - deny send_email when args derive from read_customer and args.to is external
""")
    assert [(one.rule, one.problem.partition(":")[0]) for one in lint(pact)] == [
        ("sequence[0]", "it can never fire"), ("flow[0]", "it can never fire"),
    ]  # fmt: skip
    for rule in (
        "sequence:\n  - deny refnd if once refnd",
        "flow:\n  - deny refnd when args.to is external",
    ):
        with pytest.raises(PactError, match="did you mean `refund`"):
            load(f"pact: a\ntools: {{refund: }}\n{rule}")
