"""Sets of running numbers, kept as ranges: small where numbers have no gaps."""

from bisect import bisect_right
from collections.abc import Iterable

RANGES_MAX = 1000


class Numbers:
    """A set of integers. Beyond RANGES_MAX ranges the lowest is forgotten: `floor` is the highest
    number that may have been forgotten, and nothing is known of numbers up to it."""

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._lows: list[int] = []
        self._highs: list[int] = []

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._lows, number) - 1
        return index >= 0 and number <= self._highs[index]

    def add(self, numbers: Iterable[int]) -> None:
        """Takes in numbers, fastest in rising order."""
        run_low = run_high = None
        for number in numbers:
            if run_low is None or run_high is None:
                run_low = run_high = number
            elif number == run_high + 1:
                run_high = number
            else:
                self._add(run_low, run_high)
                run_low = run_high = number
        if run_low is not None and run_high is not None:
            self._add(run_low, run_high)

    def _add(self, low: int, high: int) -> None:
        first = bisect_right(self._lows, low)
        if first and self._highs[first - 1] >= low - 1:
            first -= 1
        after = bisect_right(self._lows, high + 1)
        if first < after:
            low = min(low, self._lows[first])
            high = max(high, self._highs[after - 1])
        self._lows[first:after] = [low]
        self._highs[first:after] = [high]
        if len(self._lows) > RANGES_MAX:
            self.floor = max(self.floor, self._highs[0])
            del self._lows[0], self._highs[0]

    def missing(self, first: int, last: int) -> int:
        """How many of the numbers `first` to `last` are not in the set."""
        ranges = zip(self._lows, self._highs, strict=True)
        here = sum(max(0, min(high, last) - max(low, first) + 1) for low, high in ranges)
        return last - first + 1 - here
