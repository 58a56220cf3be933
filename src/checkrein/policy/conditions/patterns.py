"""Patterns of `matches`: RE2 only, so that no pattern and no text takes more than linear time.

re2 is imported when the first pattern is compiled.
"""

from collections.abc import Callable
from functools import lru_cache

_MEMORY_BYTES_MAX = 4 << 20


class PatternError(ValueError):
    """A text that is no RE2 pattern, or too large a one."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Callable[[str], bool]:
    """Whether a text has a part that matches. Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES_MAX
    try:
        exact = re2.compile(pattern.encode(), options=options)
    except re2.error as error:
        raise PatternError(_reason(error)) from None
    # A set of one answers in a third of the time, but when its automaton outgrows the memory it
    # says that nothing matches. So its yes is taken, and its no is asked for again.
    quick = re2.Set.SearchSet(options)
    quick.Add(pattern)
    quick.Compile()
    matched, search = quick.Match, exact.search

    def matches(text: str) -> bool:
        return bool(matched(text)) or search(text.encode()) is not None

    return matches


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
