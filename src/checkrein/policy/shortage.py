"""What is answered when a shared budget does not cover a call."""

from typing import Any

from checkrein.policy.accounts import NANO, Bound, Short
from checkrein.policy.estimates import Estimate
from checkrein.policy.types import Advice, Pact, Verdict


def exhausted(pact: Pact, short: Short, asks: bool = True) -> Verdict:
    """The budget is spent: somebody may raise it, or the run ends."""
    spent = short.said.spent[short.measure] if short.said is not None else None
    counted = "" if spent is None else f"{_shown(spent, short.measure)} of "
    reason = (
        f"{short.account}: {counted}{_shown(short.limit, short.measure)} "
        f"{_unit(short.measure)} are spent, and this call may take "
        f"{_shown(short.need, short.measure)}"
    )
    if asks and pact.budgets.exhausted == "pause":
        return _verdict(pact, "ask", short.name, f"{reason}; somebody may raise it", "ESCALATE")
    return _verdict(pact, "deny", short.name, reason, "TERMINAL", runaway=True)


def busy(pact: Pact, short: Short) -> Verdict:
    """What is left is reserved by calls under way, some of which may cost less in the end."""
    said = short.said
    charged = "all" if said is None else _shown(said.charged[short.measure], short.measure)
    reason = (
        f"{short.account}: {charged} of {_shown(short.limit, short.measure)} "
        f"{_unit(short.measure)} are spent or reserved by calls under way, and this call may take "
        f"{_shown(short.need, short.measure)}"
    )
    return _verdict(pact, "deny", short.name, reason, "WAIT")


def unkept(pact: Pact, short: Short) -> Verdict:
    why = short.said.refused if short.said is not None else ""
    reason = (
        f"{short.account} cannot be kept: {why or 'the server that keeps it cannot be reached'}; "
        "`unclear: allow` would let this pass, counted in this process alone"
    )
    return _verdict(pact, "deny", f"{short.account.scope}.unkept", reason, "WAIT")


def unpriced(
    pact: Pact, bounds: tuple[Bound, ...], made: Estimate, model: str
) -> Verdict | None:  # fmt: skip
    """A model whose price nobody knows, under a shared budget of money."""
    if made.usd is not None or pact.unclear == "allow":
        return None
    priced = next((bound for bound in bounds if bound.ceiling[2] is not None), None)
    if priced is None:
        return None
    reason = (
        f"no price is known for the model `{model}`, so {priced.account} cannot be kept; "
        "`unclear: allow` would let it pass, counted in tokens only"
    )
    rule = f"{priced.account.scope}.usd.unpriced"
    return _verdict(pact, "ask" if pact.unclear == "ask" else "deny", rule, reason, "ESCALATE")


def _verdict(
    pact: Pact, kind: Any, name: str, reason: str, advice: Advice, runaway: bool = False
) -> Verdict:
    return Verdict(
        kind=kind, guard="budgets", rule=f"budgets.{name}", reason=reason, advice=advice,
        runaway=runaway, pact=pact.pact, pact_version=pact.version,
    )  # fmt: skip


def _shown(amount: int, measure: int) -> str:
    return f"{amount / NANO:.4g}" if measure == 2 else str(amount)


def _unit(measure: int) -> str:
    return ("tool calls", "tokens", "US dollars")[measure]
