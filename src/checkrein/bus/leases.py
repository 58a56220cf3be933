"""What travels about shared budgets: leases between purses and the ledger, and raises.

    lease.<session>     request    holder -> control: `LeaseRequest`, answer `LeaseAnswer`
    recall.<session>    plain      control -> holder: `Recall`, may be lost
    ctl.ledger          request    api, control's own -> control: `LedgerRequest`

All amounts in claims and grants are cumulative (see `policy.ledger`): asking again, late or twice
does no harm.
"""

from typing import cast

import msgspec

from checkrein.bus.approvals import Approval
from checkrein.bus.messages import SessionRecord
from checkrein.bus.subjects import token
from checkrein.policy.accounts import (
    MEASURES,
    NOTHING,
    Account,
    Amounts,
    Ceiling,
    Claim,
    Grant,
    Scope,
    is_shared,
    nano,
    window_of,
)

CLOCKS_APART_NS = 300_000_000_000
"""How far a holder's clock may be from control's before its hours and days are not taken."""
CLAIMS_MAX = 5_000
NAME_CHARS_MAX = 500


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`number` rises with every request of a purse: what is wanted counts only from the newest."""

    purse: str
    number: int
    claims: list[Claim]


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`error`: nothing was granted; ask again later."""

    purse: str = ""
    number: int = 0
    grants: list[Grant] = []
    error: str = ""


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody waits for what these lines hold."""

    lines: list[str]


class LedgerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What an account stands at, and with `raise_id`, `amount` added to its limit first, once for
    each `raise_id` (choose a fresh one for each decision to raise, and the same when asking
    again)."""

    account: Account
    raise_id: str = ""
    amount: Amounts = Amounts()
    by: str = ""
    reason: str = ""


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """`ceiling`: the limit that was last held against it, without what was raised; `lines`: how
    many leases are open. Answers a `LedgerRequest`."""

    account: Account
    spent: Amounts = Amounts()
    charged: Amounts = Amounts()
    raised: Amounts = Amounts()
    ceiling: Ceiling = (None, None, None)
    lines: int = 0
    lapsed: int = 0
    error: str = ""


def raise_of(approval: Approval) -> LedgerRequest | None:
    """What an approval adds to a shared budget; None: nothing. The account is that of the hour or
    day in which it was asked, and of whom control knows to have asked."""
    if approval.status not in ("approved", "used") or not is_shared(approval.rule):
        return None
    scope, measure = cast("tuple[Scope, str]", tuple(approval.rule.split(".")[1:]))
    more = approval.raised.get(measure, 0.0) or approval.raised.get(f"{scope}.{measure}", 0.0)
    if more <= 0 or measure not in MEASURES:
        return None
    name = {"task": approval.task_id, "room": approval.room}.get(scope, approval.agent)
    amount = {"usd": nano(more)}.get(measure, round(more))
    amounts = Amounts(*(amount if one == measure else 0 for one in MEASURES))
    return LedgerRequest(
        account=Account(scope, approval.environment, name, window_of(scope, approval.asked_at)),
        raise_id=approval.approval_id, amount=amounts, by=approval.decided_by,
        reason=approval.decision_reason,
    )  # fmt: skip


def account_key(account: Account) -> str:
    """Its key in the bucket `ledger`."""
    parts = (account.environment, account.name, account.window)
    return ".".join((account.scope, *map(token, parts)))


def objection_to_claim(session: SessionRecord, claim: Claim, at: int) -> str:
    """Why this session may not have this line at all ("": it may). `at`: the wall clock (ns). The
    bus says who the session is; its agents are its own; of its tasks and rooms its word counts."""
    account = claim.account
    if account.scope in ("agent", "hour") and account.name not in session.agents:
        return f"agent {account.name!r} is not one of session {session.session}"
    if len(account.name) + len(account.environment) > NAME_CHARS_MAX:
        return f"a name of more than {NAME_CHARS_MAX} characters"
    if account.window > window_of(account.scope, at + CLOCKS_APART_NS):
        return f"{account} has not begun by the server's clock: set this machine's clock"
    return ""


def asks_nothing(claim: Claim, at: int) -> Claim:
    """The claim as it may be taken in: of an hour or a day that is over, what was used counts, but
    nothing more is given."""
    if claim.account.window >= window_of(claim.account.scope, at - CLOCKS_APART_NS):
        return claim
    return msgspec.structs.replace(claim, need=NOTHING, want=NOTHING)
