"""Cursors: an event's place in the order in which queries give events."""

from checkrein.store.types import StoreError


def position_of(at: int, recorder: str, seq: int, agent: str) -> str:
    """The opaque cursor of an event: its place in the order of `at`, recorder, number, agent."""
    return f"{at}:{seq}:{len(recorder)}:{recorder}{agent}"


def parse_position(position: str) -> tuple[int, str, int, str]:
    """Raises StoreError for text that is no cursor of ours."""
    try:
        at, seq, length, names = position.split(":", 3)
        recorder, agent = names[: int(length)], names[int(length) :]
        return int(at), recorder, int(seq), agent
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{position!r} is no position that a query gave") from error
