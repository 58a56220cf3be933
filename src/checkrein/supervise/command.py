"""`checkrein run`: one program, supervised. The pieces in order, torn down in reverse.

front (this process)  ->  supervisor (forked)  ->  the program (forked, held, then released)
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgspec

from checkrein.bus.messages import RunRecord, SessionGrant
from checkrein.sdk.config import state_folder
from checkrein.sdk.kept_pacts import KeptPacts
from checkrein.supervise import after_death, first_pact, front, launch, proc
from checkrein.supervise.cgroup import Leaf
from checkrein.supervise.confine.keeping import Confinement, settle
from checkrein.supervise.confine.plan import CannotPlan, Plan
from checkrein.supervise.confine.shelf import Shelf
from checkrein.supervise.contact import Contact
from checkrein.supervise.from_front import FromFront
from checkrein.supervise.household import Household
from checkrein.supervise.journal import Journal, RingRecording, host_name
from checkrein.supervise.leftovers import Leftovers, is_empty
from checkrein.supervise.link import Link
from checkrein.supervise.local import LocalServer
from checkrein.supervise.options import Options, agent_environment, task_of
from checkrein.supervise.outcome import UNKNOWN_EXIT
from checkrein.supervise.place import Manifest, Place
from checkrein.supervise.run_key import NoGateway, RunKey
from checkrein.supervise.shipping import Shipping
from checkrein.supervise.sight import Sight
from checkrein.supervise.supervisor import Supervisor
from checkrein.supervise.terminal import Terminal
from checkrein.supervise.through_gateway import level_of
from checkrein.supervise.tree import hold, make_leaf
from checkrein.supervise.unit import Unit
from checkrein.supervise.witness import Witness, is_meant, usual_names
from checkrein.world import REAL, World

_log = logging.getLogger(__name__)
CONTACT_WAIT_S = 2.0
"""How long the program waits for the server before it starts without."""
GATEWAY_WAIT_S = 15.0
"""The same where it must not start without the gateway."""
BUS_S = 3.0
"""How long the end of the program may wait for its last events to be on the bus."""
SWITCH_INTERVAL_S = 0.0005
NOT_STARTED_EXIT = 125
"""What was to be supervised could not even be started as it was wanted."""
DEATH_SIGNALS = {"continue": 0, "pause": int(signal.SIGSTOP), "halt": int(signal.SIGKILL)}


def run(options: Options, world: World = REAL) -> int:
    """Runs the program to its end and returns its exit code as a shell would say it. Raises OSError
    when the state folder cannot be written, CannotPlan when it cannot be confined as wanted."""
    environ = options.environ
    run_id = world.uuid7()
    record = RunRecord(
        run_id=run_id,
        task_id=task_of(environ) or world.trace_id(),
        agent=options.agent,
        room=options.room,
        environment=options.environment,
        session="",
        holder="supervisor",
        started_at=world.now_ns(),
        host=host_name(),
        goal=" ".join(options.argv)[:500],
        parent_run_id=environ.get("CHECKREIN_RUN_ID", ""),
    )
    options = replace(options, confine=settle(options.confine))
    leaf, why_not = make_leaf(run_id, options.method)
    manifest = Manifest(
        run=record, argv=list(options.argv), agents=[options.agent],
        cgroup=str(leaf.path) if leaf is not None else "", lost_contact=options.lost_contact,
    )  # fmt: skip
    place = Place.make(manifest, environ)
    terminal_fd = launch.own_terminal()
    shelf = Shelf()

    def serve(words: int, died: int) -> int:
        service = _Service(options, world, place, terminal_fd, words, died, leaf, shelf)
        service.why_not_cgroup = why_not
        return service.main()

    def gave_up() -> None:
        after_death.give_up(place, leaf)

    return front.stand(serve, gave_up)


class _Service:
    """The supervisor's process."""

    def __init__(
        self, options: Options, world: World, place: Place, terminal_fd: int, words: int,
        died: int, leaf: Leaf | None, shelf: Shelf,
    ) -> None:  # fmt: skip
        self.options, self.world, self.place = options, world, place
        self.words, self.died, self.leaf = words, died, leaf
        self.terminal = Terminal(terminal_fd)
        self.front = FromFront(
            os.getppid(), words, self.terminal, lambda words: self._say(words, True)
        )
        self.why_not_cgroup = ""
        self.helpers: set[int] = set()
        self.walls = Confinement(world, options.confine, shelf, place, self.helpers)
        self.contact = Contact(options, again=bool(died))
        self.manifest = place.read() or Manifest(run=_nobody())
        self.key = RunKey(
            world, options.gateway, self.contact.endpoint, lambda words: self._say(words, True)
        )
        self.code = 1
        self._renewing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    def main(self) -> int:
        """The whole life of a supervisor; returns the program's exit code."""
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        proc.become_subreaper()
        launch.name_process("checkrein-super")
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        launch.allow_many_files()
        launch.calm()
        self.place.take()
        os.set_blocking(self.words, False)
        self.leftovers = Leftovers(self.options.environ, self.place)
        folders = [self.place.recorders, *self.leftovers.folders]
        self.shipping = Shipping(self.world, folders, self._shipped)
        self.shipping.start()
        self.helpers.add(self.shipping.pid)
        held = None
        if not self.died:
            held = launch.fork_held(self.leaf, self.terminal.fd, self.walls.shelf)
        try:
            asyncio.run(self._until_served(held))
        finally:
            self.terminal.give_back(self.code)
        return self.code

    async def _until_served(self, held: "launch.Held | None") -> None:
        try:
            await self._serve(held)
        finally:  # a child that ends while the loop is being closed would be told to a closed pipe
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    async def _serve(self, held: "launch.Held | None") -> None:
        recording = RingRecording(self.place.recorders, self.world)
        journal = Journal(self.world, recording)
        supervisor = Supervisor(
            self.world, journal, room=self.options.room, environment=self.options.environment,
            limits=self.options.limits, reaps=True,
        )  # fmt: skip
        supervisor.session = self.manifest.session
        supervisor.need(self.manifest.agents)
        supervisor.kept_pacts = KeptPacts(state_folder(self.options.environ).parent / "pacts")
        first_pact.begin_by_own(supervisor, self.options)
        leftovers, shipping = self.leftovers, self.shipping
        leftovers.report(journal)
        supervisor.need(leftovers.agents)
        link = Link(supervisor, self.contact.ask, self.contact.connect, self._granted(supervisor))
        async with supervisor.serving(), _serving_socket(self.place, supervisor) as self.local:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(link.run())
                    noting = tasks.create_task(self._note_changes(supervisor))
                    self.code = await self._supervise(held, supervisor, link, journal, tasks)
                    link.stop()
                    noting.cancel()
                    for task in (self._renewing, self._looking):
                        if task is not None:
                            task.cancel()
                    await link.close()
            finally:
                self.walls.close()
                recording.close()
                await shipping.stop(BUS_S)

    def _shipped(self) -> None:
        """In the shipping process, at its end: what is stored needs no folder any more."""
        self.leftovers.remove()
        if is_empty(self.place.recorders):
            self.place.remove()

    async def _supervise(
        self, held: "launch.Held | None", supervisor: Supervisor, link: Link, journal: Journal,
        tasks: asyncio.TaskGroup,
    ) -> int:  # fmt: skip
        await self._meet(supervisor, link)
        if self.why_not_cgroup:
            self._say(f"no cgroup ({self.why_not_cgroup}); sweeping instead", False)
        record = self.manifest.run
        if held is None:
            self.helpers.add(os.getpid())
            tree = after_death.adopt(self.manifest, self.leaf, self.front.pid, self.helpers)
            if tree is None:
                return await self._close_books(supervisor, journal)
            self.key.take_over(self.manifest.run_key)
            unit = supervisor.take(tree, record, self.options.argv, again=True)
            self._look_on(journal, unit, self.manifest.environment, tasks)
            self.walls.armed = True
            self.front.listen(supervisor, unit)
            await self._hear_standing(supervisor, link)
            if not unit.freezes:  # frozen by the one before, and not to stay so
                tree.thaw()
        else:
            tree = replace(
                hold(record.run_id, held.pid, leaf=self.leaf, alone=True), without=self.helpers
            )
            try:
                environment, record = await self._environment(held, supervisor, link.grant)
                plan, environment = self.walls.plan(
                    self.options.argv, environment, self.options.environ
                )
            except (NoGateway, CannotPlan) as error:
                self._say(f"not started: {error}", True)
                held.drop()
                self._remember(supervisor, ended=True)
                return NOT_STARTED_EXIT
            unit = supervisor.take(tree, record, self.options.argv)
            self.front.listen(supervisor, unit)
            self._remember(supervisor, confined=plan, environment=usual_names(environment))
            self._look_on(journal, unit, environment, tasks)
            try:
                await self._release(held, supervisor, environment, plan)
            except launch.CannotStart as error:
                self._say(str(error), True)
                await supervisor.finished(unit)
                self._remember(supervisor, ended=True)
                return error.exit_code
        self._remember(supervisor, main=tree.main, main_started=tree.started)
        if self.key.held:
            self._renewing = tasks.create_task(
                self.key.keep(
                    record, tree.main, lambda: supervisor.session, lambda: _is_halted(unit)
                )
            )
        exited = await supervisor.finished(unit)
        self._remember(supervisor, ended=True)
        self._last_line(unit)
        return exited.shell_code

    async def _meet(self, supervisor: Supervisor, link: Link) -> None:
        """Waits a little for the server; without it the last pact it gave is begun by."""
        with suppress(TimeoutError):
            always = self.options.gateway == "always"
            async with asyncio.timeout(GATEWAY_WAIT_S if always else CONTACT_WAIT_S):
                await link.settled.wait()
        if link.error:
            self._say(f"no contact with the server, recording locally: {link.error}", True)
            kept = first_pact.begin_by_kept(supervisor, self.options, self.world)
            if kept:
                self._say(kept, True)

    async def _environment(
        self, held: "launch.Held", supervisor: Supervisor, grant: SessionGrant | None
    ) -> tuple[dict[str, str], RunRecord]:
        """What the program is given, and its run with the level that this reaches. Raises
        NoGateway."""
        record, options = self.manifest.run, self.options
        access = await self.key.get(grant, record, held.pid)
        if options.confine.level:  # nothing else is to be reached
            options = replace(options, gateway="always")
        environment = agent_environment(options, self.place, self.manifest, access)
        record = msgspec.structs.replace(record, level=level_of(environment, access))
        self._remember(supervisor, run=record, run_key=access.key if access is not None else "")
        return environment, record

    def _look_on(
        self, journal: Journal, unit: Unit, environment: dict[str, str], tasks: asyncio.TaskGroup
    ) -> None:
        """What goes past the gateway is recorded from now on."""
        meant = self.options.gateway != "never" and is_meant(environment)
        self.witness = Witness(journal, lambda: unit, environment, meant)
        self.walls.open(self.manifest.confined, self.witness.tell, self.local.vouch)
        free = self.manifest.confined is None  # behind walls there is only work to be looked at
        sight = Sight(
            self.witness.tell, lambda *to: free and self.witness.interested(*to), self.helpers
        )
        self._looking = tasks.create_task(sight.keep(unit, self.world))

    async def _release(
        self, held: "launch.Held", supervisor: Supervisor, environment: dict[str, str],
        plan: Plan | None,
    ) -> None:  # fmt: skip
        """The program begins. Raises CannotStart."""
        options = self.options
        standing = supervisor.pact_sets.get(options.agent)
        lost = first_pact.lost_contact_of(standing, options.lost_contact)
        self._remember(supervisor, lost_contact=lost)
        watch = plan is None and self.witness.meant
        go = launch.Go(list(options.argv), environment, DEATH_SIGNALS[lost], plan, watch)
        # In a thread: while the walls are tried from inside, it is here that they stand.
        await asyncio.to_thread(held.release, go)
        self.walls.armed = True
        if plan is not None:
            for unit in supervisor.units.values():
                supervisor.confined(unit, plan.level)
            self._remember(supervisor, run=msgspec.structs.replace(self.manifest.run,
                                                                   level=plan.level))  # fmt: skip
            self._say(f"confined to {plan.level}", False)

    async def _close_books(self, supervisor: Supervisor, journal: Journal) -> int:
        """The program ended while no supervisor was there: with it, if its pact says so."""
        self.front.hear(supervisor)
        exited = supervisor.told_exits.get(self.manifest.main, UNKNOWN_EXIT)
        await after_death.stop_the_rest(
            self.manifest, self.leaf, self.front.pid, self.helpers, self.world,
            self.options.limits.kill_ms,
        )  # fmt: skip
        reason = after_death.close_books(self.manifest, exited, journal)
        self._remember(supervisor, ended=True)
        if reason:
            self._say(f"halted: {reason}", True)
        return exited.shell_code

    async def _hear_standing(self, supervisor: Supervisor, link: Link) -> None:
        """What is ordered of the run comes with its registration: a frozen one is not let go
        before that, unless there is no contact."""
        if link.error:
            return
        until_ns = self.world.monotonic_ns() + round(CONTACT_WAIT_S * 1e9)
        while supervisor.to_register and self.world.monotonic_ns() < until_ns:
            await self.world.sleep(0.005)

    # -- what a later supervisor must know ---------------------------------------------------

    def _granted(self, supervisor: Supervisor) -> Callable[[SessionGrant], None]:
        def granted(grant: SessionGrant) -> None:
            self.shipping.granted(grant)
            self._remember(supervisor)

        return granted

    async def _note_changes(self, supervisor: Supervisor) -> None:
        """What a later supervisor must know stands in the manifest within a second; shipping that
        died is started again."""
        while True:
            await self.world.sleep(1.0)
            self._remember(supervisor)
            self.place.take()  # a shipping process of the supervisor before may still have held it
            self.shipping.look()
            self.walls.look()
            self.helpers.add(self.shipping.pid)

    def _remember(self, supervisor: Supervisor, **more: object) -> None:
        agents = sorted(supervisor.needs)
        after = msgspec.structs.replace(
            self.manifest, session=supervisor.session, agents=agents, **more
        )
        if after != self.manifest:
            self.manifest = after
            with suppress(OSError):
                self.place.write(after)

    # -- words ---------------------------------------------------------------------------------

    def _last_line(self, unit: Unit) -> None:
        order = unit.ladder.halt_of(unit.main_run) if unit.ladder.halting else None
        if order is not None:
            issued_by = order.issued_by or "an operator"
            self._say(f"halted by {issued_by}: {order.reason or 'no reason given'}", True)

    def _say(self, words: str, always: bool) -> None:
        """One short line on standard error; only what is wrong unless `--verbose`."""
        if always or self.options.verbose:
            with suppress(OSError):
                os.write(2, f"checkrein: {words}\n".encode())


@asynccontextmanager
async def _serving_socket(place: Place, supervisor: Supervisor) -> AsyncIterator[LocalServer]:
    server = LocalServer(place.socket, Household(supervisor))
    await server.open()
    try:
        yield server
    finally:
        await server.close()


def _is_halted(unit: Unit) -> bool:
    main = unit.runs.get(unit.main_run)
    return unit.ladder.halting or (main is not None and main.status == "halted")


def _nobody() -> RunRecord:
    return RunRecord(run_id="", task_id="", agent="", room="", environment="", session="",
                     holder="supervisor", started_at=0)  # fmt: skip
