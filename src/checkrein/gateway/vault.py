"""What stands for a personal value on its way to a model, and turns back into it on the way back.

A token, `<email:abdkfhcejbgi>`, is the kind and a hash with a key of the run's own: the same value
is the same token all through the run, another one in any other run, and nobody outside of this
process can tell what it stands for. Values are kept in memory only, as long as the run is known
here, and within bounds: what finds no room is taken out for good.
"""

import weakref
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import re2

from checkrein.world import World

VALUES_MAX = 10_000
VALUE_CHARS_MAX = 512
RUN_CHARS_MAX = 2_000_000
CHARS_MAX = 128_000_000
TOKEN_CHARS_MAX = 48
"""The longest that a token can be, its brackets written as `\\u003c` and `\\u003e`."""
_HASH_BYTES = 6
_LETTERS = "abcdefghijklmnop"

_options = re2.Options()
_options.encoding = re2.Options.Encoding.LATIN1
TOKEN = re2.compile(
    rb"(?:<|&lt;|\\u003[cC])([a-z-]{2,16}):([a-p]{12})(?:>|&gt;|\\u003[eE])", _options
)
PARTIAL = re2.compile(
    rb"(?:(?:<|&lt;|\\u003[cC])"
    rb"(?:[a-z-]{0,16}|[a-z-]{2,16}:[a-p]{0,12}(?:&(?:g(?:t)?)?|\\(?:u(?:0(?:0(?:3)?)?)?)?)?)"
    rb"|&(?:lt?)?|\\(?:u(?:0(?:03?)?)?)?)$",
    _options,
)
"""The end of a text that may go on to be a token. Letters only, so that no token looks like a
number of anybody."""


class Vault:
    """One run's values. On the gateway's loop."""

    def __init__(self, key: bytes, room: Callable[[int], bool] = lambda chars: True) -> None:
        """`room(chars)`: takes so much of what all runs share, or says no."""
        self._key, self._room = key, room
        self._values: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._sent: set[str] = set()
        self.chars = 0

    def token(self, kind: str, value: str, sent: bool) -> str:
        """What stands for it; "" when it cannot be kept. `sent`: the agent has sent it, so it may
        have it back."""
        known = self._tokens.get((kind, value)) or self._kept(kind, value)
        if sent and known:
            self._sent.add(known)
        return known

    def _kept(self, kind: str, value: str) -> str:
        size = len(value)
        if size > VALUE_CHARS_MAX or len(self._values) >= VALUES_MAX or len(kind) > 16:
            return ""
        if self.chars + size > RUN_CHARS_MAX or not self._room(size):
            return ""
        token = self._drawn(kind, value)
        if token in self._values:  # one in 2^48: two values, one hash
            return ""
        self._values[token] = value
        self._tokens[kind, value] = token
        self.chars += size
        return token

    def value(self, kind: str, letters: str, sent: bool) -> str | None:
        """What a token stands for; None when this run has no such token. `sent`: only if the agent
        has sent it."""
        token = f"<{kind}:{letters}>"
        return self._values.get(token) if not sent or token in self._sent else None

    def was_sent(self, kind: str, value: str) -> bool:
        return self._tokens.get((kind, value)) in self._sent

    def _drawn(self, kind: str, value: str) -> str:
        data = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        digest = blake2b(data, key=self._key, digest_size=_HASH_BYTES).digest()
        letters = "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in digest)
        return f"<{kind}:{letters}>"


class Vaults:
    """Each run's vault, for as long as the gateway has the run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._vaults: dict[str, tuple[Vault, weakref.ref[Any]]] = {}
        self.chars = 0

    def of(self, run: Any) -> Vault:
        """The same for the same run id, however often the gateway meets that run."""
        found = self._vaults.get(run.run_id)
        if found is not None and found[1]() is run:
            return found[0]
        vault = Vault(self._world.random_bytes(32), self._take) if found is None else found[0]
        own = weakref.ref(run)
        self._vaults[run.run_id] = (vault, own)
        weakref.finalize(run, self._drop, run.run_id, own).atexit = False
        return vault

    def __len__(self) -> int:
        return len(self._vaults)

    def _take(self, chars: int) -> bool:
        if self.chars + chars > CHARS_MAX:
            return False
        self.chars += chars
        return True

    def _drop(self, run_id: str, own: "weakref.ref[Any]") -> None:
        found = self._vaults.get(run_id)
        if found is not None and found[1] is own:
            del self._vaults[run_id]
            self.chars -= found[0].chars
