"""A model's text that comes in pieces: what may still be the beginning of something is held back.

Held back is what stands behind the last word that nothing can begin with: digits, half a word, a
word such as `password` and what follows it. That is seldom more than a few words, and never more
than the look-ahead and one token. What is longer than the look-ahead and not yet at its end (a
private key) is taken out as it is, and all that belongs to it as it comes.
"""

import re
from typing import TYPE_CHECKING

import re2

from checkrein.gateway.known import MARK, OURS
from checkrein.gateway.vault import PARTIAL, TOKEN_CHARS_MAX

if TYPE_CHECKING:
    from checkrein.gateway.redaction import Redaction

BEHIND_CHARS = 96
"""Of what was passed on, so much is kept, since a sign may look back at it."""
_TRIGGER_CHARS = 64
"""From the beginning of a word that announces a value to the value's own beginning, at most."""
_FAILED = "[redacted:failed]"

_options = re2.Options()
_options.encoding = re2.Options.Encoding.LATIN1
_TRIGGER = re2.compile(
    rb"(?i)pass|pwd|secret|key|token|auth|session|sid|sig|cred|cookie|bearer|basic|digest|"
    rb"negotiate|phone|mobile|cell|tel|fax|whatsapp|sms|number|\bn[or]\b|ssn|social|-----BEGIN|"
    rb"\b[a-z]{2}[0-9]{2}|bsn|burgerserv|pesel|steuer|idnr|tax|dselsnummer|personnummer|cpr|"
    rb"kimlik|\bid\b|identity|tfn|\bsin\b|nhs|\bcnp\b|aadha|\bdni\b",
    _options,
)
_CALM = re.compile(r"""["'(]?[^\W\d_]{1,24}(?:['\u2019][^\W\d_]{1,3})?[.,;!?)"'\u2026]{0,3}""")
_END_OF_KEY = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_NO_KEY = re.compile(r"[^A-Za-z0-9+/=\s\\:,-]")
_NO_COOKIE = re.compile(r"""[\r\n"'\\]""")
_NO_VALUE = re.compile(r"""[\s"'`\\,;&<>(){}\[\]]""")
_LINE_OR = {quote: re.compile(rf"[\n{quote}]") for quote in "\"'`"}

Place = tuple[int, int, str]


