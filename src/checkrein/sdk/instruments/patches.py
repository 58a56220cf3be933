"""Replacing a library's functions, and putting them back.

A place that is not there any more is not an error of the agent's: it is said once, with the
library's name and version, and the agent goes on without that part.
"""

from __future__ import annotations

import functools
import importlib
import threading

TYPE_CHECKING = False  # `typing` is not imported at every program's start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MISSING = object()


class Patches:
    """The replacements made in one library. Not for two threads at once; `instrument` locks."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.made: list[tuple[object, str, object]] = []
        self.missing: list[str] = []

    def wrap(self, module: str, place: str, make: Callable[[Any], Any]) -> bool:
        """Replaces `module:place` (such as `openai._base_client:SyncAPIClient.request`) by
        `make(original)`. False, after a warning, where the place is not there."""
        try:
            owner: Any = importlib.import_module(module)
            *path, name = place.split(".")
            for part in path:
                owner = getattr(owner, part)
            before = vars(owner).get(name, _MISSING)
            original = getattr(owner, name)
            if not callable(original):
                raise AttributeError(f"{name} is not a function")
            replacement = functools.wraps(original)(make(original))
            setattr(owner, name, replacement)
        except (ImportError, AttributeError, TypeError) as error:
            self.missing.append(f"{module}:{place}")
            warn_changed(self.library, f"{module}:{place}", error)
            return False
        self.made.append((owner, name, before))
        return True

    def undo(self) -> None:
        """Puts everything back, in reverse."""
        while self.made:
            owner, name, before = self.made.pop()
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


_warned: set[tuple[str, str]] = set()
_warned_lock = threading.Lock()


def warn_changed(library: str, place: str, error: BaseException) -> None:
    """Says once for each library and place that it is not as expected."""
    with _warned_lock:
        if (library, place) in _warned:
            return
        _warned.add((library, place))
    import logging

    logging.getLogger("checkrein").warning(
        "checkrein: %s %s is not instrumented at %s (%s: %s); the agent goes on without it",
        library,
        version_of(library),
        place,
        type(error).__name__,
        error,
    )


def version_of(library: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"
