"""What the parts of control share: the runs, the commands, and what this step is to bring about."""

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable

from checkrein.bus.messages import CommandState, encode
from checkrein.control.commands import Command, Line
from checkrein.control.delivery import Delivery
from checkrein.control.registry import Registry, Run
from checkrein.control.rules import NOT_GUARANTEED
from checkrein.control.signing import OrderSigner
from checkrein.control.types import Action, Audit, Changed, Limits, Reply, Save, Tell
from checkrein.world import World

EPOCHS_PER_GENERATION = 1_000_000
EPOCHS_RESERVE = 500_000
STATE_BYTES_MAX = 1_500_000
"""A command's state must fit a message: beyond it, lines that are closed are left out first."""
LINE_BYTES = 300


class OutOfEpochs(RuntimeError):
    """The generation's epochs are used up and the next one was not reserved in time."""


class Book:
    """Shared state. `out` is what the step under way returns; `backlog` is what may be told later
    (line, kind of record), in order."""

    def __init__(self, signer: OrderSigner, world: World, limits: Limits, generation: int) -> None:
        self.world = world
        self.limits = limits
        self.registry = Registry(limits)
        self.delivery = Delivery(signer, world, limits)
        self.commands: OrderedDict[str, Command] = OrderedDict()
        self.lines_count = 0
        self.out: list[Action] = []
        self.backlog: deque[tuple[Line, int]] = deque()
        self.orphans: dict[str, list[Line]] = {}
        """Open lines, from before a restart, of runs that are not registered (any more, or yet)."""
        self.busy_ns = 0
        """When something urgent came last: what can wait does."""
        self.touched: dict[str, Command] = {}
        self.epoch = generation * EPOCHS_PER_GENERATION
        self.epoch_end = self.epoch + EPOCHS_PER_GENERATION
        self.waits: list[tuple[int, int, Command]] = []
        self._waits_count = 0
        self.forged = 0
        self.stray = 0

    def next_epoch(self) -> int:
        if self.epoch + 1 >= self.epoch_end:
            raise OutOfEpochs("no epoch left: restart the role control")
        self.epoch += 1
        return self.epoch

    @property
    def now(self) -> int:
        return self.world.monotonic_ns()

    def touch(self, command: Command) -> None:
        """The command changed: saved, shown, and answered if it is done, at the end of the step."""
        self.touched[command.command_id] = command

    def flush(self) -> list[Action]:
        """Ends the step."""
        for command in self.touched.values():
            self.out.append(Save("command", command.command_id))
            self.out.append(Changed("command", command.command_id))
            if command.done and command.waiting:
                self._answer(command, [token for _, token in command.waiting])
                command.waiting = []
        self.touched.clear()
        out, self.out = self.out, []
        return out

    def _answer(self, command: Command, tokens: Iterable[object]) -> None:
        data = encode(self.state_of(command))
        self.out.extend(Reply(token, data) for token in tokens)

    def wait(self, command: Command, until: int) -> None:
        self._waits_count += 1
        heapq.heappush(self.waits, (until, self._waits_count, command))

    def answer_waits(self) -> None:
        while self.waits and self.waits[0][0] <= self.now:
            self.answer_overdue(heapq.heappop(self.waits)[2])

    def answer_overdue(self, command: Command) -> None:
        """Those who would wait no longer get the state as it is."""
        now = self.now
        overdue = [token for until, token in command.waiting if until <= now]
        if overdue:
            command.waiting = [entry for entry in command.waiting if entry[0] > now]
            self._answer(command, overdue)

    def state_of(self, command: Command) -> CommandState:
        lines = command.lines
        most = STATE_BYTES_MAX // LINE_BYTES
        if len(lines) > most:
            lines = sorted(lines, key=lambda line: not line.open)[:most]
        return command.state([line.shown(self.note_of(line)) for line in lines])

    def note_of(self, line: Line) -> str:
        """A line's note; while it is open and overdue, what is known of why."""
        command, now = line.command, self.now
        if not line.open or command.ms_since(now) < self.limits.unconfirmed_after_s * 1e3:
            return line.note
        run = self.registry.runs.get(line.run_id)
        said = f" ({line.note})" if line.note else ""
        if run is None:
            return f"not confirmed{said}"
        waited = f"not confirmed after {command.ms_since(now) / 1e3:.0f} s{said}"
        silent_s = (now - run.heard_ns) / 1e9
        if silent_s > self.limits.silent_after_s:
            return f"{waited}: cut off for {silent_s:.0f} s; takes effect when it comes back"
        if line.confirmed == "gateway" and command.verb == "halt":
            return f"{waited}: its calls are refused at the gateway, its process is not stopped yet"
        if line.delivered_ms is None:
            return f"{waited}: its {run.record.holder} has not answered; asked again until it does"
        if run.record.holder == "sdk" and command.verb == "halt":
            return f"{waited}: {NOT_GUARANTEED}"
        return f"{waited}: delivered, not yet obeyed"

    def keep(self, command: Command) -> None:
        """Takes a new command in; the oldest finished ones make room."""
        self.commands[command.command_id] = command
        self.lines_count += len(command.lines)
        limits = self.limits
        if len(self.commands) <= limits.commands_max and self.lines_count <= limits.lines_max:
            return
        for old in list(self.commands.values()):
            if old.done and old is not command:
                self.lines_count -= len(old.lines)
                del self.commands[old.command_id]
                self.out.append(Save("command", old.command_id))
                if (
                    len(self.commands) <= limits.commands_max
                    and self.lines_count <= limits.lines_max
                ):
                    return

    def level(self, run: Run) -> None:
        self.out.append(Save("level", f"{run.record.session}.{run.record.run_id}"))

    def audit(self, kind: str, record_id: str, record: dict[str, object]) -> None:
        self.out.append(Audit(kind, record_id, record))

    def tell(self, event: object) -> None:
        self.out.append(Tell(event))  # type: ignore[arg-type] # only records.py makes them

    def changed(self, run: Run) -> None:
        self.out.append(Changed("run", run.record.run_id))
