"""The approvals that control knows of: where each stands, whose claim it is, which are granted.

Bounded: open ones by who may ask, decided ones by `approvals_kept_max`; the oldest go first.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from checkrein.bus.approvals import Approval, GateQuery
from checkrein.bus.messages import encode
from checkrein.control.types import Limits

PREFIX_CHARS_MIN = 8
LIST_BYTES_MAX = 1_500_000


@dataclass(eq=False, slots=True)
class Held:
    """An approval and who waits for it: the call's session and run, when it was last heard of, and
    other claims on the same action, with when each was first heard of."""

    record: Approval
    session: str
    run_id: str
    heard_ns: int
    rivals: dict[str, int] = field(default_factory=dict)


class Shelf:
    """Bookkeeping: decides nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._all: OrderedDict[str, Held] = OrderedDict()
        self._similar: OrderedDict[tuple[str, str], deque[dict[str, Any]]] = OrderedDict()
        self._grants: dict[tuple[str, ...], Approval] = {}
        self.claims: dict[str, Held] = {}
        self.waiting: dict[str, Held] = {}
        """Open, or approved and not used."""
        self._by_call: OrderedDict[tuple[str, str], Held] = OrderedDict()

    def add(self, held: Held) -> None:
        record = held.record
        self._all[record.approval_id] = held
        self.claims[record.claim] = held
        self._by_call[record.run_id, record.digest] = held
        self._by_call.move_to_end((record.run_id, record.digest))
        while len(self._by_call) > self._limits.approvals_kept_max:
            self._by_call.popitem(last=False)
        if record.joined:
            self.claims[record.joined] = held
        if record.status in ("open", "approved"):
            self.waiting[record.approval_id] = held

    def claimed(self, held: Held, claim: str) -> None:
        """Another call waits for it now."""
        if self.claims.get(held.record.claim) is held:
            del self.claims[held.record.claim]
        held.record = replace(held.record, claim=claim)
        held.rivals.clear()
        self.claims[claim] = held

    def of_call(self, run_id: str, digest: str) -> Held | None:
        """The latest question about this action in this run."""
        return self._by_call.get((run_id, digest))

    def joined(self, held: Held, claim: str) -> None:
        """The same call asks at a gateway, too."""
        held.record = replace(held.record, joined=claim)
        self.claims[claim] = held

    def done(self, held: Held) -> None:
        """Nobody waits for it any more."""
        self.waiting.pop(held.record.approval_id, None)

    def spare(self) -> Iterator[str]:
        """Takes the oldest decided ones away while there are too many; their ids."""
        excess = len(self._all) - len(self.waiting) - self._limits.approvals_kept_max
        if excess <= 0:
            return
        for ident, held in list(self._all.items()):
            if ident in self.waiting:
                continue
            del self._all[ident]
            for claim in (held.record.claim, held.record.joined):
                if self.claims.get(claim) is held:
                    del self.claims[claim]
            if self.of_call(held.record.run_id, held.record.digest) is held:
                del self._by_call[held.record.run_id, held.record.digest]
            yield ident
            excess -= 1
            if excess <= 0:
                return

    def named(self, ident: str) -> Held | None:
        """By its id, or the beginning of one that only one has."""
        held = self._all.get(ident)
        if held is not None or len(ident) < PREFIX_CHARS_MIN:
            return held
        found = [held for key, held in self._all.items() if key.startswith(ident)]
        return found[0] if len(found) == 1 else None

    def open(self) -> list[Held]:
        return [held for held in self.waiting.values() if held.record.status == "open"]

    def listed(self, query: GateQuery) -> list[Approval]:
        """Open ones first; of both, the newest first. Bounded in number and in bytes."""
        if query.ids:
            named = [self.named(ident) for ident in query.ids[:1_000]]
            found = [held.record for held in named if held is not None]
        else:
            records = [held.record for held in reversed(self._all.values())]
            found = [record for record in records if query.all or record.status == "open"]
            found.sort(key=lambda record: record.status != "open")
        answer: list[Approval] = []
        room = LIST_BYTES_MAX
        for record in found[: query.limit]:
            room -= len(encode(record))
            if room < 0 and answer:
                break
            answer.append(replace(record, claim="", joined=""))
        return answer

    # -- classes approved for a while ------------------------------------------------------------

    def grant(self, record: Approval) -> None:
        self._grants[class_of(record)] = record

    def granted(self, record: Approval, now: int) -> Approval | None:
        """The approval whose grant holds for this one, too."""
        found = self._grants.get(class_of(record))
        return found if found is not None and found.grant_until > now else None

    def end_grant(self, record: Approval) -> None:
        self._grants.pop(class_of(record), None)

    def sweep(self, now: int) -> None:
        for kind, record in list(self._grants.items()):
            if record.grant_until <= now:
                del self._grants[kind]

    # -- what was decided of the like ------------------------------------------------------------

    def similar(self, agent: str, tool: str) -> list[dict[str, Any]]:
        return list(self._similar.get((agent, tool), ()))

    def remember(self, record: Approval) -> None:
        key = (record.agent, record.tool)
        latest = self._similar.setdefault(key, deque(maxlen=self._limits.similar_max))
        self._similar.move_to_end(key)
        latest.appendleft({
            "approval_id": record.approval_id, "decision": record.status, "rule": record.rule,
            "by": record.decided_by, "at": record.decided_at, "reason": record.decision_reason,
            "digest": record.digest,
        })  # fmt: skip
        if len(self._similar) > self._limits.approvals_kept_max:
            self._similar.popitem(last=False)


def class_of(record: Approval) -> tuple[str, ...]:
    """What is approved for a while: all calls alike in these."""
    return (record.agent, record.tool, record.rule, record.pact, record.pact_version)
