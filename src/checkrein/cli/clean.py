"""Text from agents, made safe to print.

What an agent says ends up on an operator's terminal. A terminal obeys what it is told: escape
sequences move the cursor over a verdict, retitle the window, or answer back; bidirectional marks
make one command read as another. None of it is let through.
"""

import re
import unicodedata
from typing import Any

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, SOS, PM, APC, to their end
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x90\x98\x9d\x9e\x9f].*?(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_DROPPED = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_SPACES = str.maketrans({"\n": " ", "\r": " ", "\t": " ", "\u2028": " ", "\u2029": " "})
_MARKS_MAX = 3
"""More combining marks than this on one letter only serve to overprint other lines."""


def clean(text: Any, chars_max: int = 0) -> str:
    """One line of printable text: no control characters, no escape sequences, no characters that
    change direction or are not seen. Over `chars_max` (0: any) it is cut and ends in `…`."""
    plain = text if type(text) is str else str(text)
    if chars_max and len(plain) > 20 * chars_max:
        plain = plain[: 20 * chars_max]
    if not (plain.isascii() and plain.isprintable()):
        plain = _clean_slowly(plain)
    if chars_max and len(plain) > chars_max:
        return plain[: chars_max - 1] + "…"
    return plain


def _clean_slowly(text: str) -> str:
    text = _SEQUENCES.sub("", text).translate(_SPACES)
    kept: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        if category in _DROPPED:
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MARKS_MAX:
            kept.append(char)
    return "".join(kept)
