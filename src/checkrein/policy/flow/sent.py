"""What the agent has passed on: values that it gave to a tool and had from untrusted sources only,
or from nowhere.

A trusted source that gives such a value back does not vouch for it: it is taken out of what that
source brought. So that this costs no search for each value, values are filed by their first
letters, and only those are looked for whose first letters stand in the text.
"""

_LETTERS = 4
_FEW = 64


class Sent:
    """The phrases and compact forms of values, in the order in which they were passed on."""

    __slots__ = ("_all", "_by_start", "_short")

    def __init__(self) -> None:
        self._all: dict[str, None] = {}
        self._by_start: dict[tuple[str, ...], list[str]] = {}
        self._short: list[str] = []

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: str) -> bool:
        return key in self._all

    def add(self, *keys: str) -> None:
        for key in keys:
            if key in self._all:
                continue
            self._all[key] = None
            if len(key) < _LETTERS:
                self._short.append(key)
            else:
                self._by_start.setdefault(tuple(key[:_LETTERS]), []).append(key)

    def taken_out(self, words: str) -> str:
        """The text without these values."""
        if not self._stands_in(words):
            return words
        for key in self._all:  # taking one out may bring together what makes up another
            if key in words:
                words = words.replace(key, " ")
        return words

    def _stands_in(self, words: str) -> bool:
        if len(self._all) <= _FEW:
            return any(key in words for key in self._all)
        if any(key in words for key in self._short):
            return True
        starts = self._by_start.keys() & zip(words, words[1:], words[2:], words[3:], strict=False)
        return any(key in words for start in starts for key in self._by_start[start])
