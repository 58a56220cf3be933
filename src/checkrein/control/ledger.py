"""The ledger of shared budgets: what is charged to each account, and who may lease more. Pure.

What it promises, whatever is lost, repeated, late or out of order, over crashes of its own and of
those who lease, provided only that its caller answers a claim no sooner than what `saved` says of
the account is durable, and starts again from there:

    what is charged to an account never rises over the limit of the pact that asks, plus what people
    have added (`raise_by`), but for calls that cost more than was reserved for them;
    what all processes together have reserved and used is never more than what is charged;
    what was returned, or leased by a line that was closed and not used, can be leased again.

A line that is not heard of for a minute has lapsed: its process is gone, or cut off. All it had
leased stays charged, since it may have been spent; if it is heard of again, what it really used
counts. Nothing is ever given to two.
"""

from collections.abc import Iterable

import msgspec

from checkrein.bus.leases import AccountState, LedgerRequest, account_key
from checkrein.policy.accounts import Account, Amounts, Ceiling, Claim, Grant

LAPSE_NS = 60_000_000_000
TOMB_NS = 900_000_000_000
"""How long a closed line is remembered, so that a late copy of its claims opens nothing."""
LINES_MAX = 3_000
CLOSED_MAX = 4_000
ACCOUNTS_MAX = 100_000
RAISES_KEPT = 1_000
SHARE = 4
"""Ahead of need, a line gets at most what is free divided by this and by the lines there are."""
HUNGER_NS = 2_000_000_000
KEPT_NS = {"hour": 2 * 86_400 * 10**9, "agent": 9 * 86_400 * 10**9,
           "room": 9 * 86_400 * 10**9, "task": 30 * 86_400 * 10**9}  # fmt: skip
"""After its last change, an account without open lines is forgotten: of an hour after two days, of
a day after nine, of a task after thirty (its budget then begins anew)."""


class Line(msgspec.Struct, array_like=True):
    """A lease. `number`: of the newest claim taken in."""

    session: str
    granted: Amounts
    used: Amounts
    returned: Amounts
    number: int
    lapsed: bool = False


class Raised(msgspec.Struct, frozen=True, array_like=True):
    raise_id: str
    amount: Amounts
    by: str
    reason: str
    at: int


class Kept(msgspec.Struct, kw_only=True):
    """An account as it stands in the bucket. `closed_used`: by lines that are closed; `closed`:
    their names, and when (wall clock). By `writer` and `version` its writer knows its own."""

    account: Account
    lines: dict[str, Line] = {}
    closed_used: Amounts = Amounts()
    closed: dict[str, int] = {}
    raised: Amounts = Amounts()
    raises: list[Raised] = []
    ceiling: Ceiling = (None, None, None)
    changed_at: int = 0
    writer: str = ""
    version: int = 0


class Entry:
    """An account in memory: what is kept, and sums of it."""

    __slots__ = ("heard", "hungry_ns", "kept", "leased", "recalled_ns", "used")

    def __init__(self, kept: Kept, now_ns: int) -> None:
        self.kept = kept
        self.heard: dict[str, int] = dict.fromkeys(kept.lines, now_ns)
        self.hungry_ns: int | None = None
        self.recalled_ns = 0
        self.leased = _sum(_outstanding(line) for line in kept.lines.values())
        self.used = _sum(_used(line) for line in kept.lines.values())

    @property
    def spent(self) -> Amounts:
        return _plus(self.kept.closed_used, self.used)

    @property
    def charged(self) -> Amounts:
        return _plus(self.kept.closed_used, self.leased)


class Taken(msgspec.Struct, frozen=True):
    """What became of claims. `keys`: the accounts whose present version must be durable before the
    grants are told. `recalls`: lines to be asked to give back, by session."""

    grants: list[Grant]
    keys: set[str]
    recalls: dict[str, list[str]] = {}


