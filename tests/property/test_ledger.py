"""Purses and ledger, whatever the order of events: messages wait in a bag, out of which they come
in any order, often, or never; ledger and purses die at any moment. Against a plain count of what
was reserved and used, no limit is ever exceeded."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from checkrein.bus.leases import LedgerRequest, account_key
from checkrein.bus.messages import decode, encode
from checkrein.control.ledger import Kept, Ledger
from checkrein.policy.accounts import Account, Amounts, Bound, Claim, Grant
from checkrein.policy.ledger import Purse

ACCOUNT = Account("hour", "test", "bot", "2026-11-21T06")
KEY = account_key(ACCOUNT)
LIMIT = 12
SECOND_NS = 1_000_000_000


class Budget(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger("first")
        self.written = b""
        self.now_ns = 10**12
        self.purses: list[Purse] = []
        self.born = self.calls = self.starts = 0
        self.raised = self.dearer = 0
        self.flying: dict[str, tuple[Purse, int]] = {}
        self.taken = 0
        """Reserved and used by everybody, the dead too."""
        self.asked: list[tuple[Purse, int, list[Claim]]] = []
        self.answered: list[tuple[Purse, list[Grant]]] = []
        self.recalled: list[list[str]] = []

    def bound(self) -> Bound:
        return Bound(ACCOUNT, (LIMIT, None, None))

    @rule()
    def a_process_begins(self) -> None:
        if len(self.purses) < 4:
            self.born += 1
            self.purses.append(Purse(f"p{self.born}"))

    @precondition(lambda self: self.purses)
    @rule(which=st.integers(0, 3), size=st.integers(1, 9))
    def a_call_begins(self, which: int, size: int) -> None:
        purse = self.purses[which % len(self.purses)]
        self.calls += 1
        name = f"c{self.calls}"
        if purse.reserve(name, (self.bound(),), Amounts(size, 0, 0), self.now_ns) is None:
            self.flying[name] = (purse, size)
            self.taken += size

    @precondition(lambda self: self.purses)
    @rule(which=st.integers(0, 3), size=st.integers(1, 9))
    def a_call_is_paid_for(self, which: int, size: int) -> None:
        """As it should be: what is lacking is asked and answered at once."""
        self.a_call_begins(which, size)
        purse = self.purses[which % len(self.purses)]
        number, claims = purse.claims()
        if claims:
            self.asked = [*self.asked[-20:], (purse, number, claims)]
            self.the_ledger_hears(len(self.asked) - 1, "")
            purse.hear(self.answered[-1][1])
            self.a_call_begins(which, size)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 9), cost=st.integers(0, 11))
    def a_call_ends(self, which: int, cost: int) -> None:
        name = list(self.flying)[which % len(self.flying)]
        purse, size = self.flying.pop(name)
        purse.settle(name, (cost, 0, 0))
        self.taken += cost - size
        self.dearer += max(0, cost - size)

    @precondition(lambda self: self.purses)
    @rule(which=st.integers(0, 3), every=st.booleans())
    def a_purse_asks(self, which: int, every: bool) -> None:
        purse = self.purses[which % len(self.purses)]
        number, claims = purse.claims(every)
        if claims:
            self.asked = [*self.asked[-20:], (purse, number, claims)]

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 20), crash=st.sampled_from(["", "", "", "before", "after"]))
    def the_ledger_hears(self, which: int, crash: str) -> None:
        """Any message there ever was; it stays in the bag, to come again."""
        purse, number, claims = self.asked[which % len(self.asked)]
        taken = self.ledger.take(purse.id, number, claims, self.now_ns, self.now_ns)
        if crash == "before":
            self.control_starts()
            return
        self.written = encode(self.ledger.saved(KEY))
        if crash == "after":
            self.control_starts()
            return
        self.answered = [*self.answered[-20:], (purse, taken.grants)]
        self.recalled = [*self.recalled[-5:], *taken.recalls.values()]

    @rule()
    def control_starts(self) -> None:
        self.starts += 1
        self.ledger = Ledger(f"start {self.starts}")
        if self.written:
            self.ledger.restore(KEY, decode(self.written, Kept), self.now_ns)

    @precondition(lambda self: self.answered)
    @rule(which=st.integers(0, 20))
    def a_purse_hears(self, which: int) -> None:
        purse, grants = self.answered[which % len(self.answered)]
        if purse in self.purses:
            purse.hear(grants)

    @precondition(lambda self: self.recalled)
    @rule(which=st.integers(0, 5))
    def a_recall_arrives(self, which: int) -> None:
        lines = self.recalled[which % len(self.recalled)]
        for purse in self.purses:
            purse.recall(lines)

    @precondition(lambda self: self.purses)
    @rule(which=st.integers(0, 3))
    def a_process_is_killed(self, which: int) -> None:
        purse = self.purses.pop(which % len(self.purses))
        self.flying = {name: one for name, one in self.flying.items() if one[0] is not purse}

    @precondition(lambda self: self.purses)
    @rule(which=st.integers(0, 3))
    def a_process_ends(self, which: int) -> None:
        purse = self.purses.pop(which % len(self.purses))
        self.flying = {name: one for name, one in self.flying.items() if one[0] is not purse}
        purse.close()
        number, claims = purse.claims()
        if claims:
            self.asked.append((purse, number, claims))

    @rule(seconds=st.sampled_from([1, 16, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS
        for purse in self.purses:
            purse.tidy(self.now_ns)
        self.ledger.sweep(self.now_ns, self.now_ns)

    @rule(amount=st.integers(1, 5), number=st.integers(1, 3))
    def somebody_raises(self, amount: int, number: int) -> None:
        request = LedgerRequest(
            account=ACCOUNT, raise_id=f"r{number}", amount=Amounts(amount, 0, 0)
        )  # fmt: skip
        _, changed = self.ledger.raise_by(request, self.now_ns, self.now_ns)
        self.raised += amount if changed else 0
        self.written = encode(self.ledger.saved(KEY))

    @invariant()
    def nothing_is_over(self) -> None:
        most = LIMIT + self.raised + self.dearer
        assert self.taken <= most
        if self.written:
            kept = decode(self.written, Kept)
            charged = kept.closed_used[0] + sum(
                line.granted[0] - line.returned[0] for line in kept.lines.values()
            )
            assert charged <= most


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
