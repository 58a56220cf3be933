"""What flows are usual: learned, for each type of task, from runs that nobody had to stop.

An edge says that a value of one source went into one argument of one tool: `read_file >
send_money.recipient`. A profile is data: JSON-able, mergeable (counts add up, so the order of
merging does not matter until a bound is reached), and bounded.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec

EDGES_MAX = 500
TYPES_MAX = 1_000
VALUES_MAX = 32
MATURE_RUNS = 20
APPROVALS_TO_PROMOTE = 3
WHOLE = "*"
HISTORY_MIN = 6
"""With fewer runs than this a type of task has no history of its own: what is usual for the whole
agent counts."""
USUAL_TIMES = 3
SURPRISE = 0.3
_CLOSED_USES_MIN = 5
_CLOSED_NOVELTY_MAX = 0.25


class Values(msgspec.Struct):
    """Which values an argument took: a short hash of each, and in how many runs. `open`: too many
    different ones to be a fixed set."""

    uses: int = 0
    seen: dict[str, int] = {}
    open: bool = False


class TypeProfile(msgspec.Struct):
    """The usual flows of one type of task. Counts are of runs. `approved`: how often somebody let
    an edge that was new pass."""

    runs: int = 0
    sinks: dict[str, int] = {}
    edges: dict[str, int] = {}
    approved: dict[str, int] = {}
    values: dict[str, Values] = {}

    def is_surprising(self, name: str, whole: "TypeProfile") -> bool:
        """Whether it says anything that this type has never had a sink or an edge that other types
        do have: going by its share among all runs, the chance of not having seen it yet is at most
        `SURPRISE`."""
        if self.runs < HISTORY_MIN:
            return not (whole.edges.get(name) or whole.sinks.get(name))
        return (1.0 - whole.share(name)) ** self.runs <= SURPRISE or not whole.share(name)

    @property
    def mature(self) -> bool:
        return self.runs >= MATURE_RUNS

    def knows(self, edge: str) -> bool:
        return edge in self.edges or self.approved.get(edge, 0) >= APPROVALS_TO_PROMOTE

    def knows_sink(self, tool: str) -> bool:
        return tool in self.sinks or self.approved.get(tool, 0) >= APPROVALS_TO_PROMOTE

    def share(self, name: str) -> float:
        """In how many of all runs a sink or an edge was."""
        return (self.edges.get(name) or self.sinks.get(name, 0)) / self.runs if self.runs else 0.0

    def times(self, target: str, key: str) -> int:
        """In how many runs an argument had this value."""
        values = self.values.get(target)
        return values.seen.get(hashed(key), 0) if values is not None else 0

    def is_new_value(self, target: str, key: str) -> bool:
        """Whether an argument that has always taken few values is given another one.

        By Good and Turing (1953): the chance that the next value is new is about the share of
        values seen exactly once. Up to one in four, and after five uses, a new one is unusual.
        """
        values = self.values.get(target)
        if values is None or values.open or values.uses < _CLOSED_USES_MIN:
            return False
        if hashed(key) in values.seen:
            return False
        once = sum(1 for count in values.seen.values() if count == 1)
        return once / values.uses <= _CLOSED_NOVELTY_MAX


class Profile(msgspec.Struct):
    """By type of task. `WHOLE` is the sum of all of the agent's runs."""

    types: dict[str, TypeProfile] = {}

    def of(self, task_type: str) -> TypeProfile:
        """An empty one when nothing was learned of it."""
        return self.types.get(task_type) or TypeProfile()


class Lesson(msgspec.Struct):
    """What one run did: the sinks it called, its edges, and the values its destinations took."""

    sinks: set[str] = set()
    edges: set[str] = set()
    values: dict[str, set[str]] = {}


def hashed(key: str) -> str:
    return blake2b(key.encode("utf-8", "replace"), digest_size=6).hexdigest()


def learn(profile: Profile, task_type: str, lesson: Lesson) -> None:
    """Adds one run, to its type and to the whole. Beyond a bound nothing new is taken in: what is
    then unknown is asked about."""
    for name in (task_type, WHOLE):
        _learn(profile, name, lesson)


def _learn(profile: Profile, task_type: str, lesson: Lesson) -> None:
    known = profile.types.get(task_type)
    if known is None:
        if len(profile.types) >= TYPES_MAX:
            return
        known = profile.types[task_type] = TypeProfile()
    known.runs += 1
    _count(known.sinks, lesson.sinks)
    _count(known.edges, lesson.edges)
    for target, keys in sorted(lesson.values.items()):
        if target not in known.values and len(known.values) >= EDGES_MAX:
            continue
        values = known.values.setdefault(target, Values())
        values.uses += 1
        _take(values, {hashed(key): 1 for key in keys})


def approve(profile: Profile, task_type: str, edges: Iterable[str]) -> None:
    """Somebody let these new edges (or a new sink) pass: after three times they are usual."""
    known = profile.types.setdefault(task_type, TypeProfile())
    for edge in edges:
        if edge in known.approved or len(known.approved) < EDGES_MAX:
            known.approved[edge] = known.approved.get(edge, 0) + 1


def merged(profiles: Iterable[Profile]) -> Profile:
    """The sum of several, as a new one."""
    whole = Profile()
    for profile in profiles:
        for name, each in profile.types.items():
            known = whole.types.get(name)
            if known is None:
                if len(whole.types) >= TYPES_MAX:
                    continue
                known = whole.types[name] = TypeProfile()
            known.runs += each.runs
            _sum(known.sinks, each.sinks)
            _sum(known.edges, each.edges)
            _sum(known.approved, each.approved)
            _merge_values(known, each)
    return whole


def _merge_values(known: TypeProfile, other: TypeProfile) -> None:
    for target, values in other.values.items():
        if target not in known.values and len(known.values) >= EDGES_MAX:
            continue
        mine = known.values.setdefault(target, Values())
        mine.uses += values.uses
        mine.open = mine.open or values.open
        _take(mine, values.seen)


def _take(values: Values, seen: Mapping[str, int]) -> None:
    if values.open:
        return
    for key, count in seen.items():
        values.seen[key] = values.seen.get(key, 0) + count
    if len(values.seen) > VALUES_MAX:
        values.seen = {}
        values.open = True


def _count(counts: dict[str, int], names: Iterable[str]) -> None:
    _sum(counts, dict.fromkeys(sorted(names), 1))  # the same at every bound, whatever the order


def _sum(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        if name in counts or len(counts) < EDGES_MAX:
            counts[name] = counts.get(name, 0) + count
