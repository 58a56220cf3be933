"""Where events belong, and how many of them found no room there."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from checkrein.events.limits import clean_text
from checkrein.events.types import Base

LOSS_PLACES_MAX = 256

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Place:
    """The run that events belong to: made once for a run, given to every `record`."""

    environment: str
    room: str
    agent: str
    run_id: str
    task_id: str
    redact: Any = field(default=None, compare=False, repr=False)
    """What takes out of an event's fields what may not be written down; None: nothing."""
    encoded: dict[type[Base], bytes] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The recorder's own: the place's fields and an event's type as msgpack pairs, by type."""

    def encode(self, kind: type[Base]) -> bytes:
        fields = {"type": kind.__struct_config__.tag}
        for name in ("environment", "room", "agent", "run_id", "task_id"):
            fields[name] = clean_text(str(getattr(self, name)))
        pairs = self.encoded[kind] = _encode(fields)[1:]
        return pairs


@dataclass(slots=True)
class Lost:
    """Events of one place that found no room, `first` and `last` among them."""

    count: int
    first: int
    last: int


class Losses:
    """Losses that have not been told yet, by place. Beyond 256 places they are counted with the
    first one's."""

    def __init__(self) -> None:
        self.count = 0
        self.by_place: dict[Place, Lost] = {}

    def __bool__(self) -> bool:
        return bool(self.by_place)

    def add(self, place: Place, seq: int) -> None:
        self.count += 1
        if place not in self.by_place and len(self.by_place) >= LOSS_PLACES_MAX:
            place = next(iter(self.by_place))
        lost = self.by_place.setdefault(place, Lost(0, seq, seq))
        lost.count += 1
        lost.last = seq


class RecorderStats(NamedTuple):
    """`recorded` and `lost` count events of this process since the recorder began; `errors` are
    faults of the recorder itself that were kept from the agent."""

    recorded: int
    lost: int
    errors: int
    segments: int
