"""What ready libraries know of secrets and of numbers of persons: asked about hits only, never of
whole texts, and only where they are installed (all are in the extra `server`).

    detect-secrets   is a value no secret after all: a sequence, a template, an id, too regular
    python-stdnum    the structure of IBANs by country, and national ids, by module
    phonenumbers     whether a number can be one in its country

Without a library its question has the answer that hides more: what looks like one is one.
"""

import re
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

VALUE_CHARS_MAX = 512
_NAME = re.compile(r"([\w-]{1,60})[\"'`\\\s:=>]{0,16}$")
_HEX_LIMIT = 3.0
"""Bits a character, as detect-secrets has it by default."""


@lru_cache(maxsize=256)
def library(name: str) -> ModuleType | None:
    """A module if it can be had here."""
    try:
        return import_module(name)
    except Exception:  # one that is broken is as good as none
        return None


def warm(kinds: frozenset[str]) -> None:
    """Imports now what hits of these kinds will need, rather than within an agent's call."""
    if "secrets" in kinds:
        _heuristics()
        _hex_plugin()
    if "pii" in kinds:
        for name in ("phonenumbers", "stdnum.iban"):
            library(name)


def is_no_secret(value: bytes, before: bytes) -> bool:
    """Whether detect-secrets' filters drop a value that stands after a name (`token_id: …`);
    `before` is the text that leads up to it. Session ids are secrets all the same."""
    heuristics = _heuristics()
    if heuristics is None or len(value) > VALUE_CHARS_MAX:
        return False
    text = value.decode("latin-1")
    if heuristics.is_sequential_string(text) or heuristics.is_templated_secret(text):
        return True
    name = _NAME.search(before[-80:].decode("latin-1"))
    if name is None or "ses" in name[1].lower() or "sid" in name[1].lower():
        return False
    return bool(heuristics.is_likely_id_string(text, f"{name[1]}:{text}"))


def is_regular(value: bytes) -> bool:
    """Whether a hexadecimal value is less random than detect-secrets asks of one."""
    plugin = _hex_plugin()
    if plugin is None or len(value) > VALUE_CHARS_MAX:
        return False
    text = value.decode("latin-1")
    is_hex = all(letter in "0123456789abcdefABCDEF" for letter in text)
    return is_hex and plugin.calculate_shannon_entropy(text) <= _HEX_LIMIT


def is_iban(compact: str) -> bool | None:
    """None: nobody here knows better than the checksum. Not the country's own check digits: an
    account at a bank that ignores them is one too."""
    iban: Any = library("stdnum.iban")
    return None if iban is None else bool(iban.is_valid(compact, check_country=False))


def is_national_id(module: str, value: bytes) -> bool:
    """By `stdnum.MODULE`; True where that is not to be had."""
    checker = library(f"stdnum.{module}")
    return checker is None or bool(checker.is_valid(value.decode("latin-1")))


def is_phone(value: bytes, regions: tuple[str, ...], strict: bool) -> bool | None:
    """Whether it can be a number in one of the regions; `strict`: whether it is in use there. None:
    nobody here knows. A number with `+` needs no region."""
    numbers: Any = library("phonenumbers")
    if numbers is None:
        return None
    text = value.decode("latin-1")
    judge = numbers.is_valid_number if strict else numbers.is_possible_number
    for region in (None,) if text.startswith("+") else regions:
        try:
            if judge(numbers.parse(text, region)):
                return True
        except numbers.NumberParseException:
            continue
    return False


def _heuristics() -> Any:
    return library("detect_secrets.filters.heuristic")


@lru_cache(maxsize=1)
def _hex_plugin() -> Any:
    plugins: Any = library("detect_secrets.plugins.high_entropy_strings")
    return None if plugins is None else plugins.HexHighEntropyString(_HEX_LIMIT)
