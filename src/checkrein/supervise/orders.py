"""Orders as they come in: to which units they go, and what is said of them at once."""

import logging
from collections.abc import Callable, Mapping

import msgspec

from checkrein.bus.messages import Order
from checkrein.bus.orders import Accepted, Inbox, OrderRefused
from checkrein.supervise import happenings as h
from checkrein.supervise.reports import Reports
from checkrein.supervise.unit import Unit
from checkrein.world import World

_log = logging.getLogger(__name__)


class Orders:
    """`unit_of_run`: who holds which run now. `report(report, nonce)` sends one receipt; `act` does
    one thing of a unit's ladder at once, `apply` all that it wants."""

    def __init__(
        self, world: World, unit_of_run: Mapping[str, Unit], reports: Reports,
        report: Callable[..., None], act: Callable[[Unit, h.Act], None],
        apply: Callable[[Unit, list[h.Act]], None],
    ) -> None:  # fmt: skip
        self._world, self._unit_of_run, self._reports = world, unit_of_run, reports
        self._report, self._act, self._apply = report, act, apply
        self.refused = 0

    def deliver(self, inbox: Inbox, signed: bytes) -> None:
        """An order, from wherever. What must not be obeyed is counted and said."""
        at_ns = self._world.monotonic_ns()
        try:
            accepted = inbox.accept(signed)
        except OrderRefused as error:
            self.refused += 1
            _log.warning("%s", error)
            why = f"{error.why}: {error.detail}"
            self._report(h.Report(error.command_id, "", 0, "refused", 0.0, detail=why))
            return
        order = accepted.order
        if order.verb == "probe":
            self._probe(order, at_ns)
        else:
            self._obey(accepted, at_ns)

    def _obey(self, accepted: Accepted, at_ns: int) -> None:
        order = accepted.order
        if order.verb in ("approve", "deny"):  # who waits for it asks again, and is answered
            for run in accepted.runs:
                unit = self._unit_of_run.get(run.run_id)
                if unit is not None:
                    unit.tell(
                        h.Tell(
                            order.command_id, order.verb, run.run_id, run.epoch, order.reason,
                            order.issued_by, order.arguments,
                        )
                    )  # fmt: skip
            return
        by_unit: dict[Unit, list[tuple[str, int]]] = {}
        for run in accepted.runs:
            unit = self._unit_of_run.get(run.run_id)
            if unit is None:
                self._refuse(order, run.run_id, run.epoch, "no such run here")
            else:
                by_unit.setdefault(unit, []).append((run.run_id, run.epoch))
        later: list[tuple[Unit, list[h.Act]]] = []
        for unit, runs in by_unit.items():
            ordered = h.Ordered(
                order.command_id, order.verb, tuple(runs), order.reason, order.issued_by,
                order.arguments,
            )  # fmt: skip
            if order.verb == "inspect":
                self._inspect(unit, ordered, at_ns)
            else:
                acts = unit.ladder.step(at_ns, ordered)
                for act in acts:
                    if isinstance(act, h.Freeze):
                        self._act(unit, act)
                later.append((unit, [act for act in acts if not isinstance(act, h.Freeze)]))
        for unit, acts in later:  # while the kernel is stopping them
            self._apply(unit, acts)
        epochs = {run.run_id: run.epoch for run in order.runs}
        for run_id, why in accepted.refused:
            if run_id in accepted.again:
                self._reports.again(order.command_id, run_id)
            else:
                self._refuse(order, run_id, epochs.get(run_id, 0), why)

    def _probe(self, order: Order, at_ns: int) -> None:
        """Can this be stopped now? Asked of the kernel, for the tree each run is in."""
        for run in order.runs:
            unit = self._unit_of_run.get(run.run_id)
            reach = unit is not None and unit.can_signal()
            said = f"{unit.level} {unit.tree.method}" if unit is not None else "no such run here"
            self._report(
                h.Report(
                    order.command_id, run.run_id, run.epoch, "probe", self._ms(at_ns),
                    confirmed=reach, detail=said,
                ),
                order.nonce,
            )  # fmt: skip

    def _inspect(self, unit: Unit, ordered: h.Ordered, at_ns: int) -> None:
        found = msgspec.json.encode(unit.tree.capture()).decode()
        for run_id, epoch in ordered.runs:
            report = h.Report(
                ordered.command_id, run_id, epoch, "obeyed", self._ms(at_ns),
                confirmed=True, detail=found,
            )  # fmt: skip
            self._report(report)

    def _refuse(self, order: Order, run_id: str, epoch: int, why: str) -> None:
        self._report(h.Report(order.command_id, run_id, epoch, "refused", 0.0, detail=why))

    def _ms(self, at_ns: int) -> float:
        return round((self._world.monotonic_ns() - at_ns) / 1e6, 3)
