"""Signed orders: how control makes them, and how a holder of runs decides whether to obey.

    OrderRefused                the order as a whole is refused; `why` is one of these:
        GARBAGE                 not a signed order at all
        FORGED                  the signature is not control's
        OTHER_SESSION           meant for another holder
        EXPIRED                 an old edge, delivered too late

One run of an accepted order may still be refused: REPLAY (this very order was accepted before),
OLD_EPOCH (a newer order was accepted before), HALTED (nothing but a halt's own questions reaches a
halted run).

Verbs are of three kinds, and the kind says what "newer" means:

    state (pause resume halt)   the highest epoch of a run wins; a late, older one is refused. A
                                second halt, by another command, is accepted: it changes nothing,
                                but whoever gave it wants to know.
    act   (all the others)      each epoch and each command is accepted once, in whatever order they
                                arrive (a control that forgot a command in a crash may be asked for
                                it again, and gives it a new epoch).
    probe                       each nonce is answered once; changes nothing.
"""

from collections import OrderedDict

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from checkrein.bus.messages import MessageError, Order, OrderRun, SignedOrder, decode, encode
from checkrein.world import World

DOMAIN = b"checkrein-order-v1"
ORDER_BYTES_MAX = 1024 * 1024

GARBAGE = "garbage"
FORGED = "forged"
OTHER_SESSION = "other session"
EXPIRED = "expired"
REPLAY = "replay"
OLD_EPOCH = "old epoch"
HALTED = "halted"
NO_SDK = "no SDK answers in this program"
"""Why a supervisor refuses what only the agent's own code could do."""

NOT_OBEYED = frozenset({OLD_EPOCH, HALTED})
"""Why one run of a genuine order was refused, as the `detail` of its stage `refused`. An order that
is refused as a whole is reported with no run, as `<why>: <what was seen>`."""

STATE_VERBS = frozenset({"pause", "resume", "halt"})
AFTER_HALT = frozenset({"halt", "probe", "inspect", "contain"})
"""What a halted run still hears: that it is halted, questions, and that its rights are gone."""


class OrderRefused(Exception):
    """This order must not be obeyed. `why` is one of the words above, `detail` says what was seen,
    `command_id` names the command if the order could be read (and, unless forged, is control's)."""

    def __init__(self, why: str, detail: str, command_id: str = "") -> None:
        super().__init__(f"order refused ({why}): {detail}")
        self.why = why
        self.detail = detail
        self.command_id = command_id


def sign(order: Order, key: SigningKey) -> bytes:
    """The order as it travels."""
    payload = encode(order)
    return encode(SignedOrder(payload, key.sign(DOMAIN + payload).signature))


def verify(signed: bytes, key: bytes) -> Order:
    """The order inside, if control signed it with the private half of `key` (32 bytes).

    Proves only where it came from. Whether to obey it is for `Inbox.accept` to say. Raises
    OrderRefused: garbage or forged.
    """
    # 1. The size, before anything is read.
    if len(signed) > ORDER_BYTES_MAX:
        raise OrderRefused(GARBAGE, f"{len(signed)} bytes, more than {ORDER_BYTES_MAX}")
    # 2. The frame.
    try:
        frame = decode(signed, SignedOrder)
    except MessageError as error:
        raise OrderRefused(GARBAGE, str(error)) from error
    # 3. The signature, before the payload is looked into.
    try:
        VerifyKey(key).verify(DOMAIN + frame.payload, frame.signature)
    except (BadSignatureError, ValueError) as error:
        raise OrderRefused(FORGED, f"the signature does not fit control's key: {error}") from error
    # 4. The payload.
    try:
        return decode(frame.payload, Order)
    except MessageError as error:
        raise OrderRefused(GARBAGE, str(error)) from error


class Accepted(msgspec.Struct, frozen=True):
    """What may be obeyed now. `runs` are to be obeyed; `refused` are (run, why), with why one of
    REPLAY, OLD_EPOCH, HALTED.

    A REPLAY is mostly control asking again because it heard nothing: do nothing to the run, but
    report the stages it has reached once more. To OLD_EPOCH and HALTED answer with the stage
    `refused` and `why` as its detail.
    """

    order: Order
    runs: list[OrderRun]
    refused: list[tuple[str, str]]

    @property
    def again(self) -> list[str]:
        """The runs of which this very order was accepted before: report, do not repeat."""
        return [run_id for run_id, why in self.refused if why == REPLAY]


class _Heard:
    """What an inbox remembers of one run."""

    __slots__ = ("acts", "acts_floor", "epoch", "halted", "halts")

    def __init__(self, floor: int) -> None:
        self.epoch = floor
        self.halted = False
        self.halts: set[str] = set()
        self.acts: OrderedDict[int, str] = OrderedDict()
        self.acts_floor = floor


