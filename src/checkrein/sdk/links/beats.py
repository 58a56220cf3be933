"""The beat of a process: which runs it holds, and which have ended since."""

from collections import deque
from collections.abc import Iterable

from checkrein.bus import subjects
from checkrein.bus.messages import Beat, BeatRun, encode
from checkrein.bus.types import Bus
from checkrein.sdk.links.records import beat_of
from checkrein.sdk.run import Run

ENDED_MAX = 10_000
ENDED_TOLD = 5
"""An ended run is told in so many beats."""


class Beats:
    """Bounded: of more than 10,000 runs that ended since the last beat the oldest are not told."""

    def __init__(self) -> None:
        self._ended: deque[tuple[BeatRun, int]] = deque(maxlen=ENDED_MAX)

    def ended(self, run: Run) -> None:
        """From any thread."""
        self._ended.append((beat_of(run), ENDED_TOLD))

    async def say(self, control: Bus, session: str, at_ns: int, held: Iterable[Run]) -> None:
        """One beat. Raises BusError."""
        runs = [beat_of(run) for run in held if not run.inherited]
        ended = [beat for beat, _ in list(self._ended)]
        beat = Beat(session=session, at=at_ns, runs=runs, ended=ended)
        await control.publish(subjects.beat(session), encode(beat))
        for _ in range(len(ended)):
            told, left = self._ended.popleft()
            if left > 1:
                self._ended.append((told, left - 1))
