"""A process's purse: what was leased to it of budgets that several runs share.

There is one ledger (`control.ledger`). A process leases portions of an account from it, spends
from its purse without asking, and reports. Everything that the two tell each other is cumulative
(granted, used and returned since the line was opened), so that a message which is lost, repeated or
late changes nothing: the larger number counts.

A *line* is one purse's lease of one account under one limit (what the run's pact says: pacts may
differ, and each is held to its own). What it may still reserve is

    granted - returned - used - reserved

Every granted unit that was not returned is charged to the account, used or not. So the sum of what
all processes have reserved and used is never more than what is charged, and that is never more than
the limit, whoever dies. Only a call that costs more than was reserved for it goes over, by that.

Nothing here does I/O or reads a clock.
"""

from collections.abc import Collection, Iterable, Sequence
from threading import Lock

from checkrein.policy.accounts import (
    NOTHING,
    UNKNOWN,
    Actual,
    Amounts,
    Bound,
    Claim,
    Grant,
    Short,
)

LINES_MAX = 4_096
AHEAD_MAX = 64
IDLE_NS = 15_000_000_000
CLOSE_NS = 60_000_000_000


class _Line:
    """Lists of three, by measure."""

    __slots__ = (
        "account", "ahead", "ceiling", "closing", "full", "granted", "hungry", "id", "need",
        "portion", "reserved", "returned", "said", "touched_ns", "unsaid", "used", "wanted",
    )  # fmt: skip

    def __init__(self, line_id: str, bound: Bound) -> None:
        self.id = line_id
        self.account, self.ceiling = bound.account, bound.ceiling
        self.granted, self.returned = [0, 0, 0], [0, 0, 0]
        self.used, self.reserved = [0, 0, 0], [0, 0, 0]
        self.need, self.portion = [0, 0, 0], [0, 0, 0]
        self.ahead = self.full = 1
        self.wanted = NOTHING
        self.hungry = self.unsaid = self.closing = False
        self.said: Grant | None = None
        self.touched_ns = 0

    def free(self, measure: int) -> int:
        return (
            self.granted[measure] - self.returned[measure]
            - self.used[measure] - self.reserved[measure]
        )  # fmt: skip

    def calls_held(self) -> int:
        """For how many of the largest calls what is free will do; at least one."""
        held = [
            self.free(measure) // self.portion[measure]
            for measure in range(3)
            if self.ceiling[measure] is not None and self.portion[measure]
        ]
        return max(1, min(held, default=1))

    def got_less(self, granted: Amounts) -> bool:
        """Whether this is less than was wanted when it was asked last."""
        return any(
            granted[measure] < self.wanted[measure]
            for measure in range(3)
            if self.ceiling[measure] is not None
        )

    def give_back(self) -> None:
        for measure in range(3):
            free = self.free(measure)
            if free > 0:
                self.returned[measure] += free
                self.unsaid = True
        self.ahead = 1

    def claim(self) -> Claim:
        held = [
            used + returned + reserved
            for used, returned, reserved in zip(
                self.used, self.returned, self.reserved, strict=True
            )
        ]
        need = [base + more for base, more in zip(held, self.need, strict=True)]
        short = self.said is not None and self.said.short
        ahead = 0 if short or not self.hungry else self.ahead
        want = [base + ahead * more for base, more in zip(need, self.portion, strict=True)]
        self.wanted = Amounts(*want)
        return Claim(
            self.id, self.account, self.ceiling, Amounts(*self.granted), Amounts(*self.used),
            Amounts(*self.returned), Amounts(*need), self.wanted, self.closing,
        )  # fmt: skip


