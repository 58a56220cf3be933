"""Where the quoted texts and comments of an SQL text end: the same for all who read it, or it is
refused. What one server takes for a comment must not be what another one runs.
"""

import re

_DEPTH_MAX = 60
TOKENS_MAX = 10_000
"""Texts in quotes count as one. It keeps the slowest text that was found under a second."""
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|\w+|[^\w\s]""")
_LEXEMES = re.compile(
    r"""(?P<text>'[^']*(?:'|$))|(?P<name>"[^"]*(?:"|$)|`[^`]*(?:`|$))|\[(?P<bracket>[^\]]*)(?:\]|$)"""
    r"""|(?P<line>--[^\n]*)|(?P<comment>/\*.*?(?:\*/|$))|(?P<hash>\#)|(?P<dollar>\$\w*\$)""",
    re.S,
)
_EXECUTABLE = re.compile(r"/\*\s*[mM]?!")
_NESTED = re.compile(r"/\*(?:[^*]|\*(?!/))*/\*")
_DASHES = re.compile(r"--(?=[^\s-])")
_IN_BRACKET = re.compile(r"""["`\[#]|--|/\*""")
_ODD_BACKSLASH = re.compile(r"""(?<!\\)(?:\\\\)*\\['"`]""")
_UNICODE_NAME = re.compile(r"[uU]&[\"']")
_SUBSCRIPTS = re.compile(r"(?:\[[^\]]*\]\s*){31}")
_CASE = re.compile(r"(?i)\bcase\b")


def strange_text(text: str, is_any_dialect: bool) -> str:
    """Why a text is refused before it is parsed; empty: it is not. `is_any_dialect`: nobody has
    said which one it is written in. Where one is named, what looks like a trick is refused even
    within quotes, since only the parser knows where they end."""
    if not text.strip():
        return "is empty"
    if any(ord(letter) < 32 and letter not in "\t\n\r" for letter in text):
        return "contains a control character"
    if "\r" in text.replace("\r\n", ""):
        return "contains a line end that is one to some servers only"
    if is_any_dialect and _ODD_BACKSLASH.search(text):
        return "contains a backslash before a quote, which ends a text to some servers only"
    if _UNICODE_NAME.search(text):
        return "contains an encoded name"
    if _EXECUTABLE.search(text):
        return "contains a comment that some servers run"
    if _too_deep(text):
        return "is nested too deep"
    if any(count >= TOKENS_MAX for count, _ in enumerate(_TOKEN.finditer(text))):
        return f"has more than {TOKENS_MAX} words and signs"
    if is_any_dialect:
        for match in _LEXEMES.finditer(text):
            if problem := _strange_lexeme(match):
                return problem
        return ""
    if _NESTED.search(text):
        return "contains a comment in a comment"
    return _DASHES_PROBLEM if _DASHES.search(text) else ""


_DASHES_PROBLEM = "contains `--` without a space after it, which is a comment to some servers only"


def _strange_lexeme(match: re.Match[str]) -> str:
    found = match[0]
    match match.lastgroup:
        case "line" if len(found) > 2 and not found[2].isspace():
            return _DASHES_PROBLEM
        case "comment" if "/*" in found[2:]:
            return "contains a comment in a comment"
        case "comment" if not found.endswith("*/") or len(found) < 4:
            return "contains a comment without an end"
        case "text" if len(found) < 2 or found[-1] != "'":
            return "contains a text without an end"
        case "name" if len(found) < 2 or found[-1] != found[0]:
            return "contains a name without an end"
        case "hash":
            return "contains `#`, which is a comment to some servers only; name the dialect"
        case "dollar":
            return "contains `$$`, which is a quote to some servers only; name the dialect"
        case "bracket" if _IN_BRACKET.search(match["bracket"]) or match["bracket"].count("'") % 2:
            return "contains brackets that quote to some servers only; name the dialect"
    return ""


def _too_deep(text: str) -> bool:
    """Counts whatever opens, within quotes too: a bound, no judgement."""
    depth = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            if depth > _DEPTH_MAX:
                return True
        elif letter in ")]}" and depth:
            depth -= 1
    return len(_CASE.findall(text)) > _DEPTH_MAX or _SUBSCRIPTS.search(text) is not None
