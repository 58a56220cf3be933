"""Where holders ask for people and people answer: approvals and escalations in control."""

from collections.abc import Callable, Iterable, Mapping

from checkrein.bus.approvals import Approval, Ask, Asked, Escalation
from checkrein.bus.messages import SessionRecord, encode
from checkrein.control.approvals import Approvals
from checkrein.control.book import Book, OutOfEpochs
from checkrein.control.escalations import Escalations
from checkrein.control.types import Acknowledging, Deciding, Reply, Seeking

Forgery = Callable[[str, str, str, str], None]
"""(session, what it tried, why it may not, run id)"""


class Gates:
    """A session asks for the runs that it holds, of its own agents; what goes beyond is refused and
    told as a forgery."""

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
        if known is None or run is None:
            self._refuse(given.token, Asked(claim=claim, status="unknown", reason="not registered"))
            return
        why = ""
        if word.agent not in known.agents or word.agent != run.record.agent:
            why = f"an approval for agent {word.agent!r}, which is not its own"
        elif run.record.session != given.session:
            why = "an approval for a run it does not hold"
        if why:
            self._forgery(given.session, "ask", why, word.run_id)
            self._refuse(given.token, Asked(claim=claim, status="denied", reason=why))
            return
        try:
            if isinstance(word, Ask):
                self.approvals.ask(run, word, given.token)
            else:
                self.escalations.raised(run, word, given.token)
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
