"""Runs are registered with control, which answers with what stands ordered of them."""

from collections.abc import Callable

from checkrein.bus import subjects
from checkrein.bus.messages import Holder, Registered, Registration, decode, encode
from checkrein.bus.types import Bus
from checkrein.sdk import quiet
from checkrein.sdk.links.records import record_of
from checkrein.sdk.links.types import Process


class Registering:
    """Of one process. `kind`: which holder of runs it is."""

    def __init__(self, process: Process, kind: Holder) -> None:
        self._process, self._kind = process, kind
        self._done: set[str] = set()

    def again(self) -> None:
        """Control may have forgotten: all runs are registered once more."""
        self._done.clear()

    async def run(self, control: Bus, session: str, accept: Callable[[bytes], None]) -> None:
        """Registers the runs that are not yet; `accept` is told the signed orders that control
        answers with and those that stand in the bucket. Raises BusError."""
        runs = [
            run for run in list(self._process.runs.values())
            if run.run_id not in self._done and not run.inherited
        ]  # fmt: skip
        if not runs:
            return
        environment = self._process.config.environment
        records = [record_of(run, environment, session, self._kind) for run in runs]
        message = encode(Registration(session=session, runs=records))
        data = await control.request(subjects.registration(session), message)
        answer = decode(data, Registered)
        if answer.error:
            quiet.warn_once("registration", "checkrein: runs not registered: %s", answer.error)
        self._done.update(run.run_id for run in runs)
        for signed in answer.orders:
            accept(signed)
        for run in runs:
            key = subjects.desired_key(session, run.run_id)
            entry = await control.last_value(subjects.BUCKET_DESIRED, key)
            if entry is not None and entry.value:
                accept(entry.value)
