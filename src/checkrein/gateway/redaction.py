"""Secrets and personal data on their way through the gateway, by the pact's `redact`.

to the model    secrets are gone (`[redacted:aws-key]`); personal data are tokens of the run
to the agent    tokens are turned back, in text and in arguments; secrets that a model writes, and
                personal data that this agent never sent, are taken out of text
always          the gateway's own keys are taken out, whatever the pact says

What was taken out is counted by kind. Whatever cannot be looked through does not pass.
"""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from checkrein.gateway.known import MARK, KnownKeys
from checkrein.gateway.redaction_stream import Pieces
from checkrein.gateway.settings import Settings
from checkrein.gateway.types import Refusal
from checkrein.gateway.vault import TOKEN, Vault, Vaults
from checkrein.gateway.visit import Visit
from checkrein.policy.redact import Names, Redactor, compile_redaction
from checkrein.policy.redact_patterns import PII_KINDS
from checkrein.world import World

DEPTH_MAX = 64
VALUES_MAX = 500_000
FAILED = "[redacted:failed]"

_NO_WORDS = frozenset({
    "id", "type", "role", "name", "model", "object", "status", "index", "call_id", "item_id",
    "tool_use_id", "tool_call_id", "encrypted_content", "signature", "finish_reason",
    "stop_reason", "system_fingerprint", "previous_response_id", "obfuscation", "media_type",
    "mime_type", "file_id", "detail", "format",
})  # fmt: skip
"""Names and ids of the protocols: nobody's words, and changed they would be others."""
_NOT_LOOKED_INTO = frozenset({
    "model", "tools", "functions", "tool_choice", "function_call", "response_format", "text",
    "output_format", "output_config", "mcp_servers", "stop", "stop_sequences", "logit_bias",
    "previous_response_id", "prompt_cache_key", "stream_options", "cache_control",
})  # fmt: skip
"""Of a request's own fields: schemas, and what only tells the provider how to answer."""

_OF_ANY = "any token"
"""For arguments: turned back even if it stands for what the agent never sent."""
Change = Callable[[str], str]


