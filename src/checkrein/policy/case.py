"""One tool call while it is being judged."""

from typing import Any

from checkrein.policy import loop
from checkrein.policy.rulebook import Listed
from checkrein.policy.types import Action, Deed, Duty


class Case:
    """`arguments` are as the call will be made: changed by `set` and by scopes; `changed` says
    that they are not the agent's own. `once` are the values of `once_per` that the call would use
    up, `duties` the escalations that it calls for."""

    __slots__ = ("action", "arguments", "call", "changed", "deed", "duties", "listed", "once")

    def __init__(self, action: Action, listed: Listed, deed: Deed) -> None:
        self.action = action
        self.listed = listed
        self.deed = deed
        self.arguments: Any = action.arguments
        self.changed = False
        self.call: loop.Call = loop.call_of(action.name, action.arguments, deed.at_ns)
        self.once: tuple[tuple[str, str], ...] = ()
        self.duties: tuple[Duty, ...] = ()

    def change(self, args: dict[str, Any]) -> None:
        """The call will be made with these arguments instead."""
        self.arguments = args
        self.changed = True
        self.deed.args = args
        if self.deed.facts:
            self.deed.facts["args"] = args
        self.call = loop.call_of(self.action.name, args, self.deed.at_ns)
