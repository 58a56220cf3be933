"""Checkrein: watch what an AI agent does while it does it, refuse what it may not, stop it.

    import checkrein

    checkrein.init(agent="support-bot", room="refunds")
    checkrein.instrument()

    @checkrein.tool(kind="compensable")
    def refund(order: str, cents: int) -> str: ...

    with checkrein.run(goal="resolve ticket 42") as run:
        for step in run.steps():
            ...

Importing this does nothing and takes no time: what is used is loaded when it is used.
"""

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from checkrein.sdk.api import current_run as current_run
    from checkrein.sdk.api import init as init
    from checkrein.sdk.api import instrument as instrument
    from checkrein.sdk.api import run as run
    from checkrein.sdk.context import traceparent as traceparent
    from checkrein.sdk.errors import Denied as Denied
    from checkrein.sdk.errors import Halted as Halted
    from checkrein.sdk.memory import memory as memory
    from checkrein.sdk.model import model as model
    from checkrein.sdk.notes import checkpoint as checkpoint
    from checkrein.sdk.notes import feedback as feedback
    from checkrein.sdk.notes import handoff as handoff
    from checkrein.sdk.notes import output as output
    from checkrein.sdk.notes import reasoning as reasoning
    from checkrein.sdk.tool import tool as tool

__version__ = "0.1.0"

_WHERE = {
    "init": "api", "instrument": "api", "run": "api", "current_run": "api",
    "traceparent": "context", "Denied": "errors", "Halted": "errors", "memory": "memory",
    "model": "model", "checkpoint": "notes", "feedback": "notes", "handoff": "notes",
    "output": "notes", "reasoning": "notes", "tool": "tool",
}  # fmt: skip

__all__ = [  # noqa: PLE0604, RUF100 # names made at their first use
    "Denied", "Halted", "__version__", "checkpoint", "current_run", "feedback", "handoff", "init",
    "instrument", "memory", "model", "output", "reasoning", "run", "tool", "traceparent",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """The public name, from the module it lives in; kept here after its first use."""
    place = _WHERE.get(name)
    if place is None:
        raise AttributeError(f"module 'checkrein' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"checkrein.sdk.{place}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
