"""Our own faults stay ours: logged once a place, counted, never raised into the agent."""

import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Iterator

LOG = logging.getLogger("checkrein")
faults: Counter[str] = Counter()
"""Faults of ours by place."""
refused_orders: Counter[str] = Counter()
"""Orders that were not genuine, or too late, by why."""
PLACES_MAX = 1_000
TRACE_FRAMES_MAX = -20
"""The innermost frames."""
TRACE_LINES_MAX = 80
TRACE_LINE_CHARS_MAX = 400


def fault(place: str, error: BaseException) -> None:
    """Counts a fault of ours; the first at each place is logged with its traceback."""
    with contextlib.suppress(Exception):
        first = place not in faults
        if first and len(faults) >= PLACES_MAX:
            return
        faults[place] += 1
        if first:
            LOG.warning(
                "checkrein: %s failed; the agent goes on without it (further ones are counted)\n%s",
                place,
                _told(error),
            )


def _told(error: BaseException) -> str:
    """Its traceback. What an error says can hold all that the agent was given: so it is cut."""
    lines = "".join(traceback.format_exception(error, limit=TRACE_FRAMES_MAX)).rstrip().splitlines()
    return "\n".join(line[:TRACE_LINE_CHARS_MAX] for line in lines[-TRACE_LINES_MAX:])


@contextlib.contextmanager
def quiet(place: str) -> Iterator[None]:
    """Swallows any `Exception` of the block: `Halted`, `Denied` is not for here."""
    try:
        yield
    except Exception as error:
        fault(place, error)


_WARNED: set[str] = set()


def warn_once(key: str, message: str, *values: object) -> None:
    """A warning that is said once in the life of the process."""
    if key not in _WARNED:
        _WARNED.add(key)
        LOG.warning(message, *values)
