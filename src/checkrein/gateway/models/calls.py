"""Tool calls that a model proposes to its agent, and what becomes of them. The words that the
protocols' files share."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from checkrein.sdk.instruments.exchange import Endpoint

Item = dict[str, Any]
NO_ID = "function:"
"""With its tool's name behind it, what stands for the id of a call that has none."""
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Proposed(NamedTuple):
    """A call as the model wrote it. `where` is the protocol file's own mark of its place.
    `arguments` is a value, or the text itself where that is not JSON."""

    id: str
    name: str
    arguments: Any
    where: Any


class Outcome(NamedTuple):
    """`refused` set: the call is taken out, and this text stands there instead. Else `arguments`
    are those to call with; `changed` when they are not the model's own."""

    refused: str = ""
    arguments: Any = None
    changed: bool = False


class Result(NamedTuple):
    """What the agent says a call of its own came to."""

    id: str
    value: Any
    failed: bool = False


class Flowing(Protocol):
    """One streamed answer on its way to the agent.

    `take` gives the events that can go on; calls of tools are held back and then stand in `waiting`
    when they are whole. Each is to be judged and put to `settle`, in their order, after which
    `resume` gives what was held back behind them. `ended`: the protocol's own end has come.
    """

    waiting: list[Proposed]
    ended: bool

    def take(self, name: str, item: Item) -> list[Item]: ...
    def settle(self, call: Proposed, outcome: Outcome) -> list[Item]: ...
    def resume(self) -> list[Item]: ...


def parsed(text: Any) -> Any:
    """Arguments as a value, or as the text the model wrote if that is not JSON. Where a key stands
    twice, the last counts; what goes on to the agent is encoded anew, so there it stands once."""
    if not isinstance(text, str):
        return text
    if not text:
        return {}
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def text_of(arguments: Any) -> str:
    """Arguments as a model writes them into a JSON text."""
    if isinstance(arguments, str):
        return arguments
    try:
        return encode(arguments).decode()
    except (UnicodeError, msgspec.MsgspecError, TypeError, ValueError):
        return json.dumps(arguments)


def dicts(value: Any) -> Iterator[Item]:
    """The objects of a list; nothing of what is none."""
    if isinstance(value, list):
        for one in value:
            if isinstance(one, dict):
                yield one


__all__ = ["NO_ID", "Endpoint", "Flowing", "Item", "Outcome", "Proposed", "Result", "dicts",
           "encode", "parsed", "text_of"]  # fmt: skip
