"""What a decision costs before a call, by a pact that uses every part of the language."""

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benches.harness import Row

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.types import Action, Pact, Place

QUESTION = "How long does one decision take, by 20 rules and by 1,000?"
CALLS = 6_000
RUN_CALLS = 500
SECOND_NS = 1_000_000_000
NOTE = (
    "Customer {0} says that the parcel of order ORD-{0} came {1} days late and that the box was "
    "{2}. The driver had left it {3}, so the {4} got wet. We have asked for pictures, which show "
    "{2} corners and a {4} that does not start. The customer would rather have {5} than a new one, "
    "and asks us to answer before the {6}th."
)
STATES = ("open", "torn", "crushed", "wet", "empty", "taped", "dented")
PLACES = ("at the gate", "behind the house", "with a neighbour", "on the stairs", "in the rain")
THINGS = ("radio", "kettle", "lamp", "printer", "clock", "heater", "fan", "toaster", "mixer")
WISHES = ("the money", "a voucher", "a repair")

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
  - deny refund when args.to is internal and args.note derives from verify_customer
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


def note(number: int) -> str:
    """Some 350 characters; no two are the same."""
    return NOTE.format(
        number, number % 29 + 2, STATES[number % 7], PLACES[number % 5], THINGS[number % 9],
        WISHES[number % 3], number % 17 + 4,
    )  # fmt: skip


def action(number: int) -> Action:
    return Action(
        kind="tool", name="refund", call_id=f"c{number}", arguments={
            "order": f"ORD-{number}", "cents": number % 2900, "currency": "USD",
            "note": note(number),
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


class Times(NamedTuple):
    """Microseconds of each call, in order of size: by the clock, and by the processor for this
    thread alone, which a busy machine changes less. `back_us`: what taking in each result took."""

    wall_us: list[float]
    thread_us: list[float]
    back_us: list[float]


def timed(judge: Callable[[Action, int], Any], after: Callable[[Action, int], None]) -> Times:
    times = Times([], [], [])
    for number in range(CALLS):
        now_ns = SECOND_NS * 2 + number * 10_000_000
        asked = action(number)
        begun, begun_thread = time.perf_counter_ns(), time.thread_time_ns()
        judge(asked, now_ns)
        ended_thread, ended = time.thread_time_ns(), time.perf_counter_ns()
        after(asked, now_ns)
        times.wall_us.append((ended - begun) / 1e3)
        times.thread_us.append((ended_thread - begun_thread) / 1e3)
        times.back_us.append((time.thread_time_ns() - ended_thread) / 1e3)
        if number % 1000 == 0:
            gc.collect()
    for each in times:
        each.sort()
    return times


def by_pact(text: str, history: int = 0) -> Times:
    """Runs of 500 calls, each with its own history before them."""
    pact = load(text)
    run = [begun(pact, history)]

    def judge(asked: Action, now_ns: int) -> None:
        verdict = run[0].judge(asked, now_ns)
        if verdict.kind != "allow":
            raise RuntimeError(f"the bench was refused: {verdict.rule}: {verdict.reason}")

    def after(asked: Action, now_ns: int) -> None:
        run[0].returned(asked, {"done": asked.call_id}, "", now_ns)
        if run[0].spent.tool_calls >= RUN_CALLS + history:
            run[0] = begun(pact, history)

    return timed(judge, after)


def begun(pact: Pact, history: int) -> RunGuard:
    guard = guarded(pact)
    for number in range(history):
        call = Action(
            kind="tool", name="read_ticket", arguments={"id": number}, call_id=f"h{number}"
        )
        guard.judge(call, SECOND_NS)
        guard.returned(call, {"text": f"ticket {number} of customer {number}"}, "", SECOND_NS)
    return guard


def by_hand() -> Times:
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
        for share, at, target in (("p50", CALLS // 2, p50), ("p99", CALLS * 99 // 100, p99)):
            rows += [
                Row(
                    name=f"{name}, {share}", measured=times.wall_us[at], limit=hand.wall_us[at],
                    target=target, unit="us",
                    note="beside it: the same by hand" if share == "p50" else "",
                ),
                Row(
                    name=f"{name}, {share}, of the thread's own time",
                    measured=times.thread_us[at], limit=hand.thread_us[at], unit="us",
                ),
            ]  # fmt: skip
        rows.append(Row(
            name=f"{name}, taking in a result, p50, of the thread's own time",
            measured=times.back_us[CALLS // 2], unit="us",
        ))  # fmt: skip
    return rows
