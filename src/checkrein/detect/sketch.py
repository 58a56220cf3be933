"""A sketch of a distribution: counts in buckets that grow by a fixed ratio. Mergeable, JSON-able.

Quantiles are right within the bucket's width (2 % either way). At most 1,024 buckets, which spans
17 orders of magnitude; what is beyond counts in the last bucket.
"""

import math

import msgspec

GROWTH = 1.04
BUCKETS_MAX = 1024
_LOG_GROWTH = math.log(GROWTH)
_LEAST = 1e-6


class Sketch(msgspec.Struct):
    """Bound: 1,024 buckets, about 20 kB when full; some hundred bytes as a rule."""

    counts: dict[int, int] = {}
    total: int = 0

    def add(self, value: float, count: int = 1) -> None:
        """Takes in a value; what is not above a millionth counts as that."""
        bucket = _bucket(value)
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += count

    def quantile(self, share: float) -> float:
        """The value below which this share of all lies; 0 when there is none."""
        rank = share * self.total
        reached = 0
        for bucket in sorted(self.counts):
            reached += self.counts[bucket]
            if reached >= rank:
                return float(_LEAST * GROWTH ** (bucket + 0.5))
        return 0.0

    def share_from(self, value: float) -> float:
        """The conformal p-value of a new value: the share of those at least as large, itself
        included."""
        bucket = _bucket(value)
        above = sum(count for index, count in self.counts.items() if index >= bucket)
        return (above + 1) / (self.total + 1)

    def merge(self, other: "Sketch") -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total


def _bucket(value: float) -> int:
    if not value > _LEAST:
        return 0
    return min(BUCKETS_MAX - 1, int(math.log(value / _LEAST) / _LOG_GROWTH))
