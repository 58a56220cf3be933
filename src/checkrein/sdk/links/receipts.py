"""What became of orders, on its way to control."""

from collections import OrderedDict, deque

from checkrein.bus import subjects
from checkrein.bus.messages import Holder, Progress, encode
from checkrein.bus.types import Bus
from checkrein.sdk.rein import Ordered
from checkrein.world import World

WAITING_MAX = 10_000
REMEMBERED_MAX = 1_000


class Receipts:
    """`by`: which holder of runs says so. Bounded: the oldest that wait are dropped, since control
    asks again; of 1,000 orders it is known when they arrived."""

    def __init__(self, world: World, by: Holder) -> None:
        self._world, self._by = world, by
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING_MAX)
        self._arrived: OrderedDict[str, int] = OrderedDict()

    def arrived(self, command_id: str) -> None:
        """Now, if it has not before."""
        self._arrived.setdefault(command_id, self._world.monotonic_ns())
        if len(self._arrived) > REMEMBERED_MAX:
            self._arrived.popitem(last=False)

    def add(
        self, session: str, order: Ordered, run_id: str, stage: str, detail: str, nonce: str,
        confirmed: bool,
    ) -> None:  # fmt: skip
        """From any thread. `stage`: one of Obedience's words; `confirmed`: it was seen from outside
        the run."""
        now_ns = self._world.monotonic_ns()
        since_ns = self._arrived.get(order.command_id, now_ns)
        progress = Progress(
            command_id=order.command_id, session=session, run_id=run_id, epoch=order.epoch,
            stage=stage,  # type: ignore[arg-type] # one of Obedience's words
            ms=round((now_ns - since_ns) / 1e6, 3), at=self._world.now_ns(), by=self._by,
            detail=detail, nonce=nonce, confirmed=confirmed,
        )  # fmt: skip
        self._waiting.append((subjects.receipts(session), encode(progress)))

    async def flush(self, control: Bus) -> None:
        """Sends all that wait, in order. Raises BusError; what was not sent waits on."""
        while self._waiting:
            subject, data = self._waiting[0]
            await control.publish(subject, data)
            self._waiting.popleft()
