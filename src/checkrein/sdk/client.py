"""A process as Checkrein knows it: its recorder, its link, its runs."""

import getpass
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from checkrein.bus.pacts import Holding, PactSet
from checkrein.events import types as events
from checkrein.policy import prices
from checkrein.sdk import config as configs
from checkrein.sdk import declared, quiet
from checkrein.sdk.asking import Question
from checkrein.sdk.config import Config
from checkrein.sdk.guard import Seat
from checkrein.sdk.kept_pacts import KeptPacts
from checkrein.sdk.links.types import Link, NoLink, Process, nobody
from checkrein.sdk.pacts import Pacts, make_seat
from checkrein.sdk.pulse import Pulse
from checkrein.sdk.purse import Purses
from checkrein.sdk.run import RUN, Run
from checkrein.sdk.traceparent import task_of
from checkrein.sdk.types import Recording, RunInfo
from checkrein.world import REAL, World

CONTACT_WAIT_S = 2.0
"""How long the first run may wait to learn whether there is a server, and its pact."""
CLOSE_WAIT_S = 2.0
RUNS_MAX = 10_000
"""Live runs of one process; further ones are recorded but take no orders."""
TOOLS_NAMED_MAX = 200


class Client:
    """Safe from any thread. Methods never raise an Exception into the agent."""

    def __init__(
        self,
        config: Config,
        recorder: Recording,
        place: Callable[[RunInfo, Config], Any],
        make_link: Callable[[Process], Link],
        world: World = REAL,
        *,
        host: bool = True,
    ) -> None:
        """`given` stays what was asked for; `config` is what holds. `host`: the runs are of
        programs in this process, which their beginning tells of."""
        self.config = self.given = config
        self.recorder = recorder
        self.link: Link = NoLink()
        self._make_link = make_link
        self._host = host
        self._pulse: Pulse | None = None
        self.world = world
        self.runs: dict[str, Run] = {}
        self.purses = Purses(world, lambda: self.link)
        self.started_ns = world.monotonic_ns()
        self._pacts = Pacts(self.runs, world, KeptPacts(_kept_folder(config)))
        self._place = place
        self._lock = threading.RLock()
        self._ambient: Run | None = None
        self._adopted = False
        self._settled = False
        self._ids = itertools.count(1)
        self._ids_prefix = f"{world.nonce()[:10]}-"

    @property
    def connected(self) -> bool:
        return self.link.connected

    def place(self, info: RunInfo) -> Any:
        return self._place(info, self.config)

    def start(self) -> None:
        """Starts the link and the pulse, each in a thread of its own."""
        with quiet.quiet("starting the link"):
            self.link = self._make_link(self)
            self.link.start()
        self._pulse = Pulse(
            self.runs, self.recorder, self.world, self.started_ns, also=self.purses.tick
        )
        self._pulse.start()

    def lives_in(self, room: str, environment: str) -> None:
        """What the supervisor says of this process."""
        changes = {}
        if room and not self.config.room:
            changes["room"] = room
        if environment:
            changes["environment"] = environment
        if changes:
            self.config = msgspec.structs.replace(self.config, **changes)

    def recalled(self, lines: Sequence[str]) -> None:
        """Somebody waits for what these lines of shared budgets hold."""
        with quiet.quiet("giving back a lease"):
            self.purses.recalled(lines)

    def forked(self) -> None:
        """In a forked child: the runs are the parent's, the recorder is our own, and the threads
        start with the first call."""
        self._lock = threading.RLock()
        self.link = NoLink()
        self._pulse = None
        self.purses.forked()
        self._pacts.forked()
        for run in self.runs.values():
            run.forked()
        self._ids_prefix = f"{self.world.nonce()[:10]}-"
        self.next_call_id = self._first_call_id  # type: ignore[method-assign] # until the first call

    def _first_call_id(self) -> str:
        del self.next_call_id
        self.start()
        return self.next_call_id()

    def next_call_id(self) -> str:
        return f"{self._ids_prefix}{next(self._ids):x}"

    # -- runs ---------------------------------------------------------------------------------

    def new_run(
        self, goal: str, task_type: str, agent: str, room: str, labels: Mapping[str, str],
        traceparent: str,
    ) -> Run:  # fmt: skip
        """A run that has not begun yet. The first one of a supervised process is the process's
        own; one inside another names it as parent. Raises Halted inside a halted one."""
        self._meet()
        parent = RUN.get()
        if parent is not None:
            parent.hold.check()
        if parent is not None and parent.ended:
            parent = None
        adopted = parent is None and self._claim()
        ours = self.config.run_id if not adopted else ""
        task_id = task_of(traceparent)
        if not task_id and parent is not None:
            task_id = parent.task_id
        info = RunInfo(
            run_id=self.config.run_id if adopted else self.world.uuid7(),
            task_id=task_id if task_id and not adopted else self._task_id(),
            agent=agent or self.config.agent,
            room=room or self.config.room,
            goal=goal,
            task_type=task_type,
            parent_run_id=parent.run_id if parent is not None else ours,
            labels=dict(labels),
            adopted=adopted,
        )
        return Run(self, info, self._seat(info.agent))

    def mirror(self, info: RunInfo) -> Run:
        """A run that another process began and will end, whose calls are judged here too: it obeys
        what is ordered of it, and nothing is said in its name."""
        run = Run(self, info, self._seat(info.agent))
        run.inherited = True
        self.runs[run.run_id] = run
        self._pacts.catch_up(run)
        return run

    def ambient(self) -> Run:
        """The run of code that is in no run: the supervisor's run of this process, or one that ends
        with the process."""
        run = self._ambient
        if run is not None and (not run.ended or run.hold.halted):
            return run
        self._meet()
        with self._lock:
            if self._ambient is not None and not self._ambient.ended:
                return self._ambient
            supervised = bool(self.config.run_id) and not self._adopted
            info = RunInfo(
                run_id=self.config.run_id if supervised else self.world.uuid7(),
                task_id=self._task_id(),
                agent=self.config.agent,
                room=self.config.room,
                parent_run_id="" if supervised else self.config.run_id,
                adopted=supervised,
                ambient=True,
            )
            self._ambient = run = Run(self, info, self._seat(info.agent))
            self.run_began(run)
            return run

    def run_began(self, run: Run) -> None:
        info, pact = run.info, run.seat.pact
        if info.adopted:
            if not info.ambient:
                run.record(
                    events.Status, status="running", reason="named", goal=info.goal,
                    task_type=info.task_type, detail={
                        "labels": info.labels, "pact": pact.pact, "pact_version": pact.version,
                    },
                )  # fmt: skip
        else:
            run.record(
                events.RunStart, goal=info.goal, task_type=info.task_type,
                parent_run_id=info.parent_run_id, pact=pact.pact, pact_version=pact.version,
                labels=info.labels, agent_version=self.config.agent_version,
                **(_process() if self._host else {}),
            )  # fmt: skip
        if len(self.runs) >= RUNS_MAX:
            quiet.warn_once("runs", "checkrein: more than %d live runs here", RUNS_MAX)
            return
        self.runs[run.run_id] = run
        self._pacts.catch_up(run)
        self._tell("began", run)

    def run_ended(self, run: Run) -> None:
        self.runs.pop(run.run_id, None)
        if not run.inherited:
            self._tell("ended", run)

    def changed(self, run: Run) -> None:
        self._tell("changed", run)

    def settled(self, run: Run) -> None:
        self._tell("settled", run)

    def ask(self, question: Question) -> None:
        try:
            self.link.ask(question)
        except Exception as error:
            quiet.fault("link.ask", error)
            question.told(nobody(question, f"the link failed: {type(error).__name__}"))

    def unask(self, question: Question) -> None:
        with quiet.quiet("link.unask"):
            self.link.unask(question)

    def halt_children(self, parent: Run, reason: str) -> None:
        """Runs of this process that were begun inside a halted one are halted with it."""
        for run in list(self.runs.values()):
            if run.info.parent_run_id == parent.run_id and run is not parent:
                run.halt(f"the run around it was halted: {reason}", parent.hold.rein.issued_by)

    def _tell(self, what: str, run: Run) -> None:
        try:
            getattr(self.link, what)(run)
        except Exception as error:
            quiet.fault(f"link.{what}", error)

    def _meet(self) -> None:
        """Before the first run: learns whether there is somebody at the other end, whose room and
        pact then hold."""
        if not self._settled:
            with self._lock:
                if not self._settled:
                    self.link.wait_settled(CONTACT_WAIT_S)
                    self._settled = True

    def _claim(self) -> bool:
        """True for the one run that may take over the supervisor's run: the first of the first
        process, and never one whose calls already went to it as the ambient run."""
        with self._lock:
            if not self.config.run_id or self._adopted:
                return False
            self._adopted = True
            if not self.config.supervisor:
                return True
            folder = Path(self.config.supervisor).parent
            claims = folder / "claims"  # all that a confined program may write of it
            folder = claims if claims.is_dir() else folder
            marker = folder / f"adopted-{self.config.run_id}"
            try:
                marker.touch(mode=0o600, exist_ok=False)
            except FileExistsError:
                return False
            except OSError as error:
                quiet.fault("adopting the process's run", error)
                return False
            return True

    def _task_id(self) -> str:
        return self.config.task_id or task_of(self.config.traceparent) or self.world.trace_id()

    # -- pacts and prices ---------------------------------------------------------------------

    def _seat(self, agent: str) -> Seat:
        """A guard for one run; see `sdk.pacts` for whose pact counts."""
        path = self.config.pact_path

        def local() -> tuple[str, str]:
            return (configs.pact_text(path), path) if path else ("", "")

        return self._pacts.seat(
            agent, self.link.pact_of(agent), local, not self.link.connected, make_seat,
            self.config.environment,
        )  # fmt: skip

    def adopt(self, pact_set: PactSet) -> str:
        """A set of pacts from the server; what went wrong, "" when nothing did."""
        return self._pacts.adopt(pact_set)

    def holdings(self) -> list[Holding]:
        """Which pact each agent of this process lives by."""
        agents = {self.config.agent, *(run.info.agent for run in list(self.runs.values()))}
        return self._pacts.holdings(sorted(agents))

    def price(self, provider: str, model: str, usage: tuple[int, int, int, int]) -> float | None:
        """US dollars, or None when no price is known."""
        try:
            return prices.cost(provider, model, usage[0], usage[1], usage[2])
        except Exception as error:
            quiet.fault("prices", error)
            return None

    # -- the end of the process, and its copies -----------------------------------------------

    def close(self) -> None:
        """At exit: ends what is open, says what is left to say."""
        run = self._ambient
        if run is not None and not run.ended and not run.inherited:
            run.end_step()
            if not run.info.adopted:
                run.end("halted" if run.hold.halted else "completed", run.hold.rein.reason)
        if self._pulse is not None:
            self._pulse.stop()
        with quiet.quiet("closing the purse"):
            self.purses.close()
        with quiet.quiet("closing the link"):
            self.link.close(CLOSE_WAIT_S)
        with quiet.quiet("closing the recorder"):
            self.recorder.close()


def _kept_folder(config: Config) -> Path | None:
    """Beside the recorders. Under a supervisor it is the supervisor who keeps pacts; without a
    server by choice (`off`) there is nobody whose last word would count."""
    if config.supervisor or not config.recorders or config.url == "off":
        return None
    return Path(config.recorders).parent / "pacts"


def _process() -> dict[str, Any]:
    return {
        "tools": declared.names()[:TOOLS_NAMED_MAX], "argv": sys.argv[:50], "pid": os.getpid(),
        "host": socket.gethostname(), "user": _user(),
    }  # fmt: skip


def _user() -> str:
    with suppress(Exception):
        return getpass.getuser()
    return ""
