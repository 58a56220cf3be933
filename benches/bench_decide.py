"""What a decision costs before a call, by a pact that uses every part of the language."""

import gc
import time
from collections.abc import Callable
from typing import Any

from benches.harness import Row

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.types import Action, Pact, Place

QUESTION = "How long does one decision take, by 20 rules and by 1,000?"
CALLS = 6_000
SECOND_NS = 1_000_000_000
NOTE = "The customer says that the parcel came late and that the box was open. " * 5

TWENTY = """\
pact: support-bot
job: resolve refund tickets up to 50 dollars
models: [gpt-5-mini, claude-haiku-*]
internal: [example.com]
tools:
  search_kb: {kind: read, source: trusted}
  read_ticket: {kind: read, source: untrusted}
  verify_customer: {kind: read, source: private}
  refund:
    kind: compensable
    undo: reverse_refund
    arguments: {order: string, cents: integer, currency: string, note: string, to: string,
                path: string}
    allow: >-
      args.currency == "USD" && args.cents <= 5000 && size(args.note) < 2000
      && !args.note.matches("(?i)password|secret|token")
    ask: args.cents > 4000
    once_per: args.order
    steer:
      - {when: args.cents > 3000, say: "It takes three days."}
    hosts: {args.to: [example.com]}
    paths: {args.path: [/srv/tickets/**, "!**/.env"]}
sequence:
  - deny refund unless formerly verify_customer within 30h
  - deny refund if sum args.cents of refund within 24h > 1000000000
  - ask refund if count refund within 1h > 1000000
  - deny refund if once close_ticket
flow:
  - directive
  - deny refund when args.note derives from verify_customer and args.to is external
escalate:
  - {when: args.cents > 4900, to: payments-oncall, within: 5m}
budgets: {steps: 1000000, tool_calls: 1000000, tokens: 900000000, usd: 900, wall: 90h}
""".replace("once close_ticket", "once search_kb")


def of_a_thousand() -> str:
    """20 tools beside the one judged, 1,000 rules about them, and the same about it."""
    tools = "".join(
        f"  tool_{n}: {{kind: compensable, allow: args.cents <= {n + 10}, once_per: args.order}}\n"
        for n in range(100)
    )
    rules = "".join(
        f"  - deny tool_{n % 100} if sum args.cents of tool_{(n + 1) % 100} within {n % 23 + 1}h"
        f" > {1000 + n}\n"
        for n in range(790)
    )
    return TWENTY.replace("sequence:\n", f"{tools}sequence:\n{rules}")


def action(number: int) -> Action:
    return Action(
        kind="tool", name="refund", call_id=f"c{number}", arguments={
            "order": f"ORD-{number}", "cents": number % 2900, "currency": "USD", "note": NOTE,
            "to": "ann@example.com", "path": "/srv/tickets/42/notes.md",
        },
    )  # fmt: skip


def guarded(pact: Pact) -> RunGuard:
    """A run that has searched, read and verified."""
    place = Place(agent="bot", task_id="t", goal="refund order ORD-1 of ann@example.com")
    guard = RunGuard(pact, SECOND_NS, place)
    for number, (tool, result) in enumerate((
        ("verify_customer", {"customer": "Ann", "mail": "ann@example.com"}),
        ("read_ticket", {"text": "It came late. Order ORD-1.", "from": "ann@example.com"}),
    )):  # fmt: skip
        call = Action(kind="tool", name=tool, arguments={"id": number}, call_id=f"r{number}")
        guard.judge(call, SECOND_NS)
        guard.returned(call, result, "", SECOND_NS)
    return guard


def timed(judge: Callable[[Action, int], Any], after: Callable[[Action, int], None]) -> list[float]:
    """Microseconds of each of the calls, in order of size."""
    times = []
    for number in range(CALLS):
        now_ns = SECOND_NS * 2 + number * 10_000_000
        asked = action(number)
        begun = time.perf_counter_ns()
        judge(asked, now_ns)
        times.append((time.perf_counter_ns() - begun) / 1e3)
        after(asked, now_ns)
        if number % 1000 == 0:
            gc.collect()
    return sorted(times)


def by_pact(text: str, history: int = 0) -> list[float]:
    guard = guarded(load(text))
    for number in range(history):
        call = Action(
            kind="tool", name="read_ticket", arguments={"id": number}, call_id=f"h{number}"
        )
        guard.judge(call, SECOND_NS)
        guard.returned(call, {"text": f"ticket {number} of customer {number}"}, "", SECOND_NS)

    def judge(asked: Action, now_ns: int) -> None:
        verdict = guard.judge(asked, now_ns)
        if verdict.kind != "allow":
            raise RuntimeError(f"the bench was refused: {verdict.rule}: {verdict.reason}")

    def after(asked: Action, now_ns: int) -> None:
        guard.returned(asked, {"done": asked.call_id}, "", now_ns)

    return timed(judge, after)


def by_hand() -> list[float]:
    """What somebody would write for the same pact, trusting every type, with no reasons given."""
    import re

    words = re.compile("(?i)password|secret|token")
    orders: set[str] = set()
    spent = {"calls": 0, "cents": 0}

    def judge(asked: Action, now_ns: int) -> bool:
        args = asked.arguments
        ok = (
            asked.name in ("refund", "search_kb")
            and isinstance(args["cents"], int)
            and args["currency"] == "USD"
            and args["cents"] <= 5000
            and len(args["note"]) < 2000
            and not words.search(args["note"])
            and args["cents"] <= 4000
            and args["order"] not in orders
            and args["to"].endswith("@example.com")
            and args["path"].startswith("/srv/tickets/")
            and ".." not in args["path"]
            and spent["calls"] < 1_000_000
            and spent["cents"] + args["cents"] < 1_000_000_000
        )
        orders.add(args["order"])
        spent["calls"] += 1
        spent["cents"] += args["cents"]
        return ok

    return timed(judge, lambda asked, now_ns: None)


def run() -> list[Row]:
    hand = by_hand()
    rows = []
    for name, text, history, p50, p99 in (
        ("20 rules", TWENTY, 0, 25.0, 60.0),
        ("1,000 rules, 200 events", of_a_thousand(), 200, 100.0, None),
    ):
        times = by_pact(text, history)
        rows.append(Row(
            name=f"{name}, p50", measured=times[CALLS // 2], limit=hand[CALLS // 2], target=p50,
            unit="us", note="beside it: the same by hand",
        ))  # fmt: skip
        rows.append(Row(
            name=f"{name}, p99", measured=times[CALLS * 99 // 100],
            limit=hand[CALLS * 99 // 100], target=p99, unit="us",
        ))  # fmt: skip
    return rows