class Redaction:
    """The screen of one call; see `models.screen`. Not for two threads."""

    def __init__(
        self, redactor: Redactor, vault: Vault, known: KnownKeys, look_ahead: int = 256
    ) -> None:
        self.active = bool(redactor.kinds)
        self.counts: dict[str, int] = {}
        self.look_ahead = look_ahead
        self.names = redactor.names
        self._redactor = redactor.marking(self._hidden)
        self._vault, self._known = vault, known

    # -- to the model -------------------------------------------------------------------------

    def request(self, body: Any) -> Any:
        """The body as the model may see it; the given one is not changed. Raises Refusal."""
        try:
            if not isinstance(body, dict):
                return self._walk(body, self._hide, 0, [VALUES_MAX])
            left = [VALUES_MAX]
            return {
                name: self._field(body, name, value, self._hide, 0, left)
                if name not in _NOT_LOOKED_INTO or (name == "text" and isinstance(value, str))
                else value
                for name, value in body.items()
            }
        except _TooMuch as much:
            reason = f"the request is {much}: it cannot be looked through as `redact` asks"
            raise Refusal(413, "too_large", reason) from None
        except Exception as error:  # never with its text: it could hold what must not pass
            reason = f"the request could not be looked through ({type(error).__name__})"
            raise Refusal(500, "guard_error", reason, rule="redact") from None

    # -- to the agent -------------------------------------------------------------------------

    def value(self, value: Any) -> Any:
        """A text of an answer, or a JSON value with such: as the agent may see it. What fails is
        taken out whole."""
        try:
            return self._walk(value, self.shown, 0, [VALUES_MAX])
        except Exception:
            self._count("failed")
            return FAILED

    def channel(self) -> Pieces:
        """For one text of an answer that comes in pieces."""
        return Pieces(self)

    def arguments(self, value: Any) -> Any:
        """A tool call's arguments, as JSON or as a value: with what the tokens stand for. They are
        to be judged after this, and the tool gets them as they are."""
        try:
            if isinstance(value, str):
                return self._known.text(self.restored(value))
            return self._known.plain(self._walk(value, self.restored, 0, [VALUES_MAX], raw=True))
        except Exception:
            self._count("failed")
            return FAILED if isinstance(value, str) else {}

    def result(self, value: Any) -> Any:
        """What a tool gave back to an agent: without secrets. Personal data stay: they are the
        agent's, until it shows them to a model."""
        try:
            return self._walk(value, self._without_secrets, 0, [VALUES_MAX], raw=True)
        except Exception:
            self._count("failed")
            return FAILED

    # -- what the pieces of a stream need too -------------------------------------------------

    def shown(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        found = self.found(data)
        return self.render(data, found, is_json(text)) if found else text

    def found(self, data: bytes) -> list[tuple[int, int, str]]:
        """What to replace in a text for the agent: places in bytes, in order, with their kind:
        `token` for a token, MARK for a key of the gateway's."""
        found = self._known_places(data)
        found += self._redactor.found(data)
        if b"<" in data or b"&lt;" in data or b"\\u003" in data:
            found += [(m.start(), m.end(), "token") for m in TOKEN.finditer(data)]
        if len(found) < 2:
            return found
        found.sort(key=lambda place: (place[0], -place[1]))
        apart: list[tuple[int, int, str]] = []
        for place in found:
            if not apart or place[0] >= apart[-1][1]:
                apart.append(place)
            elif place[1] > apart[-1][1]:
                apart[-1] = (apart[-1][0], place[1], _worse(apart[-1][2], place[2]))
        return apart

    def render(self, data: bytes, found: list[tuple[int, int, str]], in_json: bool) -> str:
        parts, at = [], 0
        for start, end, kind in found:
            parts += [data[at:start], self._stands_for(kind, data[start:end], in_json)]
            at = end
        parts.append(data[at:])
        return b"".join(parts).decode("utf-8", "surrogatepass")

    def restored(self, text: str) -> str:
        """All tokens of this run turned back, nothing else."""
        if ":" not in text:
            return text
        data = text.encode("utf-8", "surrogatepass")
        places = [(m.start(), m.end(), _OF_ANY) for m in TOKEN.finditer(data)]
        return self.render(data, places, is_json(text)) if places else text

    def gone(self, kind: str) -> str:
        """What stands for a value that was not seen whole: it cannot be turned back."""
        self._count("key" if kind == MARK else kind)
        return MARK if kind == MARK else f"[redacted:{kind}]"

    def overhang(self, text: str) -> int:
        return self._known.overhang(text)

    # -- inside -------------------------------------------------------------------------------

    def _walk(
        self, value: Any, change: Change, depth: int, left: list[int], raw: bool = False
    ) -> Any:
        """`raw`: a tool's own value, in which every field is somebody's words."""
        left[0] -= 1
        if depth > DEPTH_MAX or left[0] < 0:
            raise _TooMuch("too deep" if depth > DEPTH_MAX else f"more than {VALUES_MAX} values")
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list | tuple):
            return [self._walk(each, change, depth + 1, left, raw) for each in value]
        if isinstance(value, dict):
            if raw:
                return {n: self._walk(v, change, depth + 1, left, raw) for n, v in value.items()}
            return {n: self._field(value, n, v, change, depth, left) for n, v in value.items()}
        return value

    def _field(
        self, of: dict[str, Any], name: str, value: Any, change: Change, depth: int, left: list[int]
    ) -> Any:
        if isinstance(value, str):
            if name in _NO_WORDS or _is_media(of, name, value) or (
                name == "thinking" and "signature" in of
            ):  # fmt: skip
                return value  # a signed text that is changed is refused by its provider
            if name == "arguments":
                return self._of_tool(value) if change == self._hide else self.arguments(value)
        if name == "input" and "name" in of and isinstance(value, dict | str):
            if change != self._hide:
                return self.arguments(value)
            if isinstance(value, dict):
                return self._redactor.plain(self._known.plain(value))
        if name == "tools" and isinstance(value, list):
            return value  # schemas, as a provider repeats them
        return self._walk(value, change, depth + 1, left)

    def _of_tool(self, text: str) -> str:
        """Arguments of an earlier call, in JSON: a field's name tells what its value is."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self._hide(text)
        clean = self._redactor.plain(self._known.plain(value))
        return text if clean == value else json.dumps(clean, ensure_ascii=False)

    def _hide(self, text: str) -> str:
        return self._redactor.text(self._known_out(text))

    def _without_secrets(self, text: str) -> str:
        data = self._known_out(text).encode("utf-8", "surrogatepass")
        found = [place for place in self._redactor.found(data) if place[2] not in PII_KINDS]
        return self.render(data, found, False)

    def _known_out(self, text: str) -> str:
        clean = self._known.text(text)
        if clean is not text:
            self._count("key")
        return clean

    def _known_places(self, data: bytes) -> list[tuple[int, int, str]]:
        return [(start, end, MARK) for start, end in self._known.places(data)]

    def _hidden(self, kind: str, value: bytes) -> str:
        """What the model reads in place of a value."""
        return self._out(kind, value.decode("utf-8", "surrogatepass"), True)

    def _out(self, kind: str, value: str, sent: bool) -> str:
        self._count(kind)
        token = self._vault.token(kind, value, sent) if kind in PII_KINDS else ""
        return token or f"[redacted:{kind}]"

    def _stands_for(self, kind: str, value: bytes, in_json: bool) -> bytes:
        """What the agent reads in place of what was found in a model's text."""
        if kind in ("token", _OF_ANY):
            match = TOKEN.fullmatch(value)
            original = match and self._vault.value(
                match[1].decode(), match[2].decode(), kind == "token"
            )
            if original is None:
                return value
            if in_json:
                original = json.dumps(original, ensure_ascii=False)[1:-1]
            return bytes(original.encode("utf-8", "surrogatepass"))
        if kind == MARK:
            self._count("key")
            return MARK.encode()
        text = value.decode("utf-8", "surrogatepass")
        if kind in PII_KINDS and self._vault.was_sent(kind, text):
            return value
        return self._out(kind, text, False).encode()

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