class Pieces:
    """One text. `text` and `finish` give together what `Redaction.shown` gives for the whole, as
    long as nothing in it is longer than the look-ahead."""

    __slots__ = ("_behind", "_failed", "_in_json", "_screen", "_skip", "_tail", "held")

    def __init__(self, screen: "Redaction") -> None:
        self._screen = screen
        self.held = ""
        self._behind = ""
        self._in_json: bool | None = None
        self._skip: re.Pattern[str] | None = None
        self._tail = ""
        self._failed = False

    def text(self, piece: str) -> str:
        """What can be passed on by now: "" while all of it is held back."""
        return self._safely(piece, False)

    def finish(self) -> str:
        """The rest: the text is whole. Called once."""
        return self._safely("", True)

    def _safely(self, piece: str, is_last: bool) -> str:
        if self._failed:
            return ""
        try:
            return self._step(piece, is_last)
        except Exception:  # what cannot be looked through does not pass
            self._failed = True
            self.held = ""
            return _FAILED

    def _step(self, piece: str, is_last: bool) -> str:
        self.held += self._skipped(piece)
        if not self.held:
            return ""
        if self._in_json is None and (first := self.held.lstrip()[:1]):
            self._in_json = first in "{["
        data = (self._behind + self.held).encode("utf-8", "surrogatepass")
        found = self._screen.found(data)
        places = self._in_chars(data, found) if found else []
        cut, begun = (len(self.held), None) if is_last else self._cut(places)
        clean = self._passed(cut, places)
        if begun is not None:
            clean += self._screen.gone(begun[2])
            self.held = self.held[begun[1] - cut :]
            self._begin_to_skip(begun[2])
        return clean

    def _cut(self, places: list[Place]) -> tuple[int, Place | None]:
        """Up to where nothing can change any more; and what begins there, if that is longer than
        the look-ahead and goes on."""
        held, size, ahead = self.held, len(self.held), self._screen.look_ahead
        cut = 0 if self._screen.names is not None else self._calm_end()
        cut = max(min(cut, self._trigger()) if cut else 0, size - ahead)
        for start, end, kind in places:
            if start < cut and end >= size - 1 and self._grows(start, kind):
                if size - start > ahead:
                    return start, (start, end, kind)
                cut = start
            elif start < cut < end:
                cut = start if size - start <= ahead else end
        tail = held[-TOKEN_CHARS_MAX:]
        if "<" in tail or "&" in tail or "\\" in tail:
            partial = PARTIAL.search(tail.encode("latin-1", "replace"))
            if partial is not None:
                cut = min(cut, size - (partial.end() - partial.start()))
        return max(0, min(cut, size - self._screen.overhang(held))), None

    def _grows(self, start: int, kind: str) -> bool:
        """Whether a place at the end may go on: what is known whole does not."""
        if kind == MARK:
            return self.held.startswith(OURS, start)
        return kind != "token"

    def _calm_end(self) -> int:
        """Behind the last whole word that is nothing but a word."""
        held = self.held
        end = max(held.rfind(" "), held.rfind("\n"))
        while end > 0:
            begin = max(held.rfind(" ", 0, end), held.rfind("\n", 0, end))
            if _CALM.fullmatch(held, begin + 1, end):
                return end + 1
            end = begin
        return 0

    def _trigger(self) -> int:
        """Where the first word stands that announces a value which may still come."""
        size = len(self.held)
        tail = (self._behind + self.held)[-_TRIGGER_CHARS:]
        match = _TRIGGER.search(tail.encode("latin-1", "replace"))
        return size if match is None else max(0, size - len(tail) + match.start())

    def _in_chars(self, data: bytes, found: list[Place]) -> list[Place]:
        """Places in what is held, in letters; a place that began before is cut to what is left."""
        behind = len(self._behind)
        places = []
        for start, end, kind in found:
            first = len(data[:start].decode("utf-8", "surrogatepass")) - behind
            last = first + len(data[start:end].decode("utf-8", "surrogatepass"))
            if last > 0:
                places.append((max(0, first), last, kind))
        return places

    def _passed(self, cut: int, places: list[Place]) -> str:
        """Gives out what stands before the cut, clean."""
        if not cut:
            return ""
        raw = self.held[:cut]
        self.held = self.held[cut:]
        self._behind = (self._behind + raw)[-BEHIND_CHARS:]
        inside = [place for place in places if place[1] <= cut]
        if not inside:
            return raw
        at, spots = 0, []
        for start, end, kind in inside:
            first = at + len(raw[:start].encode("utf-8", "surrogatepass"))
            last = first + len(raw[start:end].encode("utf-8", "surrogatepass"))
            spots.append((first, last, kind))
        data = raw.encode("utf-8", "surrogatepass")
        return self._screen.render(data, spots, bool(self._in_json))

    def _begin_to_skip(self, kind: str) -> None:
        """From here on, what belongs to a value that was taken out is dropped."""
        before = self._behind[-1:]
        match kind:
            case "private-key":
                self._skip = _NO_KEY
            case "cookie":
                self._skip = _NO_COOKIE
            case _:
                self._skip = _LINE_OR.get(before, _NO_VALUE)
        self._tail = ""
        self.held = self._skipped(self.held)

    def _skipped(self, piece: str) -> str:
        """What comes behind the value that is being dropped; "" while it goes on."""
        if self._skip is None:
            return piece
        if self._skip is _NO_KEY:
            seen = self._tail + piece
            end = _END_OF_KEY.search(seen)
            if end is not None:
                self._skip, self._tail = None, ""
                return seen[end.end() :]
            self._tail = seen[-96:]
        stop = self._skip.search(piece)
        if stop is None:
            return ""
        self._skip, self._tail = None, ""
        return piece[stop.start() :]
