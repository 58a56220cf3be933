"""Where has this value stood before? An index of one run's texts, by source.

Two ways to find a value. Strong identifiers stand in an inverted index (key -> sources): one
lookup. Everything else is looked for in the sources' texts: by its words, and when nobody has it,
by its letters and digits alone, which no splitting or spelling out changes.

Bounded: 5,000 identifiers, 512 Ki characters of text, 64 sources. When the bound is reached, what
is new is not indexed and `full` says so: a value that is then found nowhere is `UNKNOWN`, which
counts as untrusted, so that flooding an agent launders nothing.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from checkrein.policy.flow.identifiers import strong
from checkrein.policy.flow.normal import compact, decoded, keys, normal, phrase
from checkrein.policy.flow.sent import Sent
from checkrein.policy.flow.shingles import shingles
from checkrein.policy.flow.sources import USER, Trust

IDENTIFIERS_MAX = 5_000
SENT_MAX = 2_000
TEXT_CHARS_MAX = 524_288
USER_CHARS_MAX = 131_072
SOURCES_MAX = 64
_COMPACT_MIN = 6
OTHERS = ("other tools", Trust(untrusted=True, private=True))
"""The last source stands for all that are too many to be told apart, with the strictest label."""
_CHUNK_CHARS = 16_384
_ROT13 = str.maketrans(
    "abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm"
)  # fmt: skip


def _letters(bare: str) -> set[int]:
    """The hashes of each three letters in a row: what has some that no text has is in none."""
    return set(map(hash, zip(bare, bare[1:], bare[2:], strict=False)))


class Texts:
    """Many texts to look for a part in: joined in chunks, so that one search goes through many."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        self._chunks: list[str] = []

    def add(self, text: str) -> None:
        chunks = self._chunks
        if chunks and len(chunks[-1]) + len(text) < _CHUNK_CHARS:
            chunks[-1] = f"{chunks[-1]}\n{text}"  # no part that is looked for has a line's end
        else:
            chunks.append(text)

    def __contains__(self, wanted: str) -> bool:
        return any(wanted in chunk for chunk in self._chunks)


class Source:
    """All that one tool brought under one trust, or the user said."""

    __slots__ = (
        "_compact",
        "_shingles",
        "_texts",
        "_unread",
        "first_call",
        "tool",
        "trust",
        "words",
    )

    def __init__(self, tool: str, trust: Trust, first_call: str) -> None:
        self.tool = tool
        self.trust = trust
        self.first_call = first_call
        self._texts = Texts()
        self._compact = Texts()
        self._unread: list[str] = []
        self._shingles: set[int] = set()
        self.words: set[str] = set()

    def add(self, text: str, bare: str) -> None:
        """A text's phrase and compact form."""
        self._texts.add(text)
        self._compact.add(bare)
        self._unread.append(text)
        self.words.update(text.split())

    def has_phrase(self, wanted: str, words: list[str]) -> bool:
        if not self.words.issuperset(words):
            return False
        return len(words) == 1 or wanted in self._texts

    def shingles(self) -> set[int]:
        """Of all its texts (see `shingles.shingles`)."""
        for text in self._unread:  # only now: most rules never ask
            self._shingles |= shingles(text.split())
        self._unread.clear()
        return self._shingles

    def has_part(self, wanted: str) -> bool:
        return wanted in self._texts

    def has_compact(self, wanted: Iterable[str]) -> bool:
        return any(each in self._compact for each in wanted)


class Found(NamedTuple):
    """Which sources have the value (a bit each). `unknown`: it was found nowhere, and something was
    not indexed."""

    mask: int
    unknown: bool = False


