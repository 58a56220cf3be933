"""What the tests of recording share."""

from pathlib import Path
from typing import Any

from checkrein.events import codec
from checkrein.sdk.place import Place
from checkrein.sdk.reader import RingReader
from checkrein.sdk.recorder import Recorder
from checkrein.world import REAL

PLACE = Place("production", "refunds", "support-bot", REAL.uuid7(), "0" * 31 + "1")


def recorder(root: Path, **options: Any) -> Recorder:
    return Recorder(root, REAL, agent="support-bot", keeper=False, **options)


def read_all(reader: RingReader, after: int = 0, bytes_max: int = 1 << 20) -> list[Any]:
    """Every event above a number, decoded; checks that the numbers are those inside."""
    found: list[Any] = []
    while records := reader.read(after, bytes_max):
        for seq, raw in records:
            assert seq > after
            after = seq
            event = codec.decode(raw)
            assert not isinstance(event, codec.Unknown)
            assert event.seq == seq
            found.append(event)
    return found
