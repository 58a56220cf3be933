"""The nearest names to a misspelt one, for answers that an agent or a person reads."""

from collections.abc import Iterable

_CANDIDATES_MAX = 500
_CHARS_MAX = 80


def nearest(name: str, known: Iterable[str], count_max: int = 3) -> list[str]:
    """Up to `count_max` of the known names that resemble `name`, best first; empty when none does.

    Looks at the first 500 names and the first 80 characters of each.
    """
    from difflib import get_close_matches  # only when a name is wrong: it is slow to import

    candidates: dict[str, str] = {}
    for candidate in known:
        if len(candidates) >= _CANDIDATES_MAX:
            break
        candidates.setdefault(candidate[:_CHARS_MAX].casefold(), candidate)
    found = get_close_matches(name[:_CHARS_MAX].casefold(), list(candidates), count_max, 0.6)
    return [candidates[text] for text in found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean `a` or `b`?)", or nothing."""
    found = nearest(name, known, 2)
    return f" (did you mean {' or '.join(f'`{text}`' for text in found)}?)" if found else ""


def slip(name: str, known: Iterable[str]) -> str:
    """As `did_you_mean`, for a name that is so near to a known one that nothing else is meant."""
    from difflib import get_close_matches

    found = get_close_matches(name[:_CHARS_MAX], [one[:_CHARS_MAX] for one in known], 1, 0.8)
    return f" (did you mean `{found[0]}`?)" if found else ""