class Index:
    """One run's. Bit 0 is the user and the system prompt."""

    def __init__(self) -> None:
        self.sources: list[Source] = [Source("the user", USER, "")]
        self._by_name: dict[tuple[str, Trust], int] = {}
        self.identifiers: dict[str, int] = {}
        self.sent = Sent()
        self.full = False
        self._letters: set[int] = set()
        self.masks: dict[Any, tuple[int, int, int]] = {}
        self._text_left = TEXT_CHARS_MAX
        self._user_left = USER_CHARS_MAX
        self.trusted_mask = 1
        self.untrusted_mask = 0
        self.private_mask = 0

    def heard(self, text: str) -> None:
        """The user or the system prompt said so."""
        words = phrase(normal(text[: self._user_left]))
        if self.sources[0].has_part(words):
            return
        self._user_left = max(0, self._user_left - len(words))
        self._take(self.sources[0], words)
        for each in strong(text):
            if each.key in self.identifiers or len(self.identifiers) < IDENTIFIERS_MAX:
                self.identifiers[each.key] = self.identifiers.get(each.key, 0) | 1

    def source(self, tool: str, trust: Trust, call: str) -> int:
        """The number of a source, new or known."""
        number = self._by_name.get((tool, trust))
        if number is None:
            number = len(self.sources)
            if number >= SOURCES_MAX:
                return number - 1
            if number == SOURCES_MAX - 1:
                tool, trust = OTHERS
            self._by_name[tool, trust] = number
            self.sources.append(Source(tool, trust, call))
            bit = 1 << number
            self.trusted_mask |= bit if trust.trusted and not trust.untrusted else 0
            self.untrusted_mask |= bit if trust.untrusted else 0
            self.private_mask |= bit if trust.private else 0
        return number

    def add(self, number: int, text: str) -> list[str]:
        """A source brought this text: what it says, and what it says once decoded. O(len)."""
        source = self.sources[number]
        vouches = not source.trust.untrusted
        layers = [text, *decoded(text)]
        for each in layers:
            words = phrase(normal(each))
            if len(words) <= self._text_left:
                self._text_left -= len(words)
                self._take(source, self.sent.taken_out(words) if vouches else words)
            else:
                self.full = True
            self._identify(1 << number, each, vouches)
        return layers

    def _take(self, source: Source, words: str) -> None:
        bare = compact(words)
        source.add(words, bare)
        self._letters |= _letters(bare)

    def _identify(self, bit: int, text: str, vouches: bool) -> None:
        known, sent = self.identifiers, self.sent
        for each in strong(text):
            mask = known.get(each.key)
            if mask is None:
                if len(known) >= IDENTIFIERS_MAX:
                    self.full = True
                    continue
                known[each.key] = bit
            elif not (vouches and each.key in sent):
                known[each.key] = mask | bit

    def pass_on(self, text: str) -> None:
        """The agent gave this value to a tool. Remembered if it came from untrusted sources only,
        or from nowhere."""
        if len(self.sent) >= SENT_MAX:
            self.full = True
            return
        wanted, bare = keys(text)
        mask = self.find(text).mask
        if mask & self.trusted_mask or len(bare) < 2:
            return
        self.sent.add(wanted, bare)

    def find(self, text: str) -> Found:
        """The sources in which a short value has stood."""
        wanted, bare = keys(text)
        mask = self.identifiers.get(bare, 0)
        if mask and not self.full:
            return Found(mask | self._phrase_in_user(wanted))
        words = wanted.split()
        if not words:
            return Found(mask, False)
        bit = 1
        for source in self.sources:
            if source.has_phrase(wanted, words):
                mask |= bit
            bit <<= 1
        if mask or len(bare) < _COMPACT_MIN:
            return Found(mask, self.full and not mask)
        shapes = [
            each
            for each in (bare, bare[::-1], bare.translate(_ROT13))
            if hash((each[-3], each[-2], each[-1])) in self._letters
            and self._letters.issuperset(_letters(each))
        ]
        if not shapes:
            return Found(0, self.full)
        bit = 1
        for source in self.sources:
            if source.has_compact(shapes):
                mask |= bit
            bit <<= 1
        return Found(mask, self.full and not mask)

    def _phrase_in_user(self, wanted: str) -> int:
        return 1 if self.sources[0].has_part(wanted) else 0

    def names(self, mask: int) -> list[str]:
        """The tools of a mask."""
        return [each.tool for n, each in enumerate(self.sources) if mask >> n & 1]
