"""Orders on their way: signed, sent per session, sent again until every run has answered."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from checkrein.bus import subjects
from checkrein.bus.messages import Order, OrderRun
from checkrein.bus.orders import STATE_VERBS
from checkrein.control.commands import Command, Group, Line
from checkrein.control.registry import Run, Session
from checkrein.control.signing import OrderSigner
from checkrein.control.types import Limits, Send
from checkrein.world import World


class IssueClock:
    """The time written on orders: the wall clock's at the start, then only forwards, whatever the
    wall clock does, and over restarts. Holders judge expiry by it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ahead_ns = world.now_ns() - world.monotonic_ns()

    def not_before(self, issued_at: int) -> None:
        """Orders of an earlier start may carry this time: do not fall behind it."""
        self._ahead_ns = max(self._ahead_ns, issued_at - self._world.monotonic_ns())

    def now_ns(self) -> int:
        return self._world.monotonic_ns() + self._ahead_ns


class Delivery:
    """Makes signed orders and keeps the schedule of repeats. Knows nothing of what orders mean.

    One signature covers all runs of a session, so that a supervisor of a thousand runs gets one
    order. Repeats of a group: 100 ms, 200, 400 … 2 s while a run has not said "delivered"; each
    second while it has, but has not obeyed; each 10 s while the session is silent (and at once when
    it is heard of again).
    """

    def __init__(self, signer: OrderSigner, world: World, limits: Limits) -> None:
        self._signer = signer
        self._world = world
        self._limits = limits
        self.clock = IssueClock(world)
        self._groups: dict[str, list[Group]] = {}
        self._due: list[tuple[int, int, Group]] = []
        self._order = 0

    @property
    def due_ns(self) -> int | None:
        return self._due[0][0] if self._due else None

    def open(self, command: Command, lines: Iterable[Line], first_at_ns: int = 0) -> Iterator[Send]:
        """The first orders of a command, one for each session (yielded as they are signed); their
        repeats are scheduled."""
        by_session: dict[str, list[Line]] = {}
        for line in lines:
            by_session.setdefault(line.session, []).append(line)
        most = self._limits.runs_per_order_max
        now = self._world.monotonic_ns()
        for session, its in by_session.items():
            for at in range(0, len(its), most):
                part = its[at : at + most]
                group = Group(command, session, {line.run_id: line for line in part})
                self._groups.setdefault(session, []).append(group)
                self._schedule(group, now + round(self._limits.repeat_first_s * 1e9))
                yield self._order_of(command, session, part, now)

    def due(self, now: int, sessions: dict[str, Session]) -> Iterator[tuple[Group, list[Send]]]:
        """The groups whose time has come, each with its repeated order (none, if there is nothing
        to say just now). Groups without an open line are dropped."""
        while self._due and self._due[0][0] <= now:
            at, _, group = heapq.heappop(self._due)
            if at != group.next_ns:
                continue
            if not group.still_open():
                self._drop(group)
                continue
            sends = list(self._again(group, now))
            session = sessions.get(group.session)
            silent = session is None or session.state != ""
            self._schedule(group, now + self._pause_ns(group, silent))
            yield group, sends

    def hasten(self, session: str, now: int) -> None:
        """The session was heard of again: its open orders are due now."""
        for group in self._groups.get(session, ()):
            group.attempt = 0
            self._schedule(group, now)

    def standing(self, run: Run) -> bytes | None:
        """The level of a run as it stands in the bucket: signed, without expiry. None: no order."""
        standing = run.standing
        if standing is None:
            return None
        return self._signer.sign(
            Order(
                command_id=standing.command_id,
                session=run.record.session,
                verb=standing.verb,  # type: ignore[arg-type] # only state verbs ever stand
                runs=[OrderRun(run.record.run_id, standing.epoch)],
                reason=standing.reason,
                issued_by=standing.issued_by,
                issued_at=self.clock.now_ns(),
                expires_at=0,
                nonce=self._world.nonce(),
                arguments=standing.arguments,
            )
        )

    def probe(self, session: Session, now: int) -> Send:
        """Asks a holder whether it could stop its runs now; remembers the nonce and when."""
        nonce = self._world.nonce()
        session.nonces[nonce] = now
        while len(session.nonces) > 3:
            del session.nonces[next(iter(session.nonces))]
        return self.probe_of(session.session, session.runs, nonce)

    def probe_of(self, session: str, runs: Iterable[str], nonce: str) -> Send:
        """Asks a session of these runs."""
        issued_at = self.clock.now_ns()
        order = Order(
            command_id="",
            session=session,
            verb="probe",
            runs=[OrderRun(run_id, 0) for run_id in runs],
            reason="",
            issued_by="control",
            issued_at=issued_at,
            expires_at=issued_at + round(self._limits.edge_expires_s * 1e9),
            nonce=nonce,
        )
        return Send(subjects.command(session), self._signer.sign(order))

    def word(
        self, session: str, run_id: str, verb: str, epoch: int, command_id: str, reason: str,
        by: str, arguments: dict[str, Any],
    ) -> bytes:  # fmt: skip
        """A signed order that is sent once and kept by nobody: the word on an approval. Whoever
        missed it asks again."""
        issued_at = self.clock.now_ns()
        return self._signer.sign(
            Order(
                command_id=command_id,
                session=session,
                verb=verb,  # type: ignore[arg-type] # approve or deny
                runs=[OrderRun(run_id, epoch)],
                reason=reason,
                issued_by=by,
                issued_at=issued_at,
                expires_at=issued_at + round(self._limits.edge_expires_s * 1e9),
                nonce=self._world.nonce(),
                arguments=arguments,
            )
        )

    def _again(self, group: Group, now: int) -> Iterator[Send]:
        patience_ns = self._limits.repeat_delivered_s * 1e9
        lines = [
            line
            for line in group.still_open()
            if line.delivered_ms is None or now - line.sent_at_ns >= patience_ns
        ]
        if lines:
            yield self._order_of(group.command, group.session, lines, now)

    def _order_of(self, command: Command, session: str, lines: list[Line], now: int) -> Send:
        for line in lines:
            line.sent_at_ns = now
        issued_at = self.clock.now_ns()
        order = Order(
            command_id=command.command_id,
            session=session,
            verb=command.verb,  # type: ignore[arg-type] # checked when it was asked
            runs=[OrderRun(line.run_id, line.epoch) for line in lines],
            reason=command.reason,
            issued_by=command.issued_by,
            issued_at=issued_at,
            expires_at=issued_at + self._life_ns(command, now),
            nonce=self._world.nonce(),
            arguments=command.arguments,
        )
        return Send(subjects.command(session), self._signer.sign(order))

    def _life_ns(self, command: Command, now: int) -> int:
        """An edge of an act does not outlive the act: what was given up is not obeyed later."""
        life_s = self._limits.edge_expires_s
        if command.verb not in STATE_VERBS:
            life_s = min(life_s, self._limits.act_life_s - command.ms_since(now) / 1e3)
        return max(1, round(life_s * 1e9))

    def _pause_ns(self, group: Group, silent: bool) -> int:
        if silent and group.attempt > 5:
            return round(self._limits.repeat_silent_s * 1e9)
        group.attempt += 1
        doubled = self._limits.repeat_first_s * 2.0 ** min(group.attempt, 20)
        return round(min(doubled, self._limits.repeat_max_s) * 1e9)

    def _schedule(self, group: Group, at_ns: int) -> None:
        group.next_ns = at_ns
        self._order += 1
        heapq.heappush(self._due, (at_ns, self._order, group))

    def _drop(self, group: Group) -> None:
        groups = self._groups.get(group.session, [])
        if group in groups:
            groups.remove(group)
        if not groups:
            self._groups.pop(group.session, None)