class Purse:
    """What this process holds of shared budgets. Safe from any thread; `reserve` and `settle` are
    O(1) in everything but the accounts of the one run (four at most).

    `wants_asking` turns True when the ledger should be asked (`claims`, then `hear` its answer):
    before a line is empty, when something is to be given back, or when a call waits. How much is
    asked ahead doubles with each portion that was used up, to 64 calls, and begins again when a
    line was idle for 15 s, which also gives back what is not used; after a minute it is closed.
    """

    def __init__(self, purse_id: str) -> None:
        self.id = purse_id
        self.wants_asking = False
        self._lines: dict[Bound, _Line] = {}
        self._closing: dict[str, _Line] = {}
        self._reserved: dict[str, tuple[tuple[_Line, ...], Amounts]] = {}
        self._opened = 0
        self._asked = 0
        self._lock = Lock()

    def reserve(
        self, call_id: str, bounds: Sequence[Bound], amounts: Amounts, now_ns: int,
        alone: bool = False,
    ) -> Short | None:  # fmt: skip
        """Reserves `amounts` in every account that bounds them. None: it is reserved. Else nothing
        is, and the ledger is to be asked. `alone`: nobody can be asked; the limits are taken to be
        this process's own. A second call of the same id replaces its first reservation."""
        with self._lock:
            self._drop(call_id, NOTHING)
            lines: list[_Line] = []
            lacking: Short | None = None
            for bound in bounds:
                line = self._line(bound)
                line.touched_ns = now_ns
                lines.append(line)
                short = self._fits(line, amounts, alone)
                lacking = lacking or short
            if lacking is not None:
                self.wants_asking = True
                return lacking
            for line in lines:
                for measure in range(3):
                    line.reserved[measure] += amounts[measure]
                    line.need[measure] = 0
                    self._look_ahead(line, measure)
            self._reserved[call_id] = (tuple(lines), amounts)
            return None

    def settle(self, call_id: str, actual: Actual) -> None:
        """A call is back. What nobody knows of what it cost (None) is all that was reserved for
        it. Unknown calls and second settlements change nothing."""
        with self._lock:
            self._drop(call_id, actual)

    @property
    def asked(self) -> int:
        """The number of the last asking."""
        return self._asked

    def claims(self, every: bool = False) -> tuple[int, list[Claim]]:
        """(number of this asking, what to tell the ledger): of lines that have something to ask or
        give back, or of `every` one, which also renews them."""
        with self._lock:
            self.wants_asking = False
            self._asked += 1
            asking = [
                line for line in self._lines.values() if every or line.hungry or line.unsaid
                or any(line.need)
            ]  # fmt: skip
            found = [line.claim() for line in (*asking, *self._closing.values())]
            for line in asking:
                if line.hungry:
                    line.ahead = min(2 * line.ahead, AHEAD_MAX)
                line.hungry = line.unsaid = False
            return self._asked, found

    def hear(self, grants: Iterable[Grant]) -> None:
        """The ledger's answer; an old or repeated one does no harm."""
        with self._lock:
            by_id = {line.id: line for line in self._lines.values()}
            for grant in grants:
                if grant.closed:
                    self._closing.pop(grant.line, None)
                line = by_id.get(grant.line)
                if line is None:
                    continue
                line.said = grant
                for measure, granted in enumerate(grant.granted):
                    line.granted[measure] = max(line.granted[measure], granted)
                line.full = line.calls_held()
                if line.got_less(grant.granted):  # it is getting scarce
                    line.ahead = min(line.ahead, line.full)
                if grant.short and not any(line.need):
                    line.give_back()
                    self.wants_asking = self.wants_asking or line.unsaid

    def unheard(self) -> None:
        """The ledger did not answer: what was to be said still is."""
        with self._lock:
            for line in self._lines.values():
                line.unsaid = True

    def recall(self, line_ids: Collection[str]) -> None:
        """Somebody waits for what we hold and do not need."""
        with self._lock:
            for line in self._lines.values():
                if line.id in line_ids:
                    line.give_back()
                    line.unsaid = True  # what was used counts, too, for who waits
                    self.wants_asking = True

    def given_up(self, bounds: Iterable[Bound]) -> None:
        """Nobody waits any more for what a call lacked."""
        with self._lock:
            for bound in bounds:
                line = self._lines.get(bound)
                if line is not None:
                    line.need = [0, 0, 0]

    def tidy(self, now_ns: int) -> None:
        """To be called every few seconds: idle lines give back, and are closed in the end."""
        with self._lock:
            for bound, line in list(self._lines.items()):
                idle_ns = now_ns - line.touched_ns
                if any(line.reserved) or any(line.need):
                    continue
                if idle_ns >= CLOSE_NS:
                    self._close(bound, line)
                elif idle_ns >= IDLE_NS:
                    line.give_back()
                self.wants_asking = self.wants_asking or line.unsaid

    def close(self) -> None:
        """The process ends. What calls under way had reserved is taken to be spent."""
        with self._lock:
            for call_id in list(self._reserved):
                self._drop(call_id, UNKNOWN)
            for bound, line in list(self._lines.items()):
                self._close(bound, line)

    @property
    def holds(self) -> bool:
        """Whether the ledger has something to hear of still."""
        return bool(self._lines or self._closing)

    def _line(self, bound: Bound) -> _Line:
        line = self._lines.get(bound)
        if line is None:
            if len(self._lines) >= LINES_MAX:
                self._close_idlest()
            self._opened += 1
            line = self._lines[bound] = _Line(f"{self.id}.{self._opened}", bound)
        return line

    def _fits(self, line: _Line, amounts: Amounts, alone: bool) -> Short | None:
        """Whether one account's line covers them."""
        for measure, amount in enumerate(amounts):
            limit = line.ceiling[measure]
            if limit is None or not amount:
                continue
            if line.portion[measure] < amount:
                line.portion[measure] = amount
            free = line.free(measure)
            if alone:
                free = max(free, limit - line.used[measure] - line.reserved[measure])
            if free < amount:
                line.hungry = True
                # The least that anybody waits for: the rest is asked when that is here.
                line.need[measure] = min(line.need[measure] or amount, amount)
                return _short(line, measure, amount, limit)
        return None

    def _look_ahead(self, line: _Line, measure: int) -> None:
        """Asks in good time: when less than half of what there was is left."""
        if line.ceiling[measure] is None or not line.portion[measure]:
            return
        if 2 * line.free(measure) < line.full * line.portion[measure]:
            said = line.said
            if said is None or not said.short:
                line.hungry = True
                self.wants_asking = True

    def _drop(self, call_id: str, actual: Actual) -> None:
        found = self._reserved.pop(call_id, None)
        if found is None:
            return
        lines, taken = found
        for line in lines:
            for measure in range(3):
                cost = actual[measure]
                line.reserved[measure] -= taken[measure]
                line.used[measure] += taken[measure] if cost is None else cost
            said = line.said
            if said is not None and said.short:  # others wait: the rest goes back at once
                line.give_back()
                line.unsaid = self.wants_asking = True

    def _close(self, bound: Bound, line: _Line) -> None:
        del self._lines[bound]
        line.closing = True
        line.give_back()
        self._closing[line.id] = line
        self.wants_asking = True

    def _close_idlest(self) -> None:
        idle = [bound for bound, line in self._lines.items() if not any(line.reserved)]
        if not idle:
            raise OverflowError(f"more than {LINES_MAX} shared budgets in use by one process")
        bound = min(idle, key=lambda one: self._lines[one].touched_ns)
        self._close(bound, self._lines[bound])


def _short(line: _Line, measure: int, need: int, limit: int) -> Short:
    said = line.said
    over = False
    if said is not None:
        limit += said.raised[measure]
        # Our own part is known better than the ledger's last word of it.
        over = said.spent[measure] + need > limit
    return Short(line.account, measure, need, limit, over, said)
