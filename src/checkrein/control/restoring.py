"""After a restart of control: what the buckets hold becomes its state again."""

from collections.abc import Iterable

from checkrein.bus.messages import CommandState, Order, RunRecord
from checkrein.bus.orders import STATE_VERBS
from checkrein.control import rules
from checkrein.control.asking import Desk
from checkrein.control.book import Book
from checkrein.control.commands import Command, Line, command_of_order, command_of_state
from checkrein.control.receipts import Receipts
from checkrein.control.records import ANSWERED, ASKED
from checkrein.control.registry import Run, Standing

TOLD_AGAIN_MS = 600_000.0


def restore(
    book: Book,
    desk: Desk,
    receipts: Receipts,
    runs: Iterable[RunRecord],
    commands: Iterable[CommandState],
    levels: Iterable[Order],
) -> None:
    """Runs, then commands with the levels; then the open lines are delivered again.

    A run, its level and its command are written at different moments, so any of them may be
    missing: a level without its command makes the command anew; a command without its level becomes
    the level if it is the newest; lines without their run wait for it to register (`adopt`).
    """
    now, now_at = book.now, book.world.now_ns()
    for record in runs:
        book.registry.register(record.session, record, now)
    for state in sorted(commands, key=lambda state: state.epoch):
        command = command_of_state(state, now, now_at)
        book.keep(command)
        desk.remember(command)
        if command.ms_since(now) < TOLD_AGAIN_MS:
            _tell_again(book, command)
    for order in levels:
        _level(book, order)
    lines = [line for command in book.commands.values() for line in command.lines]
    for line in sorted(lines, key=lambda line: line.command.epoch):
        run = book.registry.runs.get(line.run_id)
        if run is not None:
            _attach(book, receipts, run, line)
        elif line.open and line.run_id:
            book.orphans.setdefault(line.run_id, []).append(line)
    for command in list(book.commands.values()):
        still_open = [line for line in command.lines if line.open and line.session and _leads(line)]
        book.out.extend(book.delivery.open(command, still_open))


def adopt(book: Book, receipts: Receipts, run: Run) -> None:
    """A run has registered for which lines of before a restart are waiting."""
    for line in book.orphans.pop(run.record.run_id, []):
        if line.session in ("", run.record.session):
            line.session = ""
            _attach(book, receipts, run, line)
            if line.open and _leads(line):
                book.out.extend(book.delivery.open(line.command, [line]))


def _leads(line: Line) -> bool:
    return line.leader is None


def _attach(book: Book, receipts: Receipts, run: Run, line: Line) -> None:
    """Ties a line to its run, older lines first; the newest state wins."""
    command = line.command
    line.session = run.record.session
    if command.verb not in STATE_VERBS:
        if line.open:
            run.open.append(line)
        return
    if line.outcome in ("refused", "superseded") or not line.epoch:
        return
    leader = run.state_line
    if leader is not None and leader.command.verb == command.verb == "halt":
        _halted_twice(receipts, leader, line)
        return
    if line.epoch != command.epoch:
        if leader is not None and leader.epoch == line.epoch:
            if line.open:
                receipts.join(line, leader, f"{run.wanted} already")
            return
        # What it had joined is not on record: now it is an order of its own.
        line.epoch = command.epoch
    if run.wanted == "halted" and command.verb != "halt":
        receipts.close(line, "superseded", "superseded by a halt")
        return
    receipts.supersede(run, command.verb, command.command_id)
    run.wanted = rules.DESIRED_BY[command.verb]
    run.state_line = line
    run.standing = Standing(
        command.verb, line.epoch, command.command_id, command.reason, command.issued_by,
        command.asked_at, command.arguments,
    )  # fmt: skip
    book.level(run)
    if line.open:
        run.open.append(line)


def _halted_twice(receipts: Receipts, first: Line, second: Line) -> None:
    """Two halts of one run: both live by the receipts of the one that has them."""
    if first.open and not second.open:
        receipts.join(first, second, "halted already")
    elif second.open:
        receipts.join(second, first, "halted already")


def _level(book: Book, order: Order) -> None:
    """A standing order from the bucket, for which there may be no command."""
    known = book.commands.get(order.command_id)
    for target in order.runs:
        if known is not None and target.run_id in known.of_run:
            continue
        command = known or command_of_order(order, book.now, book.world.now_ns(), target.epoch)
        run = book.registry.runs.get(target.run_id)
        agent = "" if run is None else run.record.agent
        line = command.add(target.run_id, agent, order.session)
        line.epoch = target.epoch
        if known is None:
            book.keep(command)
        book.touch(command)
        book.backlog.append((line, ASKED))
        known = command


def _tell_again(book: Book, command: Command) -> None:
    for line in command.lines:
        book.backlog.append((line, ASKED))
        if not line.open:
            book.backlog.append((line, ANSWERED))
