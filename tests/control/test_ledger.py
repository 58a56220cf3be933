"""The ledger lends no more than there is, once, whoever asks how often."""

from itertools import count

import pytest

from checkrein.bus.leases import LedgerRequest, account_key
from checkrein.bus.messages import decode, encode
from checkrein.control import ledger as module
from checkrein.control.ledger import KEPT_NS, LAPSE_NS, TOMB_NS, Kept, Ledger
from checkrein.policy.accounts import NOTHING, Account, Amounts, Ceiling, Claim, Grant

HOUR = Account("hour", "test", "bot", "2026-11-21T06")
KEY = account_key(HOUR)
LIMIT: Ceiling = (100, None, None)
_numbers = count(1)


def calls(number: int) -> Amounts:
    return Amounts(tool_calls=number)


def claim(line: str = "p.1", need: int = 0, want: int = 0, **more: object) -> Claim:
    fields = {"ceiling": LIMIT, "need": calls(need), "want": calls(want)} | more
    return Claim(line, HOUR, **fields)  # type: ignore[arg-type]


def take(ledger: Ledger, *claims: Claim, number: int = 0, now_ns: int = 10**12) -> list[Grant]:
    return ledger.take("s1", number or next(_numbers), claims, now_ns, now_ns).grants


def test_what_is_needed_is_granted_and_no_more_than_the_limit() -> None:
    ledger = Ledger("w")
    (one,) = take(ledger, claim("p.1", need=60))
    (two,) = take(ledger, claim("q.1", need=60))
    assert (one.granted.tool_calls, one.short) == (60, False)
    assert (two.granted, two.short) == (NOTHING, True)
    (two,) = take(ledger, claim("q.1", need=40))
    assert two.granted.tool_calls == 40
    assert two.charged.tool_calls == 100


def test_ahead_of_need_everybody_gets_a_fair_part() -> None:
    ledger = Ledger("w")
    (one,) = take(ledger, claim("p.1", need=1, want=1000))
    assert one.granted.tool_calls == 100 // module.SHARE
    (two,) = take(ledger, claim("q.1", need=1, want=1000))
    assert two.granted.tool_calls == 75 // (2 * module.SHARE)


def test_the_same_asking_again_grants_nothing_more() -> None:
    ledger = Ledger("w")
    asked = claim("p.1", need=10)
    for _ in range(3):
        (answer,) = take(ledger, asked)  # its answer was lost: asked again
        assert answer.granted.tool_calls == 10
    (late,) = take(ledger, claim("p.1", need=90), number=1)
    assert late.granted.tool_calls == 10, "an old asking that comes late wants nothing"
    assert late.charged.tool_calls == 10


def test_what_is_returned_can_be_leased_again() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=100))
    (back,) = take(ledger, claim("p.1", granted=calls(100), used=calls(30), returned=calls(50)))
    assert back.charged.tool_calls == 50
    (other,) = take(ledger, claim("q.1", need=50))
    assert other.granted.tool_calls == 50
    assert other.spent.tool_calls == 30


def test_a_closed_line_leaves_what_it_used_and_stays_closed() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=80))
    closing = claim("p.1", granted=calls(80), used=calls(30), close=True)
    (closed,) = take(ledger, closing)
    assert closed.closed
    assert closed.charged.tool_calls == 30
    (again,) = take(ledger, closing)
    assert again.closed
    (ghost,) = take(ledger, claim("p.1", need=50))  # a late copy of an early claim
    assert ghost.closed
    assert ghost.granted == NOTHING
    (other,) = take(ledger, claim("q.1", need=70))
    assert other.granted.tool_calls == 70


def test_what_a_dead_process_held_stays_charged_until_it_is_heard_of() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=60), now_ns=0)
    changed, lapsed = ledger.sweep(LAPSE_NS + 1, 0)
    assert (changed, [name for _, name, _ in lapsed]) == ([KEY], ["p.1"])
    (other,) = take(ledger, claim("q.1", need=41), now_ns=LAPSE_NS + 2)
    assert other.short
    assert other.spent.tool_calls == 60, "taken to be spent"
    (back,) = take(ledger, claim("p.1", granted=calls(60), used=calls(10), returned=calls(50)),
                   now_ns=LAPSE_NS + 3)  # fmt: skip
    assert back.charged.tool_calls == 10
    assert back.spent.tool_calls == 10


