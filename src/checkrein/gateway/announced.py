"""Whether a call is believed to be the one that the agent's SDK has judged, paid for and recorded.

A call says so itself, so it is believed only where an SDK can be: in a run that another process
holds. Of one announced call there is one request, and a few more where that was not answered; what
comes beyond is a call of its own, which is judged, paid for and recorded as any other.
"""

from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from checkrein.gateway.types import Announced
from checkrein.sdk.run import Run

CALLS_MAX = 4_096
"""Of one run; beyond, the oldest is forgotten."""
ATTEMPTS_MAX = 8
"""How often a client may ask again for one call that was not answered."""


@dataclass
class _Call:
    attempts: int = 0
    taken: bool = False
    """It is under way, or was answered."""


class Announcements:
    """Of all runs at this gateway. On its loop."""

    def __init__(self) -> None:
        self._calls: WeakKeyDictionary[Run, OrderedDict[str, _Call]] = WeakKeyDictionary()

    def believed(self, run: Run, said: Announced) -> Announced:
        """What may be believed of it: without `call_id` when this is none of the SDK's calls."""
        if not said.call_id:
            return said
        if not run.inherited:
            return replace(said, call_id="")
        calls = self._calls.setdefault(run, OrderedDict())
        call = calls.setdefault(said.call_id, _Call())
        if call.taken or call.attempts >= ATTEMPTS_MAX:
            return replace(said, call_id="")
        call.attempts += 1
        call.taken = True
        while len(calls) > CALLS_MAX:
            calls.popitem(last=False)
        return said

    def left(self, run: Run, said: Announced, status: str) -> None:
        """A believed call has passed: one that was not answered may come again."""
        call = self._calls.get(run, OrderedDict()).get(said.call_id) if said.call_id else None
        if call is not None:
            call.taken = status == "ok"
