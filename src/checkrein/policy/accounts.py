"""Accounts of budgets that several runs share, and what a purse and the ledger say of them.

Money is counted in billionths of a dollar, so that sums are exact. Amounts in claims and grants are
cumulative since the line was opened (see `policy.ledger`).
"""

from datetime import UTC, datetime
from math import ceil
from typing import Literal, NamedTuple, get_args

import msgspec

from checkrein.policy.types import Budgets, Place, Shared

Scope = Literal["task", "agent", "room", "hour"]
MEASURES = ("tool_calls", "tokens", "usd")
NANO = 1_000_000_000


class Amounts(NamedTuple):
    """Money in billionths of a dollar: whole numbers, so that sums are exact."""

    tool_calls: int = 0
    tokens: int = 0
    nano_usd: int = 0


NOTHING = Amounts()
Ceiling = tuple[int | None, int | None, int | None]
"""The most of each measure; None: unbounded."""
Actual = tuple[int | None, int | None, int | None]
"""What a call cost, as far as it is known."""
UNKNOWN: Actual = (None, None, None)


class Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`window`: the UTC day (`2026-11-21`) or hour (`2026-11-21T06`); of a task "". `name`: of the
    task, the agent or the room."""

    scope: Scope
    environment: str
    name: str
    window: str

    def __str__(self) -> str:
        where = f" in {self.environment}" if self.environment else ""
        return f"the {self.scope} budget of {self.name or 'no room'}{where} {self.window}".rstrip()


class Bound(msgspec.Struct, frozen=True, gc=False):
    """What one pact says of one account."""

    account: Account
    ceiling: Ceiling


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """purse -> ledger, of one line. All amounts are since the line was opened. `need`: `granted`
    must become this much for a call that waits; `want`: what would be comfortable."""

    line: str
    account: Account
    ceiling: Ceiling
    granted: Amounts = NOTHING
    used: Amounts = NOTHING
    returned: Amounts = NOTHING
    need: Amounts = NOTHING
    want: Amounts = NOTHING
    close: bool = False


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """ledger -> purse, of one line. `spent`: what all lines of the account are known to have used;
    `charged`: that and what is leased beside it; `raised`: what people have added to the limit.
    `short`: somebody waits for what others hold: give back what is not needed. `refused`: why the
    ledger does not keep this line at all."""

    line: str
    granted: Amounts = NOTHING
    spent: Amounts = NOTHING
    charged: Amounts = NOTHING
    raised: Amounts = NOTHING
    short: bool = False
    closed: bool = False
    refused: str = ""


class Short(msgspec.Struct, frozen=True):
    """A purse does not hold what a call needs. `over`: all that the account has is spent, so
    nobody's giving back will help; else it may be leased elsewhere. `said`: what the ledger said
    last of it; None: nothing yet."""

    account: Account
    measure: int
    need: int
    limit: int
    over: bool
    said: Grant | None

    @property
    def name(self) -> str:
        """As the pact calls it."""
        return f"{self.account.scope}.{MEASURES[self.measure]}"


def is_shared(rule: str) -> bool:
    """Whether a rule's name is of a budget that several runs share (`budgets.hour.usd`)."""
    parts = rule.split(".")
    return len(parts) == 3 and parts[0] == "budgets" and parts[1] in get_args(Scope)


def nano(usd: float) -> int:
    """Rounded up: no cost is nothing."""
    return ceil(usd * NANO)


def ceiling_of(shared: Shared) -> Ceiling:
    return (shared.tool_calls, shared.tokens, None if shared.usd is None else nano(shared.usd))


def shares(budgets: Budgets) -> bool:
    """Whether a pact has any budget that several runs share."""
    return any(
        shared != _UNBOUNDED for shared in (budgets.task, budgets.agent, budgets.room, budgets.hour)
    )


def bounds_of(budgets: Budgets, place: Place, now_ns: int) -> tuple[Bound, ...]:
    """The accounts that a run spends from at this time. A run without a room has no room's budget:
    those who name none are not a room."""
    found: tuple[tuple[Scope, str, Shared], ...] = (
        ("hour", place.agent, budgets.hour),
        ("task", place.task_id, budgets.task),
        ("agent", place.agent, budgets.agent),
        ("room", place.room, budgets.room),
    )
    return tuple(
        Bound(Account(scope, place.environment, name, window_of(scope, now_ns)), ceiling_of(shared))
        for scope, name, shared in found
        if shared != _UNBOUNDED and name
    )


def window_of(scope: Scope, now_ns: int) -> str:
    """Windows of one scope sort as their times do."""
    if scope == "task":
        return ""
    now = datetime.fromtimestamp(now_ns // NANO, UTC)
    return now.strftime("%Y-%m-%dT%H" if scope == "hour" else "%Y-%m-%d")


_UNBOUNDED = Shared()
