"""A model call that is under way here: ended once, by whichever end comes first."""

from contextlib import suppress

from checkrein.gateway.types import Cut
from checkrein.gateway.visit import Visit
from checkrein.sdk.calls import ModelCall
from checkrein.sdk.instruments.exchange import Answer, Gathering, Request, estimated

ODD = (TypeError, AttributeError, ValueError, KeyError, RecursionError)
"""What reading JSON of another shape than expected raises."""


class ProviderError(Exception):
    """A provider answered with an error: its status and words."""


class Turn:
    """`asked` is the request as it was judged."""

    def __init__(self, visit: Visit, call: ModelCall, asked: Request) -> None:
        self.visit = visit
        self.call = call
        self.asked = asked
        self.gathering: Gathering | None = None
        """Set as long as a stream is read: what it has said so far counts, however it ends."""
        self.ended = False

    def done(self, said: Answer) -> None:
        """The model has answered."""
        if self.ended:
            return
        self.ended = True
        read, written = estimated(self.asked, said)
        facts = self.visit.facts
        facts["reported_model"], facts["fingerprint"] = said.model, said.fingerprint
        self.visit.end_model(
            self.call, content=said.content, tool_calls=said.tool_calls, input_tokens=read,
            output_tokens=written, cached_tokens=said.cached_tokens,
            reasoning_tokens=said.reasoning_tokens, finish_reason=said.finish_reason,
            model=said.model, fingerprint=said.fingerprint, reasoning=said.reasoning,
        )  # fmt: skip

    def broke(self, error: BaseException) -> None:
        """It has not answered, or not to the end. Of a stream, what it had said is recorded, with
        `cut`, `closed` (the agent hung up) or `broken` (upstream) as the reason that it ended."""
        if self.ended:
            return
        said = None
        if self.gathering is not None:
            with suppress(*ODD):  # what it said cannot even be put together
                said = self.gathering.answer()
        if said is None or not (said.content or said.tool_calls or said.reasoning or said.model):
            self.ended = True
            self.visit.fail_model(self.call, error)
            return
        if isinstance(error, Cut):
            why = "cut"
        else:
            why = "broken" if isinstance(error, Exception) else "closed"
        said.finish_reason = said.finish_reason or why
        self.done(said)
