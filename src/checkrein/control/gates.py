"""Where holders ask for people and people answer: approvals and escalations in control."""

from collections.abc import Callable, Iterable, Mapping

from checkrein.bus.approvals import Approval, Ask, Asked, Escalation, Raise
from checkrein.bus.messages import RunRecord, SessionRecord, encode
from checkrein.control.approvals import Approvals
from checkrein.control.book import Book, OutOfEpochs
from checkrein.control.escalations import Escalations
from checkrein.control.types import Acknowledging, Deciding, Reply, Seeking

Forgery = Callable[[str, str, str, str], None]
"""(session, what it tried, why it may not, run id)"""


class Gates:
    """A session asks for the runs that it holds, of its own agents. What is another agent's is
    refused and told as a forgery; a run that another session holds is not known to this one,
    unless it is a gateway, by which calls of anybody's runs come."""

    def __init__(self, book: Book, sessions: Mapping[str, SessionRecord], forgery: Forgery) -> None:
        self._book, self._sessions, self._forgery = book, sessions, forgery
        self.approvals = Approvals(book)
        self.escalations = Escalations(book)

    def restore(self, approvals: Iterable[Approval], escalations: Iterable[Escalation]) -> None:
        self.approvals.restore(approvals)
        self.escalations.restore(escalations)

    def seek(self, given: Seeking) -> None:
        word, book = given.word, self._book
        claim = word.claim if isinstance(word, Ask) else word.escalation_id
        known = self._sessions.get(given.session)
        run = book.registry.known(word.run_id)
        if known is None or (run is None and isinstance(word, Ask)):
            self._refuse(given.token, Asked(claim=claim, status="unknown", reason="not registered"))
            return
        gateway = known.kind == "gateway" and run is not None and word.agent == run.record.agent
        others = run is not None and word.agent != run.record.agent
        if not gateway and (others or word.agent not in known.agents):
            why = f"an approval for agent {word.agent!r}, which is not its own"
            self._forgery(given.session, "ask", why, word.run_id)
            self._refuse(given.token, Asked(claim=claim, status="denied", reason=why))
            return
        if run is not None and run.record.session != given.session and not gateway:
            # Its supervisor may have been killed: then a new one holds it as soon as it is let.
            why = "the run is held by another session"
            self._refuse(given.token, Asked(claim=claim, status="unknown", reason=why))
            return
        try:
            if isinstance(word, Raise):
                record = _as_it_says(word, known) if run is None else run.record
                self.escalations.raised(record, word, given.token)
            elif run is not None:
                self.approvals.ask(run, word, given.token, given.session if gateway else "")
        except OutOfEpochs as error:  # it is asked again
            self._refuse(given.token, Asked(claim=claim, status="unknown", reason=str(error)))

    def decide(self, given: Deciding) -> None:
        self.approvals.decide(given.request, given.token)

    def acknowledge(self, given: Acknowledging) -> None:
        self.escalations.acknowledge(given.request, given.token)

    def sweep(self) -> None:
        self.approvals.sweep()
        self.escalations.sweep()

    def saved(self, kind: str, key: str) -> bytes | None:
        return (self.approvals if kind == "approval" else self.escalations).saved(key)

    def _refuse(self, token: object, answer: Asked) -> None:
        self._book.out.append(Reply(token, encode(answer)))


def _as_it_says(word: Raise, session: SessionRecord) -> RunRecord:
    """A run that began and ended before it was registered: what it raised counts all the same."""
    return RunRecord(
        run_id=word.run_id[:200], task_id=word.task_id[:200], agent=word.agent, room=session.room,
        environment=session.environment, session=session.session, holder=session.kind,
        started_at=0,
    )  # fmt: skip
