"""Long texts apart from events: each is kept once, by the SHA-256 of its UTF-8, and the event holds
a reference in its place.

A reference is the map `{"$content": HASH, "chars": N}`. A map of the event itself that has the key
`$content` is wrapped as `{"$content": null, "map": …}`, so that nothing is mistaken for a reference
and everything comes back as it was.
"""

import hashlib
from collections.abc import Callable
from typing import Any

LONG_CHARS_MIN = 1025
DEPTH_MAX = 64
"""Below this depth values stay as they are, whatever their length."""

MARK = "$content"


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lift(value: Any, keep: Callable[[str, str], None], depth: int = 0) -> Any:
    """The value with each long text replaced; `keep(hash, text)` is told of every one."""
    if isinstance(value, str):
        if len(value) < LONG_CHARS_MIN:
            return value
        key = hash_of(value)
        keep(key, value)
        return {MARK: key, "chars": len(value)}
    if depth >= DEPTH_MAX:
        return value
    if isinstance(value, dict):
        lifted = {name: lift(item, keep, depth + 1) for name, item in value.items()}
        return {MARK: None, "map": lifted} if MARK in value else lifted
    if isinstance(value, list | tuple):
        return [lift(item, keep, depth + 1) for item in value]
    return value


def references(value: Any, depth: int = 0) -> set[str]:
    """The hashes that a lifted value refers to."""
    if depth >= DEPTH_MAX:
        return set()
    if isinstance(value, dict):
        if MARK in value:
            key = value[MARK]
            return {key} if key is not None else _all_of(value["map"].values(), depth)
        return _all_of(value.values(), depth)
    if isinstance(value, list):
        return _all_of(value, depth)
    return set()


def _all_of(items: Any, depth: int) -> set[str]:
    return set().union(*(references(item, depth + 1) for item in items))


def restore(value: Any, texts: dict[str, str], depth: int = 0) -> Any:
    """The value as it was before `lift`. A reference whose text is gone (its time was up) stays."""
    if depth >= DEPTH_MAX:
        return value
    if isinstance(value, dict):
        if MARK in value:
            key = value[MARK]
            if key is not None:
                return texts.get(key, value)
            value = value["map"]
        return {name: restore(item, texts, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [restore(item, texts, depth + 1) for item in value]
    return value


def depth_of(value: Any, limit: int) -> int:
    """How deep maps and lists are nested, counted no further than `limit` + 1."""
    level, depth = [value], 0
    while level and depth <= limit:
        containers = [item for item in level if isinstance(item, dict | list | tuple)]
        if not containers:
            break
        depth += 1
        level = []
        for item in containers:
            level.extend(item.values() if isinstance(item, dict) else item)
    return depth