def test_a_call_that_cost_more_than_reserved_is_charged() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=100))
    (over,) = take(ledger, claim("p.1", granted=calls(100), used=calls(130)))
    assert over.charged.tool_calls == 130
    (other,) = take(ledger, claim("q.1", need=1))
    assert other.short


def test_the_limit_is_the_asking_pacts() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=60))
    (strict,) = take(ledger, claim("q.1", need=1, ceiling=(50, None, None)))
    (lax,) = take(ledger, claim("r.1", need=100, ceiling=(160, None, None)))
    assert strict.short
    assert lax.granted.tool_calls == 100


def test_a_raise_counts_once() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=100))
    request = LedgerRequest(account=HOUR, raise_id="r1", amount=calls(20), by="ann", reason="busy")
    state, changed = ledger.raise_by(request, 0, 0)
    assert (state.raised.tool_calls, changed) == (20, True)
    state, changed = ledger.raise_by(request, 0, 0)
    assert (state.raised.tool_calls, changed) == (20, False)
    (more,) = take(ledger, claim("p.1", granted=calls(100), used=calls(100), need=120))
    assert more.granted.tool_calls == 120
    negative = LedgerRequest(account=HOUR, raise_id="r2", amount=calls(-1))
    assert ledger.raise_by(negative, 0, 0)[0].error
    kept = ledger.saved(KEY)
    assert kept is not None
    assert [(one.by, one.reason) for one in kept.raises] == [("ann", "busy")]


def test_asking_how_an_account_stands_makes_none() -> None:
    ledger = Ledger("w")
    state, changed = ledger.raise_by(LedgerRequest(account=HOUR), 0, 0)
    assert (state.charged, changed) == (NOTHING, False)
    assert not ledger.entries


def test_a_restart_goes_on_from_what_is_written_down() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=60))
    written = encode(ledger.saved(KEY))
    again = Ledger("v")
    again.restore(KEY, decode(written, Kept), 0)
    (other,) = take(again, claim("q.1", need=41))
    assert other.short
    (same,) = take(again, claim("p.1", granted=calls(60), used=calls(60), need=61))
    assert same.granted.tool_calls == 61


def test_a_line_that_was_not_written_down_is_believed() -> None:
    ledger = Ledger("w")
    (known,) = take(ledger, claim("p.7", granted=calls(30), used=calls(20), need=21))
    assert known.granted.tool_calls == 30
    assert known.charged.tool_calls == 30


def test_whoever_holds_more_than_used_is_asked_to_give_back() -> None:
    ledger = Ledger("w")
    ledger.take("s1", 1, [claim("p.1", need=60)], 10**12, 0)
    ledger.take("s2", 1, [claim("q.1", need=40, used=calls(40))], 10**12, 0)
    waiting = ledger.take("s3", 1, [claim("r.1", need=10)], 10**12, 0)
    assert waiting.recalls == {"s1": ["p.1"]}
    soon = ledger.take("s3", 2, [claim("r.1", need=10)], 10**12 + 1, 0)
    assert soon.recalls == {}
    later = ledger.take("s3", 3, [claim("r.1", need=10)], 10**12 + 10**9, 0)
    assert later.recalls == {"s1": ["p.1"]}


def test_lines_are_bounded_and_the_lapsed_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINES_MAX", 2)
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=10), claim("q.1", need=10), now_ns=0)
    (full,) = take(ledger, claim("r.1", need=10), now_ns=0)
    assert "2 processes" in full.refused
    ledger.sweep(LAPSE_NS + 1, 0)
    (fits,) = take(ledger, claim("r.1", need=10), now_ns=LAPSE_NS + 1)
    assert fits.granted.tool_calls == 10
    assert fits.charged.tool_calls == 30, "what the lapsed one had stays charged"


def test_what_is_over_is_forgotten() -> None:
    ledger = Ledger("w")
    take(ledger, claim("p.1", need=10, close=True), now_ns=5)
    kept = ledger.saved(KEY)
    assert kept is not None
    assert kept.closed
    ledger.sweep(0, TOMB_NS + 6)
    assert not kept.closed
    assert ledger.sweep(0, KEPT_NS["hour"] + 6)[0] == [KEY]
    assert ledger.saved(KEY) is None


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCOUNTS_MAX", 0)
    (none,) = take(Ledger("w"), claim(need=1))
    assert none.refused