class Inbox:
    """Decides, for one session, which orders are obeyed: each at most once per run, never an older
    state after a newer one, nothing after a halt. Pure: no I/O, and no thread safety.

    Time: an order's expiry is judged by control's clock as far as it is known (every authentic
    order tells a moment which control's clock has passed), so a stepped or wrong local clock does
    not make fresh orders look old. A halt never expires: it cannot be undone, so it cannot be
    stale.

    Bounded: `runs_max` runs are remembered, the longest unheard of is forgotten first, and what was
    forgotten is not accepted again (epochs rise over all runs of a control).
    """

    def __init__(
        self,
        session: str,
        key: bytes,
        world: World,
        *,
        runs_max: int = 20_000,
        acts_per_run_max: int = 128,
        nonces_max: int = 1024,
    ) -> None:
        self.session = session
        self.key = key
        self._world = world
        self._runs_max = runs_max
        self._acts_per_run_max = acts_per_run_max
        self._nonces_max = nonces_max
        self._heard: OrderedDict[str, _Heard] = OrderedDict()
        self._nonces: OrderedDict[str, None] = OrderedDict()
        self._floor = 0
        self._ahead_ns: int | None = None

    def accept(self, data: bytes) -> Accepted:
        """Takes an order from an edge, the bucket or a registration's answer. Raises OrderRefused
        when nothing of it may be obeyed."""
        # 1. It is control's.
        order = verify(data, self.key)
        # 2. It is for us.
        if order.session != self.session:
            raise OrderRefused(
                OTHER_SESSION, f"for session {order.session}, this is {self.session}",
                order.command_id,
            )  # fmt: skip
        # 3. It is of now.
        late_ns = self._late_ns(order)
        if late_ns > 0 and order.verb != "halt":
            raise OrderRefused(EXPIRED, f"{late_ns / 1e9:.1f} s too late", order.command_id)
        # 4. It is new, run by run.
        if order.verb == "probe":
            return self._probe(order)
        runs: list[OrderRun] = []
        refused: list[tuple[str, str]] = []
        for run in order.runs:
            why = self._judge(order.verb, run, order.command_id)
            if why:
                refused.append((run.run_id, why))
            else:
                runs.append(run)
        return Accepted(order, runs, refused)

    def epoch(self, run_id: str) -> int:
        """The epoch of the newest state accepted for a run, 0 if none: what a beat reports."""
        heard = self._heard.get(run_id)
        return 0 if heard is None or heard.epoch <= self._floor else heard.epoch

    def _late_ns(self, order: Order) -> int:
        mono_ns = self._world.monotonic_ns()
        if self._ahead_ns is None:
            now_ns = self._world.now_ns()
            self._ahead_ns = order.issued_at - mono_ns
        else:
            self._ahead_ns = max(self._ahead_ns, order.issued_at - mono_ns)
            now_ns = mono_ns + self._ahead_ns
        return now_ns - order.expires_at if order.expires_at else 0

    def _probe(self, order: Order) -> Accepted:
        if order.nonce in self._nonces:
            return Accepted(order, [], [(run.run_id, REPLAY) for run in order.runs])
        self._nonces[order.nonce] = None
        if len(self._nonces) > self._nonces_max:
            self._nonces.popitem(last=False)
        return Accepted(order, list(order.runs), [])

    def _judge(self, verb: str, run: OrderRun, command_id: str) -> str:
        heard = self._heard.get(run.run_id)
        if heard is None:
            heard = self._heard[run.run_id] = _Heard(self._floor)
            self._forget()
        self._heard.move_to_end(run.run_id)
        if verb in STATE_VERBS:
            return self._judge_state(heard, verb, run.epoch, command_id)
        return self._judge_act(heard, verb, run.epoch, command_id)

    def _judge_state(self, heard: _Heard, verb: str, epoch: int, command_id: str) -> str:
        if epoch == heard.epoch:
            return REPLAY
        if verb == "halt":
            return self._judge_halt(heard, epoch, command_id)
        if heard.halted:
            return HALTED
        if epoch < heard.epoch:
            return OLD_EPOCH
        heard.epoch = epoch
        return ""

    def _judge_halt(self, heard: _Heard, epoch: int, command_id: str) -> str:
        # A halt is obeyed even when a newer pause or resume came first: control issues neither
        # after a halt, unless it crashed in between and forgot it; then stopping is the safe side.
        heard.epoch = max(epoch, heard.epoch)
        if command_id in heard.halts or len(heard.halts) >= self._acts_per_run_max:
            return REPLAY
        heard.halted = True
        heard.halts.add(command_id)
        return ""

    def _judge_act(self, heard: _Heard, verb: str, epoch: int, command_id: str) -> str:
        if epoch in heard.acts or (command_id and command_id in heard.acts.values()):
            return REPLAY
        if heard.halted and verb not in AFTER_HALT:
            return HALTED
        if epoch <= heard.acts_floor:
            return OLD_EPOCH
        heard.acts[epoch] = command_id
        if len(heard.acts) > self._acts_per_run_max:
            forgotten = min(heard.acts)
            del heard.acts[forgotten]
            heard.acts_floor = max(heard.acts_floor, forgotten)
        return ""

    def _forget(self) -> None:
        while len(self._heard) > self._runs_max:
            _, heard = self._heard.popitem(last=False)
            self._floor = max(self._floor, heard.epoch, heard.acts_floor, *heard.acts, 0)