class Ledger:
    """All accounts. `writer` names this start of control. Not for threads. `now_ns` is monotonic,
    `at` the wall clock."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self.entries: dict[str, Entry] = {}

    def restore(self, key: str, kept: Kept, now_ns: int) -> None:
        """What stands in the bucket; its lines get a fresh minute to be heard of."""
        self.entries[key] = Entry(kept, now_ns)

    def forget(self, key: str) -> None:
        self.entries.pop(key, None)

    def saved(self, key: str) -> Kept | None:
        """What is to stand in the bucket; None: nothing."""
        entry = self.entries.get(key)
        return None if entry is None else entry.kept

    def version(self, key: str) -> int:
        entry = self.entries.get(key)
        return 0 if entry is None else entry.kept.version

    def take(
        self, session: str, number: int, claims: Iterable[Claim], now_ns: int, at: int
    ) -> Taken:
        """Takes claims in and grants what it can."""
        grants: list[Grant] = []
        keys: set[str] = set()
        recalls: dict[str, list[str]] = {}
        for claim in claims:
            key = account_key(claim.account)
            entry = self.entries.get(key)
            if entry is None:
                if len(self.entries) >= ACCOUNTS_MAX:
                    grants.append(Grant(claim.line, refused=f"over {ACCOUNTS_MAX} accounts"))
                    continue
                entry = self.entries[key] = Entry(Kept(account=claim.account), now_ns)
            grants.append(self._claim(entry, session, number, claim, now_ns, at))
            keys.add(key)
            if grants[-1].short:
                self._recall(entry, claim.line, now_ns, recalls)
        return Taken(grants, keys, recalls)

    def raise_by(self, request: LedgerRequest, now_ns: int, at: int) -> tuple[AccountState, bool]:
        """Adds to an account's limit, once for each `raise_id`; and how it stands then, and whether
        anything changed."""
        key = account_key(request.account)
        entry = self.entries.get(key)
        changed = False
        if request.raise_id:
            if min(request.amount) < 0:
                return AccountState(account=request.account, error="a raise is not negative"), False
            if entry is None:
                entry = self.entries[key] = Entry(Kept(account=request.account), now_ns)
            kept = entry.kept
            changed = all(one.raise_id != request.raise_id for one in kept.raises)
            if changed:
                kept.raised = _plus(kept.raised, request.amount)
                kept.raises = [*kept.raises[-RAISES_KEPT + 1 :], Raised(
                    request.raise_id, request.amount, request.by, request.reason, at
                )]  # fmt: skip
                entry.hungry_ns = None
                self._touch(entry, at)
        return _state(request.account, entry), changed

    def sweep(self, now_ns: int, at: int) -> tuple[list[str], list[tuple[Account, str, Line]]]:
        """To be called every few seconds: (accounts to be written or, where `saved` is None,
        deleted; the lines that have lapsed since)."""
        changed: list[str] = []
        lapsed: list[tuple[Account, str, Line]] = []
        for key, entry in list(self.entries.items()):
            kept = entry.kept
            before = kept.version
            for name, line in kept.lines.items():
                if not line.lapsed and now_ns - entry.heard.get(name, now_ns) > LAPSE_NS:
                    self._mark(entry, line, lapsed=True)
                    lapsed.append((kept.account, name, line))
            old = [name for name, when in kept.closed.items() if at - when > TOMB_NS]
            for name in old:
                del kept.closed[name]
            open_lines = any(not line.lapsed for line in kept.lines.values())
            if not open_lines and at - kept.changed_at > KEPT_NS[kept.account.scope]:
                del self.entries[key]
                changed.append(key)
            elif kept.version != before:
                changed.append(key)
        return changed, lapsed

    def _claim(
        self, entry: Entry, session: str, number: int, claim: Claim, now_ns: int, at: int
    ) -> Grant:
        kept = entry.kept
        if claim.line in kept.closed:
            return Grant(claim.line, closed=True)
        line = kept.lines.get(claim.line)
        if line is None:
            if len(kept.lines) >= LINES_MAX and not _fold(entry):
                why = f"{kept.account} is leased by {LINES_MAX} processes already"
                return Grant(claim.line, refused=why)
            # A line that says it was granted something we do not know of: what was written down of
            # it is lost, so its word counts.
            line = kept.lines[claim.line] = Line(
                session, Amounts(), Amounts(), Amounts(), number - 1
            )
            self._set(entry, line, claim.granted, claim.used, claim.returned, at)
        entry.heard[claim.line] = now_ns
        if line.lapsed:
            self._mark(entry, line, lapsed=False)
        newest, line.number = number > line.number, max(number, line.number)
        line.session = session
        self._set(entry, line, line.granted, claim.used, claim.returned, at)
        if claim.close:
            return self._close(entry, claim.line, line, at)
        short = self._lend(entry, line, claim, now_ns, at) if newest else False
        if newest:
            kept.ceiling = claim.ceiling
        return Grant(
            claim.line, line.granted, entry.spent, entry.charged, kept.raised,
            short or self._hungry(entry, now_ns),
        )  # fmt: skip

    def _set(
        self, entry: Entry, line: Line, granted: Amounts, used: Amounts, returned: Amounts, at: int
    ) -> None:
        """Merges what is known of a line: every amount only rises, and no more is outstanding than
        it has: what was used over the lease is charged, too."""
        used, returned = _max(line.used, used), _max(line.returned, returned)
        granted = _max(_max(line.granted, granted), _plus(used, returned))
        if (granted, used, returned) == (line.granted, line.used, line.returned):
            return
        _leave(entry, line)
        line.granted, line.used, line.returned = granted, used, returned
        _enter(entry, line)
        self._touch(entry, at)

    def _mark(self, entry: Entry, line: Line, lapsed: bool) -> None:
        _leave(entry, line)
        line.lapsed = lapsed
        _enter(entry, line)
        self._touch(entry, 0)

    def _lend(self, entry: Entry, line: Line, claim: Claim, now_ns: int, at: int) -> bool:
        """Grants what is needed, and what is wanted as far as it is fair. True: what is needed is
        not there."""
        kept, short = entry.kept, False
        more = [0, 0, 0]
        charged = entry.charged
        for measure in range(3):
            limit = claim.ceiling[measure]
            if limit is None:
                continue
            free = max(0, limit + kept.raised[measure] - charged[measure])
            need = max(0, claim.need[measure] - line.granted[measure])
            want = max(need, claim.want[measure] - line.granted[measure])
            if need > free:
                short = True
            else:
                fair = 0 if self._hungry(entry, now_ns) else free // (SHARE * len(kept.lines))
                more[measure] = min(want, max(need, fair))
        if short:
            entry.hungry_ns = now_ns
            return True  # part of what it needs would only be kept from others
        if any(more):
            granted = _plus(line.granted, Amounts(*more))
            self._set(entry, line, granted, line.used, line.returned, at)
        return False

    def _hungry(self, entry: Entry, now_ns: int) -> bool:
        """Whether somebody was left waiting a moment ago."""
        return entry.hungry_ns is not None and now_ns - entry.hungry_ns < HUNGER_NS

    def _recall(
        self, entry: Entry, waiting: str, now_ns: int, recalls: dict[str, list[str]]
    ) -> None:
        """Whoever holds more than it is known to have used is asked, at most every 20 ms."""
        if entry.hungry_ns != now_ns or now_ns - entry.recalled_ns < 20_000_000:
            return
        entry.recalled_ns = now_ns
        for name, line in entry.kept.lines.items():
            if name != waiting and not line.lapsed and _outstanding(line) != line.used:
                recalls.setdefault(line.session, []).append(name)

    def _close(self, entry: Entry, name: str, line: Line, at: int) -> Grant:
        kept = entry.kept
        _leave(entry, line)
        kept.closed_used = _plus(kept.closed_used, line.used)
        del kept.lines[name]
        entry.heard.pop(name, None)
        kept.closed[name] = at
        if len(kept.closed) > CLOSED_MAX:
            del kept.closed[next(iter(kept.closed))]
        self._touch(entry, at)
        return Grant(name, line.granted, entry.spent, entry.charged, kept.raised, closed=True)

    def _touch(self, entry: Entry, at: int) -> None:
        entry.kept.version += 1
        entry.kept.writer = self._writer
        entry.kept.changed_at = max(entry.kept.changed_at, at)


def _fold(entry: Entry) -> bool:
    """Makes room: a line that has lapsed is charged for good, all it had leased. False: there is
    none."""
    kept = entry.kept
    name = next((name for name, line in kept.lines.items() if line.lapsed), None)
    if name is None:
        return False
    line = kept.lines.pop(name)
    entry.heard.pop(name, None)
    _leave(entry, line)
    kept.closed_used = _plus(kept.closed_used, _outstanding(line))
    return True


def _leave(entry: Entry, line: Line) -> None:
    """Takes a line out of the sums, before it changes or goes."""
    entry.leased = _minus(entry.leased, _outstanding(line))
    entry.used = _minus(entry.used, _used(line))


def _enter(entry: Entry, line: Line) -> None:
    entry.leased = _plus(entry.leased, _outstanding(line))
    entry.used = _plus(entry.used, _used(line))


def _state(account: Account, entry: Entry | None) -> AccountState:
    if entry is None:
        return AccountState(account=account)
    lines = entry.kept.lines.values()
    return AccountState(
        account=account, spent=entry.spent, charged=entry.charged, raised=entry.kept.raised,
        ceiling=entry.kept.ceiling, lines=len(lines), lapsed=sum(line.lapsed for line in lines),
    )  # fmt: skip


def _outstanding(line: Line) -> Amounts:
    """What a line is charged: all it was granted and has not returned."""
    return _minus(line.granted, line.returned)


def _used(line: Line) -> Amounts:
    """What a line has to be taken to have used: all it holds, once nobody answers for it."""
    return _outstanding(line) if line.lapsed else line.used


def _sum(many: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for one in many:
        total = _plus(total, one)
    return total


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _minus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one[0] - other[0], one[1] - other[1], one[2] - other[2])


def _max(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))