class Screens:
    """Makes the screen of each call, by its run's pact as it stands now."""

    def __init__(
        self, world: World, settings: Settings, known: KnownKeys, names: Names | None = None
    ) -> None:
        self._settings, self._known, self.names = settings, known, names
        self._vaults = Vaults(world)
        self._redactor = lru_cache(maxsize=8)(partial(compile_redaction, names=names))
        self._redactor(("secrets", "pii"))  # compiled before the first call needs it

    def __call__(self, visit: Visit) -> Redaction:
        kinds = tuple(sorted(visit.run.seat.pact.redact))
        return Redaction(
            self._redactor(kinds), self._vaults.of(visit.run), self._known,
            self._settings.look_ahead if kinds else 0,
        )  # fmt: skip


class _TooMuch(Exception):
    """A value that is too large to be looked through."""


def is_json(text: str) -> bool:
    """Whether a text is JSON by its first letter: what is turned back there is written as JSON."""
    return text.lstrip()[:1] in ("{", "[")


def _is_media(of: dict[str, Any], name: str, value: str) -> bool:
    if name == "data":
        return of.get("type") == "base64" or "format" in of
    return name in ("url", "file_data", "image_url") and value[:5] == "data:"


def _worse(kind: str, other: str) -> str:
    """Of two kinds that overlap, the one that is not turned back."""
    return other if kind == "token" or (kind in PII_KINDS and other != "token") else kind
