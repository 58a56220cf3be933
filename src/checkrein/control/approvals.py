"""Approvals: what people are asked before a call is made, and what becomes of their answers.

    open ──approve──▶ approved ──asked by the waiting call──▶ used
      │                   └──deny, expiry, halt──▶ denied, expired, withdrawn
      └──deny, expiry, halt──▶ denied, expired, withdrawn

What holds, whatever is lost, repeated, late or out of order, and over crashes of control:

    an approval is for one action (by its digest, which control works out for itself), asked by one
    agent in one task, and is used by one call at most: `used` is written down before the call
    hears of it;
    no answer is a no: what nobody decides in time has expired;
    a halt of the run, or its orderly end, withdraws what it has asked. A run that just vanished has
    not ended so: whoever goes on with its task finds its question, and the answer.

A call that asks is known by its claim. The same action asked under another claim is either the same
agent come back (then the old claim is silent, and the new one takes over) or a second call like the
first (then both are heard of, and the second gets a question of its own).
A gateway to which the call comes afterwards asks again, under a claim of its own: one such call
joins the question of the run's holder, and gets its answer.
"""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec.structs import replace

from checkrein.bus import subjects
from checkrein.bus.approvals import (
    ARGUMENT_BYTES_MAX,
    Approval,
    Ask,
    Asked,
    AskedStatus,
    Decide,
    Decided,
    DecidedOne,
    GateQuery,
)
from checkrein.bus.messages import encode
from checkrein.control import deciding, records
from checkrein.control.book import Book
from checkrein.control.passing_on import short, shown
from checkrein.control.registry import Run
from checkrein.control.shelf import Held, Shelf, class_of
from checkrein.control.types import Changed, Keep, Notify, Reply, Send
from checkrein.policy.digest import digest_of

RIVALS_MAX = 100
INPUT_BYTES_MAX = 64 * 1024
GONE = frozenset({"lost", "unfinished"})
"""How runs end that did not end in order: what they asked for stands."""


