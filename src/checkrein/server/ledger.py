"""The ledger's edge, in the role `control`: leases are answered once they are written down.

The state of each account is one value of the bucket `ledger`, written with compare-and-set: two
controls at once cannot lend the same money, since the one whose write loses takes over what stands
there and answers its askers "again". While an account is being written, further claims of it are
taken in and go together into its next write. Nothing here is waited for by orders or beats.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from checkrein.bus import subjects
from checkrein.bus.approvals import Approval
from checkrein.bus.leases import (
    CLAIMS_MAX,
    AccountState,
    LeaseAnswer,
    LeaseRequest,
    LedgerRequest,
    Recall,
    account_key,
    asks_nothing,
    objection_to_claim,
    raise_of,
)
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Message, Subscription, WrongRevision
from checkrein.control.ledger import Kept, Ledger
from checkrein.control.types import Audit
from checkrein.policy.accounts import Claim, Grant
from checkrein.server.key_writer import KeyWriter
from checkrein.server.sessions import Sessions
from checkrein.world import World

_log = logging.getLogger(__name__)

WRITERS = 4
SWEEP_EVERY_S = 5.0
WAITING_MAX = 10_000
RAISED_NS = 86_400 * 10**9
"""Approvals older than this have raised what they raise."""
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class _Waiting:
    """An answer that may be given once the accounts it speaks of are durable."""

    __slots__ = ("again", "answer", "keys", "message")

    def __init__(self, message: Message, answer: bytes, again: bytes, keys: set[str]) -> None:
        self.message, self.answer, self.again, self.keys = message, answer, again, keys


class LedgerDesk:
    """Takes claims from the bus and answers them; writes what changed."""

    def __init__(
        self, bus: Bus, bucket: Bucket, sessions: Sessions, world: World,
        audit: Callable[[Audit], None],
    ) -> None:  # fmt: skip
        self._bus, self._bucket, self._sessions, self._world = bus, bucket, sessions, world
        self._audit = audit
        self._writer = world.nonce()[:16]
        self.ledger = Ledger(self._writer)
        self._revisions: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._writing = KeyWriter(self._write, "the account", world, _PAUSES_S, tasks=WRITERS)
        self._waiting: dict[str, list[tuple[int, _Waiting]]] = {}
        self._waits = 0
        self._unreadable: set[str] = set()

    @classmethod
    async def open(
        cls, bus: Bus, sessions: Sessions, world: World, audit: Callable[[Audit], None]
    ) -> "LedgerDesk":
        """Reads what earlier starts wrote. Raises BusError."""
        bucket = await bus.bucket(subjects.BUCKET_LEDGER)
        desk = cls(bus, bucket, sessions, world, audit)
        for entry in await bucket.entries():
            desk._restore(entry.key, entry.value or b"", entry.revision)
        return desk

    async def listen(self) -> list[Subscription]:
        return [
            await self._bus.subscribe(subjects.lease("*"), self._on_lease),
            await self._bus.subscribe(subjects.CONTROL_LEDGER, self._on_ask),
        ]

    def works(self) -> list[Coroutine[Any, Any, None]]:
        return [*self._writing.works(), self._sweep_on()]

    @property
    def waiting(self) -> int:
        return self._writing.waiting

    # -- asked ----------------------------------------------------------------------------------

    async def _on_lease(self, message: Message) -> None:
        session = message.subject.partition(".")[2]
        try:
            request = decode(message.data, LeaseRequest)
        except MessageError as error:
            await self._respond(message, encode(LeaseAnswer(error=str(error))))
            return
        if session not in self._sessions.known:
            await self._sessions.look(session)  # it may be newer than what has come by
        answer, keys, recalls = self._take(session, request)
        again = encode(LeaseAnswer(purse=request.purse, number=request.number, error="ask again"))
        await self._answer_when_durable(message, encode(answer), again, keys)
        for holder, lines in recalls.items():
            await self._tell(subjects.recall(holder), encode(Recall(lines=lines)))

    def _take(
        self, session: str, request: LeaseRequest
    ) -> tuple[LeaseAnswer, set[str], dict[str, list[str]]]:
        purse, number = request.purse, request.number
        known = self._sessions.known.get(session)
        if known is None or len(request.claims) > CLAIMS_MAX:
            why = f"session {session} is not known here: ask the server for it again"
            if known is not None:
                why = f"{len(request.claims)} claims at once; at most {CLAIMS_MAX}"
            return LeaseAnswer(purse=purse, number=number, error=why), set(), {}
        at = self._world.now_ns()
        refused: list[Grant] = []
        good: list[Claim] = []
        for claim in request.claims:
            why = objection_to_claim(known, claim, at)
            if not claim.line.startswith(purse):
                why = "a line of another purse"
            if account_key(claim.account) in self._unreadable:
                why = f"what the server wrote down of {claim.account} cannot be read"
            if why:
                refused.append(Grant(claim.line, refused=why))
            else:
                good.append(asks_nothing(claim, at))
        taken = self.ledger.take(session, number, good, self._world.monotonic_ns(), at)
        grants = [*taken.grants, *refused]
        return LeaseAnswer(purse=purse, number=number, grants=grants), taken.keys, taken.recalls

    async def _on_ask(self, message: Message) -> None:
        """How an account stands; or a raise. Only our own roles can publish here."""
        try:
            request = decode(message.data, LedgerRequest)
        except MessageError as error:
            _log.warning("the ledger was asked what it cannot read: %s", error)
            return
        await self.ask(request, message)

    async def ask(self, request: LedgerRequest, message: Message) -> None:
        """Answers with an AccountState; a raise, once it is durable, and it is audited."""
        if account_key(request.account) in self._unreadable:
            why = "what was written down of it cannot be read"
            await self._respond(message, encode(AccountState(account=request.account, error=why)))
            return
        state = self._raise(request)
        again = encode(AccountState(account=request.account, error="ask again"))
        keys = {account_key(request.account)} if request.raise_id and not state.error else set()
        await self._answer_when_durable(message, encode(state), again, keys)

    def approved(self, approval: Approval) -> None:
        """Somebody has raised a shared budget with an approval: it stands in the ledger from now
        on, once, however often this is told (also after a restart)."""
        request = raise_of(approval)
        if request is None or self._world.now_ns() - approval.asked_at > RAISED_NS:
            return
        key = account_key(request.account)
        if key not in self._unreadable:
            self._raise(request)
            if self._durable.get(key, 0) < self.ledger.version(key):
                self._writing.add(key)

    def _raise(self, request: LedgerRequest) -> AccountState:
        at = self._world.now_ns()
        state, changed = self.ledger.raise_by(request, self._world.monotonic_ns(), at)
        if changed:
            record = {
                "account": msgspec.to_builtins(request.account), "by": request.by,
                "amount": msgspec.to_builtins(request.amount), "reason": request.reason,
                "raise_id": request.raise_id, "at": at,
            }  # fmt: skip
            self._audit(Audit("budget", f"budget/{request.raise_id}", record))
        return state

    # -- answered -------------------------------------------------------------------------------

    async def _answer_when_durable(
        self, message: Message, answer: bytes, again: bytes, keys: set[str]
    ) -> None:
        behind = {
            key for key in keys if self._durable.get(key, 0) < self.ledger.version(key)
        }  # fmt: skip
        if not behind:
            await self._respond(message, answer)
            return
        for key in behind:
            self._writing.add(key)
        if self._waits >= WAITING_MAX:
            await self._respond(message, again)
            return
        self._waits += 1
        waiting = _Waiting(message, answer, again, behind)
        for key in behind:
            self._waiting.setdefault(key, []).append((self.ledger.version(key), waiting))

    async def _written(self, key: str, version: int) -> None:
        self._durable[key] = max(version, self._durable.get(key, 0))
        left = []
        for wanted, waiting in self._waiting.pop(key, []):
            if wanted > version:
                left.append((wanted, waiting))
                continue
            waiting.keys.discard(key)
            if not waiting.keys:
                self._waits -= 1
                await self._respond(waiting.message, waiting.answer)
        if left:
            self._waiting.setdefault(key, [])[:0] = left

    async def _taken_over(self, key: str) -> None:
        """Another control has written here: what we said of the account does not hold."""
        for _, waiting in self._waiting.pop(key, []):
            if not waiting.keys:
                continue
            for other in waiting.keys - {key}:
                pairs = self._waiting.get(other, [])
                self._waiting[other] = [pair for pair in pairs if pair[1] is not waiting]
            waiting.keys.clear()
            self._waits -= 1
            await self._respond(waiting.message, waiting.again)

    async def _respond(self, message: Message, data: bytes) -> None:
        if message.reply:
            try:
                await self._bus.respond(message, data)
            except BusError as error:
                _log.info("the ledger could not answer: %s", error)

    async def _tell(self, subject: str, data: bytes) -> None:
        try:
            await self._bus.publish(subject, data)
        except BusError as error:
            _log.info("the ledger could not recall: %s", error)

    # -- written --------------------------------------------------------------------------------

    async def _write(self, key: str) -> None:
        kept = self.ledger.saved(key)
        if kept is None:
            await self._bucket.delete(key)
            self._revisions.pop(key, None)
            self._durable.pop(key, None)
            return
        version, value = kept.version, encode(kept)
        revision = self._revisions.get(key)
        try:
            if revision is None:
                self._revisions[key] = await self._bucket.create(key, value)
            else:
                self._revisions[key] = await self._bucket.update(key, value, revision)
        except WrongRevision:
            await self._reconcile(key)
            return
        await self._written(key, version)

    async def _reconcile(self, key: str) -> None:
        """What stands there is not what we thought: our own write that we did not hear of, or
        another's."""
        entry = await self._bucket.get(key)
        standing = _decoded(key, entry.value or b"") if entry is not None else None
        if entry is not None and standing is not None and standing.writer == self._writer:
            self._revisions[key] = entry.revision
            self._writing.add(key)
            await self._written(key, standing.version)
            return
        _log.error("another control keeps the ledger's %s too: stop one of them", key)
        self.ledger.forget(key)
        self._revisions.pop(key, None)
        self._durable.pop(key, None)
        if entry is not None:
            self._restore(key, entry.value or b"", entry.revision)
        await self._taken_over(key)

    def _restore(self, key: str, value: bytes, revision: int) -> None:
        self._revisions[key] = revision
        kept = _decoded(key, value)
        if kept is None:
            self._unreadable.add(key)  # not a fresh budget: what was spent is not known
        else:
            self.ledger.restore(key, kept, self._world.monotonic_ns())
            self._durable[key] = kept.version

    async def _sweep_on(self) -> None:
        while True:
            await self._world.sleep(SWEEP_EVERY_S)
            changed, lapsed = self.ledger.sweep(self._world.monotonic_ns(), self._world.now_ns())
            for account, name, line in lapsed:
                _log.warning(
                    "%s: nothing was heard of lease %s for a minute; all it had (%s) is charged",
                    account, name, line.granted,
                )  # fmt: skip
            for key in changed:
                self._writing.add(key)


def _decoded(key: str, value: bytes) -> Kept | None:
    try:
        return decode(value, Kept)
    except MessageError as error:
        _log.error("the ledger cannot read %s: %s", key, error)
        return None
