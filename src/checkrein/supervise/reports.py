"""Receipts on their way out, and those already sent, in case control asks again."""

from collections import OrderedDict, deque

from checkrein.bus.messages import Progress
from checkrein.supervise import happenings as h

WAITING_MAX = 20_000
REACHED_MAX = 20_000
AT_ONCE_MAX = 500


class Reports:
    """Bounded: beyond WAITING_MAX the oldest receipt is dropped (control asks again anyway); of
    REACHED_MAX (command, run) pairs the stages are kept."""

    def __init__(self) -> None:
        self._waiting: deque[Progress] = deque(maxlen=WAITING_MAX)
        self._reached: OrderedDict[tuple[str, str], dict[str, Progress]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, progress: Progress) -> None:
        self._waiting.append(progress)
        if progress.stage == "probe":
            return
        key = (progress.command_id, progress.run_id)
        stages = self._reached.get(key)
        if stages is None:
            stages = self._reached[key] = {}
            while len(self._reached) > REACHED_MAX:
                self._reached.popitem(last=False)
        stages.setdefault(f"{progress.stage}/{progress.by}", progress)

    def again(self, command_id: str, run_id: str) -> bool:
        """Queues all that was reported of this command and run once more. False: nothing was."""
        stages = self._reached.get((command_id, run_id), {})
        self._waiting.extend(stages.values())
        return bool(stages)

    def take(self) -> list[Progress]:
        """The next ones to send in one message."""
        count = min(len(self._waiting), AT_ONCE_MAX)
        return [self._waiting.popleft() for _ in range(count)]

    def put_back(self, taken: list[Progress]) -> None:
        """They could not be sent."""
        room = WAITING_MAX - len(self._waiting)
        for progress in reversed(taken[-room:] if room else []):
            self._waiting.appendleft(progress)


def progress_of(report: h.Report, session: str, at_ns: int, nonce: str = "") -> Progress:
    """A ladder's report as the receipt that goes out."""
    return Progress(
        command_id=report.command_id, session=session, run_id=report.run_id, epoch=report.epoch,
        stage=report.stage, ms=report.ms, at=at_ns, by=report.by, confirmed=report.confirmed,
        detail=report.detail, nonce=nonce,
    )  # fmt: skip
