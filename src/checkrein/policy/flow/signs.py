"""A glance at a text before it is taken apart: most prose names nothing and hides nothing, and one
pass by an automaton says so.

Each answer errs to one side only: "no" is certain, "yes" means that one has to look closely. Texts
with other letters than ASCII always have to be looked at.
"""

from checkrein.policy.conditions.patterns import compiled

_NAMING = r"[0-9@/\\]|\.[A-Za-z_-]|www\."
_HIDING = r"%[0-9a-fA-F]{2}|&|\\[uxnt]|[A-Za-z0-9+/_-]{12}|[0-9a-fA-F]{2}(?:[ :-][0-9a-fA-F]{2}){5}"
_SHORT = 48
_SPACED_MIN = 11
_CODED_MIN = 12
_names = compiled(_NAMING)
_hides = compiled(_HIDING)
_either = compiled(f"{_NAMING}|{_HIDING}")
_groups = compiled(r"[A-Za-z]{2}[0-9]{2} [A-Za-z0-9]{4} [A-Za-z0-9]")


def may_name(text: str) -> bool:
    """Whether a strong identifier (see `identifiers`) may stand in it."""
    return len(text) < _SHORT or not text.isascii() or _names(text)


def may_hide(text: str) -> bool:
    """Whether there may be something to decode in it (see `normal.decoded`)."""
    if not text.isascii():
        return True
    if len(text) < _CODED_MIN:
        return "%" in text or "&" in text or "\\" in text
    return _hides(text)


def is_plain(text: str) -> bool:
    """It names nothing and hides nothing."""
    return text.isascii() and not _either(text)


def may_be_spaced(text: str) -> bool:
    """Whether an account number in groups (`DE89 3704 0044`) may stand in it."""
    if " " not in text or len(text) < _SPACED_MIN:
        return False
    return not text.isascii() or _groups(text)