class Approvals:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._shelf = Shelf(book.limits)

    def restore(self, approvals: Iterable[Approval]) -> None:
        for record in sorted(approvals, key=lambda one: one.asked_at):
            self._shelf.add(Held(record, record.session, record.run_id, self._book.now))
            if record.grant_until > self._now:
                self._shelf.grant(record)
            if record.status != "open":
                self._shelf.remember(record)

    # -- a holder asks -------------------------------------------------------------------------

    def ask(self, run: Run, ask: Ask, token: object, gateway: str = "") -> None:
        """A call waits (again). The caller has checked that the session holds the run, or is a
        `gateway` by which it comes."""
        session = gateway or run.record.session
        held = self._shelf.claims.get(ask.claim)
        if ask.left:
            if held is not None and held.record.claim == ask.claim:
                held.heard_ns = 0
            return
        why = self._fault(ask)
        if not why and held is None and gateway:
            held = self._joined(ask, gateway)
        if not why and held is not None and held.record.joined == ask.claim:
            self._answer_joined(held, ask, token, gateway)
            return
        if not why and held is not None and held.record.digest != ask.digest:
            why = "this claim was made for another action"
        if not why and held is None:
            held, why = self._find(run, ask, session)
        if held is None or why:
            self._reply(token, Asked(claim=ask.claim, status="denied", reason=why))
            return
        if held.record.claim != ask.claim and not self._takes_over(held, ask):
            self._reply(token, self._answer(held, ask.claim))
            return
        held.heard_ns, held.session, held.run_id = self._book.now, session, ask.run_id
        self._judge(held)
        if held.record.status == "approved":
            self._use(held, run)
        if held.record.status == "open":
            self._reply(token, self._answer(held, ask.claim))
        else:
            answer = Reply(token, encode(self._answer(held, ask.claim)))
            self._book.out.append(Keep("approval", held.record.approval_id, (answer,)))

    def _fault(self, ask: Ask) -> str:
        """Why nobody will be asked this."""
        if len(encode(ask.arguments)) > ARGUMENT_BYTES_MAX:
            return (
                f"the arguments take more than {ARGUMENT_BYTES_MAX} bytes: nobody could read them"
            )
        digest = digest_of(ask.agent, ask.kind, ask.tool, ask.arguments, ask.pact, ask.pact_version)
        if digest != ask.digest:
            return "the digest is not that of the action"
        return ""

    def _joined(self, ask: Ask, gateway: str) -> Held | None:
        """The question that the run's own holder has asked about this very call, and that no other
        call at a gateway has made its own: nobody is asked twice. None: there is none, or what was
        said of it is too long ago."""
        held = self._shelf.of_call(ask.run_id, ask.digest)
        if held is None or held.session == gateway or held.record.agent != ask.agent:
            return None
        record = held.record
        last = max(record.used_at, record.decided_at, record.asked_at)
        fresh = self._now - last <= self._book.limits.approval_use_s * 1e9
        if record.joined or not (fresh or record.status in ("open", "approved")):
            return None
        self._shelf.joined(held, ask.claim)
        return held

    def _answer_joined(self, held: Held, ask: Ask, token: object, gateway: str) -> None:
        """As the question stands for the one who asked first: its call is let through here when it
        has used the approval."""
        if held.record.digest != ask.digest:
            why = "this claim was made for another action"
            self._reply(token, Asked(claim=ask.claim, status="denied", reason=why))
            return
        self._judge(held)
        answer = Reply(token, encode(self._answer(held, ask.claim, gateway)))
        self._book.out.append(Keep("approval", held.record.approval_id, (answer,)))

    def _find(self, run: Run, ask: Ask, session: str) -> tuple[Held | None, str]:
        """The question that stands for this action already, or a new one; or why there is none."""
        now = self._book.now
        for held in self._shelf.waiting.values():
            record = held.record
            if (record.agent, record.digest) != (ask.agent, ask.digest):
                continue
            if record.task_id != run.record.task_id and record.run_id != ask.run_id:
                continue
            first_ns = held.rivals.setdefault(ask.claim, now)
            if len(held.rivals) > RIVALS_MAX:
                del held.rivals[next(iter(held.rivals))]
            if self._silent(held) or held.heard_ns <= first_ns:
                return held, ""  # its own caller may be gone
        if run.wanted == "halted" or run.ended:
            return None, "the run is halted, or has ended"
        limits = self._book.limits
        waiting = self._shelf.open()
        if len(waiting) >= limits.approvals_open_max:
            return None, f"{len(waiting)} questions wait for an answer already, the most there may"
        theirs = sum(held.record.agent == ask.agent for held in waiting)
        if theirs >= limits.approvals_per_agent_max:
            return None, f"{theirs} questions of {ask.agent} wait for an answer already"
        return self._new(run, ask, session), ""

    def _takes_over(self, held: Held, ask: Ask) -> bool:
        if not self._silent(held):
            return False
        self._shelf.claimed(held, ask.claim)
        self._book.out.append(Keep("approval", held.record.approval_id))
        return True

    def _silent(self, held: Held) -> bool:
        """Whether nobody waits for it any more, as far as can be told: not heard of for a while, or
        for a shorter one when its process is silent altogether, or its run is over."""
        limits, registry = self._book.limits, self._book.registry
        silent_ns = self._book.now - held.heard_ns
        if silent_ns > limits.claim_silent_s * 1e9:
            return True
        run, session = registry.known(held.run_id), registry.sessions.get(held.session)
        if session is not None and session.state:
            return silent_ns > limits.silent_after_s * 1e9
        return run is not None and run.ended

    def _new(self, run: Run, ask: Ask, session: str) -> Held:
        book, now, of = self._book, self._now, run.record
        life_s = max(0.0, min(ask.life_s, book.limits.approval_life_s_max))
        record = Approval(
            approval_id=book.world.uuid7(), agent=of.agent, run_id=ask.run_id, tool=ask.tool,
            arguments=ask.arguments, rule=ask.rule[:500], reason=ask.reason[:4_000], asked_at=now,
            expires_at=now + round(life_s * 1e9), undo=short(ask.undo), kind=ask.kind,
            task_id=of.task_id, room=of.room, environment=of.environment, session=session,
            call_id=ask.call_id, step=ask.step, digest=ask.digest, words=ask.words[:4_000],
            inputs=ask.inputs if len(encode(ask.inputs)) <= INPUT_BYTES_MAX else {},
            pact=ask.pact, pact_version=ask.pact_version, claim=ask.claim,
            similar=self._shelf.similar(of.agent, ask.tool),
        )  # fmt: skip
        held = Held(record, session, ask.run_id, book.now)
        self._shelf.add(held)
        book.audit("approval", f"{record.approval_id}/requested", {
            "kind": "approval.requested", "approval_id": record.approval_id, "agent": of.agent,
            "run_id": record.run_id, "tool": record.tool, "digest": record.digest,
            "rule": record.rule, "pact": record.pact, "pact_version": record.pact_version,
            "at": now,
        })  # fmt: skip
        grant = self._shelf.granted(record, now)
        if grant is not None:
            why = f"all calls like it were approved until then, with {grant.approval_id}"
            self._settle(held, "approved", grant.decided_by, why, granted_by=grant.approval_id)
        else:
            self._kept(held)
            book.out.append(Notify("approval.requested", record.approval_id, shown(record)))
        return held

    def _use(self, held: Held, run: Run) -> None:
        record = held.record
        run_id = run.record.run_id
        held.record = replace(record, status="used", used_at=self._now, used_run=run_id)
        self._shelf.done(held)
        self._kept(held)
        self._book.audit("approval", f"{record.approval_id}/used", {
            "kind": "approval.used", "approval_id": record.approval_id, "run_id": run_id,
            "at": self._now,
        })  # fmt: skip

    def _answer(self, held: Held, claim: str, session: str = "") -> Asked:
        record = held.record
        status: AskedStatus
        if record.status == "used":
            status = "approved" if claim in (record.claim, record.joined) else "denied"
        elif record.status == "approved":
            status = "open"  # the one who waits for it may still come
        else:
            status = record.status
        approved = status == "approved"
        why = record.decision_reason if approved or record.decided_by else ""
        return Asked(
            claim=claim, status=status, approval_id=record.approval_id, by=record.decided_by,
            reason=why or deciding.standing(record), edited=approved and record.edited,
            left_s=max(0.0, (record.expires_at - self._now) / 1e9),
            arguments=record.edited_arguments if approved else None,
            raised=record.raised if approved else {},
            order=self._order(held, session or held.session) if approved else b"",
        )  # fmt: skip

    def _order(self, held: Held, session: str) -> bytes:
        """Control's word on an approval, signed for a session that waits for it."""
        record = held.record
        approved = record.status in ("approved", "used")
        return self._book.delivery.word(
            session, held.run_id, "approve" if approved else "deny", record.epoch,
            f"{record.approval_id}.{record.epoch}", record.decision_reason, record.decided_by,
            {
                "approval_id": record.approval_id, "digest": record.digest,
                "decision": "approved" if approved else record.status, "edited": record.edited,
                "arguments": record.edited_arguments, "raised": record.raised,
            },
        )  # fmt: skip

    # -- a person decides ----------------------------------------------------------------------

    def decide(self, request: Decide, token: object) -> None:
        fault = deciding.fault_of(request, self._book.limits)
        if fault:
            self._reply(token, Decided(error=fault))
            return
        done = [self._decide(ident, request) for ident in self._meant(request)]
        last = next((one.id for one in reversed(done) if one.ok), "")
        answer = Reply(token, encode(Decided(done=done)))
        # Told when the last is durable; the others' writes have begun before it.
        self._book.out.append(Keep("approval", last, (answer,)) if last else answer)

    def _meant(self, request: Decide) -> list[str]:
        if request.ids:
            return list(dict.fromkeys(request.ids[:1_000]))
        return [
            held.record.approval_id
            for held in self._shelf.open()
            if request.agent in ("", held.record.agent)
            and request.tool in ("", held.record.tool)
            and request.rule in ("", held.record.rule)
        ]

    def _decide(self, ident: str, request: Decide) -> DecidedOne:
        held = self._shelf.named(ident)
        if held is None:
            return DecidedOne(id=ident, ok=False, error="there is no approval of this id")
        self._judge(held)
        record = held.record
        why = deciding.objection(record, request, self._now)
        if why:
            return DecidedOne(id=record.approval_id, ok=False, status=record.status, error=why)
        if request.decision == "deny":
            self._deny(held, request)
        else:
            self._approve(held, request)
        return DecidedOne(id=record.approval_id, ok=True, status=held.record.status)

    def _approve(self, held: Held, request: Decide) -> None:
        now, limits = self._now, self._book.limits
        until = now + round(request.for_s * 1e9) if request.for_s else 0
        self._settle(
            held, "approved", request.by, request.reason, edited=request.edit,
            edited_arguments=request.arguments if request.edit else None,
            raised=dict(request.raised), grant_until=until,
            expires_at=max(held.record.expires_at, now + round(limits.approval_use_s * 1e9)),
        )  # fmt: skip
        if until:
            granted = held.record
            self._shelf.grant(granted)
            why = f"all calls like it were approved, with {granted.approval_id}"
            for other in self._shelf.open():
                if class_of(other.record) == class_of(granted):
                    self._settle(other, "approved", request.by, why, granted_by=granted.approval_id)

    def _deny(self, held: Held, request: Decide) -> None:
        record = held.record
        if record.grant_until:
            self._shelf.end_grant(record)
            held.record = record = replace(record, grant_until=self._now)
        if record.status == "used":
            self._kept(held)  # what was done is done; nothing more is approved with it
            return
        self._settle(held, "denied", request.by, request.reason)

    def _settle(
        self, held: Held, status: Literal["approved", "denied", "expired", "withdrawn"], by: str,
        reason: str, **changes: Any,
    ) -> None:  # fmt: skip
        """An approval gets its decision: written down, then told to who waits for it."""
        book = self._book
        record = held.record = replace(
            held.record, status=status, decided_by=by, decided_at=self._now,
            decision_reason=reason, epoch=book.next_epoch(), **changes,
        )  # fmt: skip
        if status != "approved":
            self._shelf.done(held)
        edge = Send(subjects.command(held.session), self._order(held, held.session))
        self._kept(held, edge)
        self._shelf.remember(record)
        book.audit("approval", f"{record.approval_id}/{record.epoch}", {
            "kind": f"approval.{status}", "approval_id": record.approval_id, "by": by,
            "reason": reason, "digest": record.digest, "edited": record.edited,
            "arguments": record.edited_arguments, "raised": record.raised,
            "grant_until": record.grant_until, "granted_by": record.granted_by, "at": self._now,
        })  # fmt: skip
        if self._silent(held):  # else who waits records it, in its own order of things
            run = book.registry.known(record.run_id)
            of = records.stand_in_run(record) if run is None else run.record
            book.tell(records.decided_event(of, record.epoch, book.world.now_ns(), record))

    # -- time passes ---------------------------------------------------------------------------

    def sweep(self) -> None:
        """Every quarter of a second: what has expired, whose run is halted or has ended."""
        for held in list(self._shelf.waiting.values()):
            self._judge(held)
        self._shelf.sweep(self._now)

    def _judge(self, held: Held) -> None:
        record = held.record
        if record.status not in ("open", "approved"):
            return
        run = self._book.registry.known(held.run_id)
        if run is not None and run.wanted == "halted":
            self._settle(held, "withdrawn", "", "the run was halted, which outranks every consent")
        elif run is not None and run.ended and run.status not in GONE:
            self._settle(held, "withdrawn", "", f"the run has ended ({run.status})")
        elif self._now >= record.expires_at:
            why = "nobody used it in time" if record.status == "approved" else "nobody answered"
            self._settle(held, "expired", record.decided_by, why)

    # -- what is known -------------------------------------------------------------------------

    def saved(self, key: str) -> bytes | None:
        held = self._shelf.named(key)
        return None if held is None else encode(held.record)

    def list(self, query: GateQuery) -> list[Approval]:
        return self._shelf.listed(query)

    @property
    def _now(self) -> int:
        return self._book.delivery.clock.now_ns()

    def _kept(self, held: Held, *after: Send) -> None:
        ident = held.record.approval_id
        self._book.out.append(Keep("approval", ident, after))
        self._book.out.append(Changed("approval", ident))
        for old in self._shelf.spare():
            self._book.out.append(Keep("approval", old))

    def _reply(self, token: object, answer: Asked | Decided) -> None:
        self._book.out.append(Reply(token, encode(answer)))
