"""The scripts of the demo's agents, and a few plain ones.

Each is a pure function of the conversation. Paces are chosen for people who watch.
"""

import json
import re

from checkrein.server.demo.replies import Call, Reply, Script, Turn

THINKING_S = 0.6


def default(turn: Turn) -> Reply:
    """Says back what it was asked."""
    return Reply(text=f"You said: {turn.prompt}")


def flaky(turn: Turn) -> Reply:
    """Overloaded at first; the client's own retry succeeds."""
    if turn.attempt == 0:
        return Reply(status=429, error="too many requests, try again", retry_after_s=0.01)
    return Reply(text="Second time lucky.")


def rate_limited(turn: Turn) -> Reply:
    del turn
    return Reply(status=429, error="you have used up your quota", retry_after_s=0.01)


def broken(turn: Turn) -> Reply:
    del turn
    return Reply(status=500, error="the model fell over")


def librarian(turn: Turn) -> Reply:
    """Looks a book up, reserves it, says so."""
    found = re.search(r'"(.+?)" for reader (\d+)', turn.prompt)
    title, reader = (found[1], found[2]) if found else ("Emma", "1")
    match turn.number:
        case 0:
            calls = (Call("search_catalogue", {"title": title}),)
        case 1:
            calls = (Call("reserve", {"title": title, "reader": f"reader {reader}"}),)
        case _:
            return Reply(text=f"{title} is reserved.", latency_s=THINKING_S)
    return Reply(calls=calls, latency_s=THINKING_S)


_QUERIES = (
    "population of Atlantis in 2024",
    "Atlantis population in 2024",
    "2024 population of Atlantis",
    "in 2024 the population of Atlantis",
    "the population of Atlantis in 2024",
    "population in Atlantis 2024",
)


def researcher(turn: Turn) -> Reply:
    """Never takes no for an answer: the same question in other words, without end."""
    query = _QUERIES[turn.number % len(_QUERIES)]
    return Reply(calls=(Call("search_web", {"query": query}),), latency_s=THINKING_S)


_WRITTEN_TOKENS_MAX = 8_000


def essayist(turn: Turn) -> Reply:
    """Writes twice as much each time, and reads all of it again."""
    written = min(700 * 2**turn.number, _WRITTEN_TOKENS_MAX)
    read = sum(min(700 * 2**n, _WRITTEN_TOKENS_MAX) for n in range(turn.number)) + 40
    text = f"The tides, draft {turn.number + 1}. " + "The sea comes and the sea goes. " * 3
    return Reply(
        text=text, input_tokens=read, output_tokens=written, latency_s=THINKING_S, pace_s=0.03
    )


def clerk(turn: Turn) -> Reply:
    """Does its work, then reaches for what it must not touch."""
    match turn.number:
        case 0:
            return Reply(calls=(Call("lookup_order", {"order": "A17"}),), latency_s=THINKING_S)
        case 1:
            calls = (Call("refund", {"order": "A17", "cents": 3990}),)
            return Reply(calls=calls, latency_s=THINKING_S)
        case 2:
            calls = (Call("delete_customer", {"customer": "C-1042"}),)
            return Reply(calls=calls, latency_s=THINKING_S)
        case _:
            refused = "denied" in " ".join(turn.results)
            text = "You are paid back. I may not delete you; a human will." if refused else "Done."
            return Reply(text=text, latency_s=THINKING_S)


def courier(turn: Turn) -> Reply:
    match turn.number:
        case 0:
            return Reply(calls=(Call("pick_up", {"parcel": "P-9"}),), latency_s=THINKING_S)
        case 1:
            calls = (Call("deliver", {"parcel": "P-9", "street": "Harbour Street 3"}),)
            return Reply(calls=calls, latency_s=THINKING_S)
        case _:
            return Reply(text="P-9 is delivered.", latency_s=THINKING_S)


def watchman(turn: Turn) -> Reply:
    match turn.number:
        case 0:
            return Reply(calls=(Call("read_sensor", {"name": "attic"}),), latency_s=THINKING_S)
        case 1:
            return Reply(calls=(Call("read_sensor", {"name": "cellar"}),), latency_s=THINKING_S)
        case _:
            return Reply(text="The house is warm.", latency_s=THINKING_S)


def bookkeeper(turn: Turn) -> Reply:
    """Reads the bill and wants to pay it, whatever it costs."""
    match turn.number:
        case 0:
            return Reply(calls=(Call("read_bill", {"bill": "B-7"}),), latency_s=THINKING_S)
        case 1:
            calls = (Call("pay", {"bill": "B-7", "cents": 990_000}),)
            return Reply(text="I will pay it now.", calls=calls, latency_s=THINKING_S)
        case _:
            return Reply(text="Bill B-7 is paid.", latency_s=THINKING_S)


_NO_LEDGER = "ledger-2019-archive"


def planner(turn: Turn) -> Reply:
    """A plan that looks sound and is built on a ledger that does not exist."""
    del turn
    plan = {"steps": [{"do": "read_ledger", "name": _NO_LEDGER}, {"do": "sum"}]}
    return Reply(text=json.dumps(plan), latency_s=3 * THINKING_S)


def executor(turn: Turn) -> Reply:
    """Tries the plan's ledger, under this name and that, then gives up."""
    names = (_NO_LEDGER, f"{_NO_LEDGER}.csv", _NO_LEDGER.upper(), _NO_LEDGER)
    if turn.number < len(names):
        calls = (Call("read_ledger", {"name": names[turn.number]}),)
        return Reply(calls=calls, latency_s=THINKING_S)
    return Reply(text="I cannot find the ledger that the plan names.", latency_s=THINKING_S)


def validator(turn: Turn) -> Reply:
    del turn
    return Reply(text="Add up both sides; they must be equal.", latency_s=THINKING_S)


SPOKEN: dict[str, str] = {
    "Please reserve": "librarian",
    "population of Atlantis in 2024": "researcher",
    "essay about the tides": "essayist",
    "You settle refunds.": "clerk",
    "You deliver parcels.": "courier",
    "Is the house warm?": "watchman",
    "You pay bills.": "bookkeeper",
    "You plan. Answer with JSON.": "planner",
    "You carry out plans.": "executor",
    "check a closing of the books": "validator",
    "Check this: ": "validator",
}
"""Which script answers a conversation in which these words stand, where nothing else says it:
behind a gateway all agents come with one key, the gateway's."""

SCRIPTS: dict[str, Script] = {
    "default": default,
    "flaky": flaky,
    "rate-limited": rate_limited,
    "broken": broken,
    "librarian": librarian,
    "researcher": researcher,
    "essayist": essayist,
    "clerk": clerk,
    "courier": courier,
    "bookkeeper": bookkeeper,
    "watchman": watchman,
    "planner": planner,
    "executor": executor,
    "validator": validator,
}
