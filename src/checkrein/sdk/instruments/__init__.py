"""The libraries that agents are built with, watched at the place where they act.

`instrument()` covers what is imported already and, when it is imported later, the rest. Nothing is
imported on its account. A library is one file here, with one function `apply(patches)`; a library
whose inside has changed is warned about once and otherwise left as it is.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections import namedtuple

from checkrein.sdk.instruments.imports import ImportWatch
from checkrein.sdk.instruments.patches import Patches, warn_changed

TYPE_CHECKING = False  # `typing` is not imported at every program's start
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NamedTuple

    class Library(NamedTuple):
        distribution: str
        trigger: str
        file: str
        proof: str
else:
    Library = namedtuple("Library", "distribution trigger file proof")


# `trigger` is the module after whose import `file` of this package is applied; `proof` a name in it
# that tells the library from somebody's own package of the same name.
LIBRARIES = (
    Library("openai", "openai", "openai_client", "OpenAI"),
    Library("anthropic", "anthropic", "anthropic_client", "Anthropic"),
    Library("langchain-core", "langchain_core.tools", "langchain_tools", "BaseTool"),
    Library("langgraph-prebuilt", "langgraph.prebuilt", "langgraph_nodes", "ToolNode"),
    Library("openai-agents", "agents", "openai_agents", "FunctionTool"),
    Library("pydantic-ai-slim", "pydantic_ai", "pydantic_ai_tools", "RunContext"),
    Library("mcp", "mcp.client.session", "mcp_client", "ClientSession"),
)

_lock = threading.RLock()
_applied: dict[str, Patches] = {}
_watch = ImportWatch()
_active = False


def instrument() -> tuple[str, ...]:
    """Instruments every supported library, those imported later too. Again is harmless. Returns the
    distributions instrumented so far."""
    global _active
    with _lock:
        if not _active:
            _active = True
            for library in LIBRARIES:
                _watch.watch(library.trigger, lambda module, it=library: _apply(it, module))  # type: ignore[misc] # a default binds the loop's variable
        return tuple(_applied)


def uninstrument() -> None:
    """Puts every library back as it was. Calls under way finish as they began."""
    global _active
    with _lock:
        _watch.forget()
        for patches in _applied.values():
            patches.undo()
        _applied.clear()
        _active = False


def instrumented() -> dict[str, list[str]]:
    """What is covered: by distribution, the places that were expected and are not there."""
    with _lock:
        return {name: list(patches.missing) for name, patches in _applied.items()}


def _apply(library: Library, module: ModuleType) -> None:
    with _lock:
        if not _active or library.distribution in _applied or not hasattr(module, library.proof):
            return
        patches = _applied[library.distribution] = Patches(library.distribution)
        try:
            file = importlib.import_module(f"{__name__}.{library.file}")
            file.apply(patches)
        except Exception as error:
            warn_changed(library.distribution, library.trigger, error)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
