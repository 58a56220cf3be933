"""The keys that the gateway itself holds or is shown: taken out exactly, whatever a pact says.

Providers' keys are looked for as they are, and as they stand in a URL, in JSON and in base64; keys
of ours (`cra_…`, `crr_…`) by their form, so that none has to be kept.
"""

import base64
import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import re2

from checkrein.gateway.settings import Settings, SettingsError

KEYS_MAX = 256
KEY_CHARS_MIN = 8
SIGNS_MAX = 24
SHORT_CHARS = 256
"""So many signs are looked for one by one in texts that are so short: quicker than to ask RE2 about
each of the many that have none."""
DEPTH_MAX = 64
VALUES_MAX = 200_000
MARK = "[redacted:key]"
OURS = ("cra_", "crr_", "cro_", "crt_")
_OURS = "cr[arot]_[A-Za-z0-9_-]{20,}"


class KnownKeys:
    """Safe from any thread. Keys are learnt and never forgotten: a key that was taken back is none
    of anybody's business either. Beyond 256 the oldest is no longer looked for."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._search = _compiled(())
        self._literals: tuple[str, ...] = ()
        self._signs: tuple[str, ...] | None = OURS
        for key in keys:
            self.learn(key)

    def learn(self, key: str) -> None:
        """From now on this is taken out. What is shorter than eight letters is no key."""
        if key in self._keys or len(key) < KEY_CHARS_MIN:
            return
        with self._lock:
            self._keys[key] = _forms(key)
            while len(self._keys) > KEYS_MAX:
                del self._keys[next(iter(self._keys))]
            self._literals = tuple(form for forms in self._keys.values() for form in forms)
            self._search = _compiled(self._literals)
            signs = (*self._literals, *OURS)
            self._signs = signs if len(signs) <= SIGNS_MAX else None

    def text(self, text: str) -> str:
        """The text without them; the very same object when there is none."""
        if len(text) <= SHORT_CHARS:
            signs = self._signs
            if signs is not None and not any(sign in text for sign in signs):
                return text
        data = text.encode("utf-8", "surrogatepass")
        if self._search.search(data) is None:
            return text
        return self._search.sub(MARK.encode(), data).decode("utf-8", "surrogatepass")  # type: ignore[no-any-return] # RE2 has no types

    def places(self, data: bytes) -> list[tuple[int, int]]:
        """Where they stand in UTF-8 text, in bytes."""
        if not self.within(data):
            return []
        return [(match.start(), match.end()) for match in self._search.finditer(data)]

    def within(self, data: bytes) -> bool:
        """Whether one stands in these bytes, msgpack's or JSON's for instance."""
        return self._search.search(data) is not None

    def plain(self, value: Any) -> Any:
        """A plain value without them, keys of maps included."""
        return self._plain(value, 0, [VALUES_MAX])

    def _plain(self, value: Any, depth: int, left: list[int]) -> Any:
        left[0] -= 1
        if isinstance(value, str):
            return self.text(value)
        if depth > DEPTH_MAX or left[0] < 0:
            return "[redacted:too-large]"
        if isinstance(value, dict):
            return {
                self._plain(name, depth + 1, left): self._plain(item, depth + 1, left)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._plain(item, depth + 1, left) for item in value]
        if isinstance(value, bytes) and self.within(value):
            return MARK.encode()
        return value

    def overhang(self, text: str) -> int:
        """How many of the last letters could be the beginning of a key that goes on after them."""
        most, size = 0, len(text)
        for key in self._literals:
            at = text.find(key[0], max(0, size - len(key) + 1))
            while at >= 0:
                if key.startswith(text[at:]):
                    most = max(most, size - at)
                    break
                at = text.find(key[0], at + 1)
        return most


def known_keys(settings: Settings, environ: Mapping[str, str]) -> KnownKeys:
    """All that the settings name. One that cannot be read now is learnt when it is used."""
    known = KnownKeys()
    for upstream in settings.models.values():
        try:
            known.learn(upstream.key(environ))
        except SettingsError:
            continue
    for server in settings.mcp.values():
        known.learn(environ.get(server.key_env, "").strip() if server.key_env else "")
    return known


def _forms(key: str) -> tuple[str, ...]:
    whole = base64.b64encode(key.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    forms = [key, quote(key, safe=""), json.dumps(key)[1:-1], whole]
    return tuple(dict.fromkeys(forms))


def _compiled(literals: tuple[str, ...]) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    longest_first = sorted(literals, key=len, reverse=True)
    parts = [re2.escape(each.encode("utf-8", "surrogatepass")) for each in longest_first]
    return re2.compile(b"|".join([*parts, _OURS.encode()]), options)
