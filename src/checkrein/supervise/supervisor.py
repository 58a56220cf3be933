"""The supervisor: holds process trees from outside, and is the one who can say that they stopped.

One serves many units. Nothing on its loop waits for events, JetStream or a disk: shipping has a
process of its own. Orders come in as signed bytes, from the edge or from the level; what became of
them goes out as receipts.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from checkrein.bus.messages import RunRecord
from checkrein.bus.orders import Inbox
from checkrein.bus.pacts import OLD, REPEATED, Held, PactRefused, PactSet
from checkrein.bus.signed_pacts import PactInbox
from checkrein.sdk.kept_pacts import KeptPacts
from checkrein.sdk.local import Pacts
from checkrein.supervise import happenings as h
from checkrein.supervise import proc
from checkrein.supervise.alarms import Alarms
from checkrein.supervise.holding import Limits
from checkrein.supervise.journal import Journal, host_name
from checkrein.supervise.ladder import Ladder
from checkrein.supervise.leasing import Leasing
from checkrein.supervise.local import Peer, holdings_of
from checkrein.supervise.looking import Looking
from checkrein.supervise.orders import Orders
from checkrein.supervise.outcome import UNKNOWN_EXIT, Exit, bury
from checkrein.supervise.reports import Reports, progress_of
from checkrein.supervise.seeking import Seeking
from checkrein.supervise.session import can_name_an_agent
from checkrein.supervise.tree import Tree
from checkrein.supervise.unit import Unit
from checkrein.world import World

_log = logging.getLogger(__name__)
GRACE_MS = 1_000
LAST_WORDS_MS = 250


class Supervisor:
    """Serve with `async with supervisor.serving():`; `changed` is set when there is something for
    the link to send (receipts, registrations)."""

    def __init__(
        self,
        world: World,
        journal: Journal,
        *,
        room: str = "",
        environment: str = "",
        limits: Limits | None = None,
        reaps: bool = False,
    ) -> None:
        self.world = world
        self.journal = journal
        self.room = room
        self.environment = environment
        self.limits = limits if limits is not None else Limits()
        self.units: dict[str, Unit] = {}
        self.pacts: dict[str, str] = {}
        """Texts of local files by agent; "": for any."""
        self.pact_sets: dict[str, PactSet] = {}
        """What the server has put in force, by agent."""
        self.pact_inbox: PactInbox | None = None
        self.held_changed = asyncio.Event()
        self.kept_pacts = KeptPacts(None)
        """What the server said last, for starting while it is away."""
        self.reports = Reports()
        self.seeking = Seeking()
        self.leasing = Leasing()
        self.changed = asyncio.Event()
        self.to_register: dict[str, RunRecord] = {}
        self.needs: set[str] = set()
        self.session = ""
        self.inbox: Inbox | None = None
        self._reaps = reaps
        self._unit_of_run: dict[str, Unit] = {}
        self._finished: dict[Unit, asyncio.Event] = {}
        self.told_exits: dict[int, Exit] = {}
        """How processes ended whose parent is not this one, by pid: told by the front."""
        self._alarms: Alarms[Unit] = Alarms(world, self._ring)
        self._mains: set[int] = set()
        self._looking = Looking(world, self._answered, self.reap)
        self._orders = Orders(
            world, self._unit_of_run, self.reports, self._report, self._do_or_sweep, self.apply
        )
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            looking = tasks.create_task(self._looking.run())
            try:
                yield
            finally:
                looking.cancel()
                self._alarms.close()
                loop = asyncio.get_running_loop()
                for unit in self.units.values():
                    if unit.tree.pidfd >= 0:
                        loop.remove_reader(unit.tree.pidfd)
                    unit.tree.close()
                self._tasks = None

    # -- units ---------------------------------------------------------------------------------

    def take(
        self, tree: Tree, record: RunRecord, argv: Sequence[str] = (), again: bool = False
    ) -> Unit:
        """Supervises a held or running child from now on; its run is recorded as started. `again`:
        a supervisor before this one did so, and was killed. `record.level` is the protection that
        was really reached, and counts for every run of the tree."""
        record = msgspec.structs.replace(
            record, session=self.session, holder="supervisor", host=host_name(), pid=tree.main,
        )  # fmt: skip
        unit = Unit(tree.unit, tree, record.run_id, Ladder(self.limits), argv, level=record.level)
        self.units[unit.name] = unit
        self._mains.add(tree.main)
        tree.mains = self._mains
        self._finished[unit] = asyncio.Event()
        asyncio.get_running_loop().add_reader(tree.pidfd, self._main_gone, unit)
        if again:
            why = "its supervisor was killed; a new one has taken over"
            self.journal.status(record, 0, "running", why)
        else:
            self.journal.started(record, argv)
        self.began(unit, record)
        return unit

    async def finished(self, unit: Unit) -> Exit:
        """When the main process is gone, nobody of its tree is left and its runs have their end."""
        await self._finished[unit].wait()
        return unit.exit or UNKNOWN_EXIT

    def confined(self, unit: Unit, level: str) -> None:
        """Its main process stands behind walls that were tried."""
        unit.level = level
        for run in unit.runs.values():
            run.record = msgspec.structs.replace(run.record, level=level)
            if not run.over:
                self.to_register[run.record.run_id] = run.record
        run = unit.runs[unit.main_run]
        words = f"confined: {level}, tried from inside before it began"
        self.journal.status(run.record, run.step, run.status, words, {"level": level})
        self.changed.set()

    def forget(self, unit: Unit) -> None:
        """A finished unit is no longer reported, and gives back what it held."""
        self.units.pop(unit.name, None)
        self._mains.discard(unit.tree.main)
        self._finished.pop(unit, None)
        for run_id in unit.runs:
            self._unit_of_run.pop(run_id, None)
        unit.tree.close()

    def forward(self, unit: Unit, number: int) -> None:
        """Passes a signal on to the unit's process group."""
        unit.sent = number
        unit.tree.forward(number)

    def run_ids(self) -> list[str]:
        """The runs that are not over."""
        return [r for unit in self.units.values() for r, run in unit.runs.items() if not run.over]

    def records(self) -> list[RunRecord]:
        """All runs that are not over, as they are registered."""
        return [
            run.record for unit in self.units.values() for run in unit.runs.values() if not run.over
        ]

    def join_session(self, session: str, inbox: Inbox) -> None:
        """Orders are accepted through this inbox from now on; all runs register with it."""
        self.session, self.inbox = session, inbox
        for unit in self.units.values():
            for run in unit.runs.values():
                run.record = msgspec.structs.replace(run.record, session=session)
                if not run.over:
                    self.to_register[run.record.run_id] = run.record
        self.changed.set()

    # -- pacts ---------------------------------------------------------------------------------

    def hear_pact(self, signed: bytes) -> None:
        """A set of pacts, from wherever; passed on at once to every process that is connected."""
        if self.pact_inbox is None:
            return
        try:
            pact_set = self.pact_inbox.accept(signed)
        except PactRefused as error:
            if error.why not in (OLD, REPEATED):
                _log.warning("%s", error)
            return
        self.adopt(pact_set)

    def adopt(self, pact_set: PactSet) -> None:
        """From now on this holds for its agent, here and in every process of its own."""
        self.pact_sets[pact_set.agent] = pact_set
        self.kept_pacts.keep(pact_set, self.world.now_ns())
        for unit in self.units.values():
            for peer in unit.peers:
                peer.send(Pacts(sets=[pact_set]))
        self.held_changed.set()

    def held(self, agents: Iterable[str]) -> Held:
        """What the processes here say they enforce, those that say the same as one."""
        inbox = self.pact_inbox
        return Held(
            session=self.session, environment=self.environment, at=self.world.now_ns(),
            revisions={a: inbox.revision(a) if inbox is not None else 0 for a in agents},
            holdings=holdings_of(peer for unit in self.units.values() for peer in unit.peers),
        )  # fmt: skip

    # -- orders --------------------------------------------------------------------------------

    def deliver(self, signed: bytes) -> None:
        """An order, from wherever. What must not be obeyed is counted and said."""
        if self.inbox is None:
            return
        self._orders.deliver(self.inbox, signed)
        self.changed.set()

    @property
    def orders_refused(self) -> int:
        return self._orders.refused

    # -- what the ladders want -----------------------------------------------------------------

    def apply(self, unit: Unit, acts: list[h.Act]) -> None:
        """Does what a unit's ladder wants."""
        captured = any(isinstance(act, h.Capture) for act in acts)
        for act in acts:
            if isinstance(act, h.Mark):
                # What is captured is recorded with the status, in one event.
                self._mark(unit, act, silent=captured and act.run_id == unit.main_run)
            else:
                self._do_or_sweep(unit, act)
        self._set_timer(unit)

    def _do_or_sweep(self, unit: Unit, act: h.Act) -> None:
        try:
            self._do(unit, act)
        except OSError as error:
            _log.warning("unit %s: its cgroup fails (%s); sweeping instead", unit.name, error)
            unit.tree.leaf = None
            self._do(unit, act)

    def _do(self, unit: Unit, act: h.Act) -> None:
        match act:
            case h.Report():
                self._report(act)
            case h.Tell():
                unit.tell(act)
            case h.Freeze():
                unit.freezes += 1
                unit.tree.freeze()
                self._looking.freezing(unit, self.limits.freeze_ms)
            case h.Thaw():
                self._looking.drop(unit)
                unit.tree.thaw()
            case h.Capture():
                self._looking.capturing(unit)
            case h.Kill():
                unit.tree.strike()
                self._looking.killing(unit, self.limits.kill_ms)
            case h.Mark():
                self._mark(unit, act, silent=False)
            case h.Revoke(run_id):
                run = unit.runs.get(run_id)
                if run is not None:
                    self.to_register.pop(run_id, None)

    def _mark(self, unit: Unit, mark: h.Mark, silent: bool) -> None:
        run = unit.runs.get(mark.run_id)
        if run is None or run.ending is not None:
            return
        run.status, run.reason = mark.status, mark.reason
        if not silent and (mark.status == "halted" or run.owner is None):
            self.journal.status(run.record, run.step, mark.status, mark.reason)

    def _answered(self, unit: Unit, happened: h.Happened) -> None:
        """From the watcher."""
        if isinstance(happened, h.Captured) and unit.ladder.halting:
            run = unit.runs.get(unit.main_run)
            if run is not None and run.ending is None:
                self.journal.status(
                    run.record, run.step, run.status, run.reason, {"capture": happened.detail}
                )
        self.feed(unit, happened)

    def feed(self, unit: Unit, happened: h.Happened) -> None:
        self.apply(unit, unit.ladder.step(self.world.monotonic_ns(), happened))

    def _set_timer(self, unit: Unit) -> None:
        if unit.ladder.wake_at_ns is not None:
            self._alarms.set(unit, unit.ladder.wake_at_ns)

    def _ring(self, unit: Unit) -> None:
        wake_at_ns = unit.ladder.wake_at_ns
        if wake_at_ns is not None and wake_at_ns <= self.world.monotonic_ns():
            self.feed(unit, h.Tick())

    # -- the end of a process ------------------------------------------------------------------

    def _main_gone(self, unit: Unit) -> None:
        asyncio.get_running_loop().remove_reader(unit.tree.pidfd)
        unit.died(bury(unit.tree.pidfd))
        self.feed(unit, h.Died())
        if self._tasks is not None:
            self._tasks.create_task(self._see_off(unit))

    async def _see_off(self, unit: Unit) -> None:
        """Its last words are read, and whoever outlived it ends, too."""
        main = unit.tree.main
        await self._until(lambda: not unit.peers, LAST_WORDS_MS)
        if unit.exit == UNKNOWN_EXIT:
            await self._until(lambda: main in self.told_exits, LAST_WORDS_MS)
            unit.exit = self.told_exits.pop(main, UNKNOWN_EXIT)
        if not unit.ladder.halting:
            await self._until(lambda: unit.ladder.halting or not unit.tree.survivors(), GRACE_MS)
        if unit.ladder.halting:  # then the ladder kills what is left
            while not unit.ladder.done:
                await self._until(lambda: unit.ladder.done, GRACE_MS)
        left = unit.tree.survivors()
        if left:
            _log.warning(
                "%d process(es) outlived the program and were stopped: %s",
                len(left), ", ".join(map(str, left[:8])),
            )  # fmt: skip
            unit.tree.kill()
            self._looking.killing(unit, self.limits.kill_ms)
            while unit.tree.survivors():
                await self._until(lambda: not unit.tree.survivors(), GRACE_MS)
        self._finish(unit)

    async def _until(self, true: Callable[[], bool], ms_max: int) -> None:
        until_ns = self.world.monotonic_ns() + ms_max * 1_000_000
        pause_s = 0.001
        while not true() and self.world.monotonic_ns() < until_ns:
            await self.world.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)

    def _finish(self, unit: Unit) -> None:
        if self._finished[unit].is_set():
            return
        self.feed(unit, h.Gone())
        for run_id in unit.runs:
            self.to_register.pop(run_id, None)
        for run in unit.end_runs():
            if run.ending is not None:
                self.journal.ended(run.record, run.step, run.ending, unit.exit or UNKNOWN_EXIT)
        self._finished[unit].set()
        self.changed.set()

    def reap(self) -> None:
        """Buries the orphans that came to this process and ended, if that is its business: they
        would pile up for as long as the program runs."""
        if self._reaps:
            trees = [unit.tree for unit in self.units.values()]
            kept = {pid for tree in trees for pid in (tree.main, *tree.without)}
            with suppress(proc.CannotLook):  # the next time, then
                proc.reap_others(kept)

    def began(
        self, unit: Unit, record: RunRecord, owner: Peer | None = None, named: bool = False
    ) -> None:
        """A run began in a unit, or was adopted. One that is another unit's is not taken."""
        holder = self._unit_of_run.get(record.run_id)
        if holder is not None and holder is not unit:
            _log.warning("run %s is another unit's, not of unit %s", record.run_id, unit.name)
            return
        self.apply(unit, unit.began(record, self.world.monotonic_ns(), owner, named))
        if record.run_id in unit.runs:
            self._unit_of_run[record.run_id] = unit
            self.to_register[record.run_id] = unit.runs[record.run_id].record
            self.need([record.agent])
            self.changed.set()

    def need(self, agents: Iterable[str]) -> None:
        """The session is to speak for these, too; not for names that the server does not take."""
        for agent in agents:
            if can_name_an_agent(agent):
                self.needs.add(agent)
            else:
                _log.warning("%r cannot name an agent: its events are not sent", agent[:80])

    # -- small -----------------------------------------------------------------------------------

    def _report(self, report: h.Report, nonce: str = "") -> None:
        self.reports.add(progress_of(report, self.session, self.world.now_ns(), nonce))
        self.changed.set()
