"""How a role says one event: subject, bytes, and the id by which the bus knows it again."""

from checkrein.bus import subjects
from checkrein.events import codec
from checkrein.events.envelope import alone, lane_message_id, pack
from checkrein.events.types import Base


def message_of(event: Base) -> tuple[str, bytes, str]:
    """For `Bus.append`. The event's `recorder` begins with `role:`, and its number follows from
    what it says, so that saying it again changes nothing."""
    envelope = alone(event.recorder, event.agent, event.task_id, event.seq, codec.encode(event))
    subject = subjects.events(event.agent, envelope.partition)
    return subject, pack(envelope), lane_message_id(envelope)
