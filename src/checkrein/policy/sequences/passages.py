"""Finding one's way in the text of an expression without reading it: strings, brackets, and which
operators stand outside of all brackets."""

from collections.abc import Iterator

_OPEN = {"(": ")", "[": "]", "{": "}"}
_OPERATORS = ("&&", "||", "==", "!=", "<=", ">=", "<", ">", "?")


class Unclosed(ValueError):
    """A string or bracket that does not end. `at` is where it begins."""

    def __init__(self, what: str, at: int) -> None:
        self.what = what
        self.at = at
        super().__init__(f"{what} that is not closed")


def string_end(text: str, at: int, raw: bool = False) -> int:
    """Behind the string that begins at `at`, with one quote mark or three. Raises Unclosed."""
    mark = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    place = at + len(mark)
    while place < len(text):
        if text[place] == "\\" and not raw:
            place += 2
        elif text.startswith(mark, place):
            return place + len(mark)
        else:
            place += 1
    raise Unclosed("a string", at)


def outside(text: str, at: int = 0) -> Iterator[tuple[int, int]]:
    """(place, depth) of every character outside of strings, from `at` on; a closing bracket has the
    depth of the one that opens it. Ends before a bracket that closes nothing. Raises Unclosed."""
    closing: list[tuple[str, int]] = []
    place = at
    while place < len(text):
        char = text[place]
        if char in "\"'":
            before = text[max(0, place - 2) : place].lower()
            raw = before.endswith("r") or before in ("br", "rb")
            place = string_end(text, place, raw)
            continue
        if text.startswith("//", place):
            line_end = text.find("\n", place)
            place = len(text) if line_end < 0 else line_end
            continue
        if char in _OPEN:
            yield place, len(closing)
            closing.append((_OPEN[char], place))
        elif char in ")]}":
            if not closing or closing[-1][0] != char:
                break
            closing.pop()
            yield place, len(closing)
        else:
            yield place, len(closing)
        place += 1
    if closing:
        raise Unclosed("a bracket", closing[-1][1])


def bracket_end(text: str, at: int) -> int:
    """The place of the bracket that closes the one at `at`. Raises Unclosed."""
    for place, depth in outside(text, at):
        if depth == 0 and place > at:
            return place
    raise Unclosed("a bracket", at)


def operators(text: str) -> list[tuple[int, str]]:
    """(place, operator) of those outside of all brackets."""
    found: list[tuple[int, str]] = []
    behind = 0
    for place, depth in outside(text):
        if depth or place < behind:
            continue
        for operator in _OPERATORS:
            if text.startswith(operator, place):
                found.append((place, operator))
                behind = place + len(operator)
                break
    return found


def split(text: str, operator: str) -> list[tuple[int, str]]:
    """(place, part) of the parts that `operator` joins outside of all brackets."""
    parts, begin = [], 0
    for place, found in operators(text):
        if found == operator:
            parts.append((begin, text[begin:place]))
            begin = place + len(operator)
    return [*parts, (begin, text[begin:])]


def conjuncts(text: str, at: int = 0) -> list[tuple[int, str]]:
    """(place, part) of what must all hold, brackets around the whole taken off."""
    begin = at + len(text) - len(text.lstrip())
    text = text.strip()
    if text.startswith("(") and bracket_end(text, 0) == len(text) - 1:
        return conjuncts(text[1:-1], begin + 1)
    if any(found in ("||", "?") for _, found in operators(text)):
        return [(begin, text)]
    parts = split(text, "&&")
    if len(parts) == 1:
        return [(begin, text)]
    return [each for place, part in parts for each in conjuncts(part, begin + place)]
