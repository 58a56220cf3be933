"""Commands coming in: who is meant, what the rules say, the orders that follow."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from checkrein.bus.messages import CommandRequest, CommandState, RunRecord, encode
from checkrein.bus.orders import STATE_VERBS
from checkrein.control import containment, rules
from checkrein.control.book import Book
from checkrein.control.commands import ARGUMENT_BYTES_MAX, Command, Line
from checkrein.control.containment import Containment
from checkrein.control.receipts import Receipts
from checkrein.control.records import ASKED, asked_record
from checkrein.control.registry import Run, Standing, TargetError, matches
from checkrein.control.types import Reply

VERBS = frozenset(
    {"pause", "resume", "halt", "redirect", "inject", "escalate", "approve", "deny", "rollback",
     "inspect", "contain", "release"}
)  # fmt: skip
TEXT_MAX = 2_000
_HALTED_TASK_KEPT_NS = 86_400 * 10**9


class Desk:
    def __init__(
        self, book: Book, receipts: Receipts,
        escalated: Callable[[Command, Iterable[RunRecord]], None], shut: Containment,
    ) -> None:  # fmt: skip
        self._book = book
        self._receipts = receipts
        self._escalated = escalated
        self._containment = shut
        self._halted_tasks: OrderedDict[str, Command] = OrderedDict()
        self._recent_halts: list[Command] = []

    def ask(self, request: CommandRequest, token: object) -> None:
        """Takes a command: its orders first, then everything else. `token` is answered when the
        command is done, or has waited `wait_ms`; None wants no answer."""
        book = self._book
        known = book.commands.get(request.command_id) if request.command_id else None
        if known is not None and not (known.rebuilt and known.verb == request.verb):
            if (known.verb, known.target) == (request.verb, request.target):
                self._wait(known, request, token)
            elif token is not None:
                why = f"command id {request.command_id} was used for {known.verb} {known.target}"
                book.out.append(Reply(token, encode(refusal(request, why))))
            return
        error = self._fault(request)
        runs: list[Run] = []
        contains = request.verb in containment.VERBS
        if not error and not contains:
            try:
                runs = book.registry.resolve(request.target)
            except TargetError as fault:
                error = str(fault)
        command = Command(
            command_id=request.command_id or book.world.uuid7(),
            verb=request.verb,
            target=request.target,
            reason=request.reason,
            issued_by=request.issued_by,
            asked_at=book.world.now_ns(),
            asked_ns=book.now,
            epoch=book.next_epoch(),
            arguments=request.arguments,
            error=error,
        )
        if contains and not error:
            self._containment.order(command)
        else:
            self._order(command, runs)
        book.keep(command)
        self.remember(command)
        book.backlog.extend((line, ASKED) for line in command.lines)
        book.audit("command", f"{command.command_id}/command", asked_record(command))
        book.touch(command)
        if command.verb == "escalate":
            self._escalated(command, [run.record for run in runs])
        self._wait(command, request, token)

    def late(self, run: Run) -> None:
        """A run has just registered. If it was on its way in when its agent, its room or everything
        was halted, or belongs to a task that was, it is halted, too."""
        if run.wanted == "halted" or run.ended:
            return
        command = self._halt_for(run)
        if command is None:
            return
        request = CommandRequest(
            verb="halt",
            target=f"run:{run.record.run_id}",
            reason=command.reason,
            issued_by=command.issued_by,
            arguments={"because_of": command.command_id},
            wait_ms=0,
        )
        self.ask(request, None)

    def remember(self, command: Command) -> None:
        """A halt reaches what is on its way in: see `late`."""
        if command.verb != "halt" or command.error:
            return
        if command.target.startswith("task:"):
            self._halted_tasks[command.target[5:]] = command
            if len(self._halted_tasks) > self._book.limits.halted_tasks_max:
                self._halted_tasks.popitem(last=False)
        elif not command.target.startswith("run:"):
            self._recent_halts = [*self._recent_halts[-99:], command]

    def _halt_for(self, run: Run) -> Command | None:
        now = self._book.now
        task = self._halted_tasks.get(run.record.task_id)
        if task is not None and now - task.asked_ns < _HALTED_TASK_KEPT_NS:
            return task
        window_ns = self._book.limits.late_registration_s * 1e9
        for command in self._recent_halts:
            if (
                now - command.asked_ns <= window_ns
                and run.record.started_at <= command.asked_at
                and matches(command.target, run.record)
            ):
                return command
        return None

    def _fault(self, request: CommandRequest) -> str:
        """Why a request is refused before anybody is asked, "" if it is not."""
        if request.verb not in VERBS:
            return f"no command {request.verb!r}; there are {', '.join(sorted(VERBS))}"
        for name in ("target", "reason", "issued_by", "command_id"):
            if len(getattr(request, name)) > TEXT_MAX:
                return f"`{name}` is longer than {TEXT_MAX} characters"
        if request.arguments and len(encode(request.arguments)) > ARGUMENT_BYTES_MAX:
            return f"the arguments are larger than {ARGUMENT_BYTES_MAX} bytes"
        step = request.arguments.get("expected_step")
        if step is not None and not isinstance(step, int):
            return "`expected_step` is not a number"
        return ""

    def _order(self, command: Command, runs: list[Run]) -> None:
        """Judges the command run by run, sends, and only then notes the rest."""
        verb, step = command.verb, command.arguments.get("expected_step")
        sending: list[tuple[Run, Line]] = []
        other: list[tuple[Run, Line, rules.Ruling]] = []
        for run in runs:
            record = run.record
            line = command.add(record.run_id, record.agent, record.session)
            ruling = rules.judge(verb, run.wanted, run.status, run.step, step)
            if ruling.act == "send" or (ruling.act == "join" and run.state_line is None):
                sending.append((run, line))
            else:
                other.append((run, line, ruling))
        book = self._book
        book.out.extend(book.delivery.open(command, (line for _, line in sending)))
        for run, line in sending:
            if verb in STATE_VERBS:
                self.want(run, line)
            run.open.append(line)
        for run, line, ruling in other:
            if ruling.act == "join" and run.state_line is not None:
                self._receipts.join(line, run.state_line, ruling.why)
            elif ruling.act == "nothing":
                line.obeyed_ms = 0.0
                self._receipts.close(line, "obeyed", ruling.why)
            else:
                self._receipts.close(line, "refused", ruling.why)

    def want(self, run: Run, line: Line) -> None:
        """A new state is wanted of a run: older lines yield, and the level is to be written."""
        command = line.command
        self._receipts.supersede(run, command.verb, command.command_id)
        run.wanted = rules.DESIRED_BY[command.verb]
        run.state_line = line
        run.acting_told = False
        run.standing = Standing(
            command.verb, line.epoch, command.command_id, command.reason, command.issued_by,
            command.asked_at, command.arguments,
        )  # fmt: skip
        self._book.level(run)
        self._book.changed(run)

    def _wait(self, command: Command, request: CommandRequest, token: object) -> None:
        if token is None:
            return
        limits = self._book.limits
        wait_ms = max(0, min(request.wait_ms, limits.wait_ms_max))
        if len(command.waiting) >= limits.waiters_max:
            wait_ms = 0
        until = self._book.now + wait_ms * 1_000_000
        command.waiting.append((until, token))
        if command.done:
            self._book.touch(command)
        elif wait_ms == 0:
            self._book.answer_overdue(command)
        else:
            self._book.wait(command, until)


def refusal(request: CommandRequest, error: str) -> CommandState:
    """The answer to a command that could not even be taken."""
    return CommandState(
        command_id=request.command_id,
        verb=request.verb,
        target=request.target,
        reason=request.reason,
        issued_by=request.issued_by,
        asked_at=0,
        done=True,
        error=error,
    )
