"""OpenAI's chat completions on their way to the agent: calls taken out, text screened. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from checkrein.gateway.models.calls import (
    NO_ID,
    Item,
    Outcome,
    Proposed,
    Result,
    dicts,
    parsed,
    text_of,
)
from checkrein.gateway.models.screen import Channel, Screen, screened

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_LEGACY = -1
"""The place of a `function_call`, which came before `tool_calls`."""

Holds = Callable[[str], bool]


def results(body: Mapping[str, Any]) -> list[Result]:
    """What became of earlier calls, as the request tells."""
    found = []
    for message in dicts(body.get("messages")):
        if message.get("role") == "tool":
            found.append(Result(str(message.get("tool_call_id", "")), _said(message)))
        elif message.get("role") == "function":
            found.append(Result(f"{NO_ID}{message.get('name', '')}", _said(message)))
    return found


def _said(message: Item) -> Any:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in dicts(content))
    return content


def provider_tools(body: Mapping[str, Any]) -> list[str]:
    """Tools that the provider runs itself."""
    found = [
        str(tool.get("type"))
        for tool in dicts(body.get("tools"))
        if tool.get("type") not in ("function", "custom")
    ]
    return [*found, "web_search"] if body.get("web_search_options") is not None else found


def proposed(answer: Item) -> list[Proposed]:
    found = []
    for choice in dicts(answer.get("choices")):
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        for call in dicts(message.get("tool_calls")):
            found.append(_proposed(call, (choice, call)))
        if isinstance(message.get("function_call"), dict):
            found.append(_proposed({"function": message["function_call"]}, (choice, None)))
    return found


def _proposed(call: Item, where: Any) -> Proposed:
    """A call of a function, or of a tool that takes a text of its own kind."""
    inner = call.get("function")
    if isinstance(inner, dict):
        name = str(inner.get("name", ""))
        arguments = parsed(inner.get("arguments"))
    else:
        custom = call.get("custom")
        inner = custom if isinstance(custom, dict) else {}
        name, arguments = str(inner.get("name", "")), inner.get("input")
    return Proposed(str(call.get("id") or f"{NO_ID}{name}"), name, arguments, where)


def _with(call: Item, arguments: Any) -> Item:
    """The call with these arguments, encoded anew."""
    for kind, field in (("function", "arguments"), ("custom", "input")):
        inner = call.get(kind)
        if isinstance(inner, dict):
            return {**call, kind: {**inner, field: text_of(arguments)}}
    return call


def settle(answer: Item, settled: list[tuple[Proposed, Outcome]]) -> None:
    """Changes an answer by what was decided of its calls."""
    for call, outcome in settled:
        choice, entry = call.where
        message = choice["message"]
        calls = message.get("tool_calls")
        if outcome.refused:
            content = message.get("content")
            before = f"{content}\n\n" if isinstance(content, str) and content else ""
            message["content"] = before + outcome.refused
            if entry is None:
                del message["function_call"]
            else:
                message["tool_calls"] = calls = [one for one in calls if one is not entry]
                if not calls:
                    del message["tool_calls"]
            choice["finish_reason"] = _finish(choice, bool(calls) or "function_call" in message)
        elif entry is None:
            whole = _with({"function": message["function_call"]}, outcome.arguments)
            message["function_call"] = whole["function"]
        else:
            entry.update(_with(entry, outcome.arguments))


def _finish(choice: Item, calls_left: bool) -> Any:
    finish = choice.get("finish_reason")
    return "stop" if finish in ("tool_calls", "function_call") and not calls_left else finish


def screen_whole(answer: Item, screen: Screen) -> Item:
    """All that is text in an answer."""
    for choice in dicts(answer.get("choices")):
        message = choice.get("message")
        if isinstance(message, dict):
            choice["message"] = screened(message, screen)
        if choice.get("logprobs"):
            choice["logprobs"] = None  # the same text once more, in pieces
    return answer


class Flow:
    """As `calls.Flowing`. Calls are judged when their choice has finished."""

    def __init__(self, screen: Screen, holds: Holds | None) -> None:
        self.waiting: list[Proposed] = []
        self.ended = False
        self._screen = screen
        self._holds = holds
        self._plain = holds is None and not screen.active
        self._choices: dict[int, _Choice] = {}
        self._frame: Item = {}
        self._behind: list[Item] = []

    def take(self, name: str, item: Item) -> list[Item]:
        choices = item.get("choices")
        if not isinstance(choices, list):
            return [item]
        if self._plain:
            for choice in choices:
                if choice.get("finish_reason"):
                    self.ended = True
            return [item]
        out: list[Item] = []
        keeps = not choices
        for choice in dicts(choices):
            keeps = self._choice(item, choice, out) or keeps
        if not keeps and item.get("usage") is None:
            return out
        if self.waiting:
            self._behind.append(item)
            return out
        return [*out, item]

    def _choice(self, item: Item, choice: Item, out: list[Item]) -> bool:
        """Takes out of a choice what is held back; whether something is left in it."""
        state = self._choices.setdefault(choice.get("index", 0), _Choice())
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        was_empty = not delta
        calls = delta.pop("tool_calls", None)
        if calls:
            live = [one for call in dicts(calls) if (one := self._call(state, call)) is not None]
            if live:
                delta["tool_calls"] = live
        legacy = delta.pop("function_call", None)
        if isinstance(legacy, dict):
            self._call(state, {"index": _LEGACY, "function": legacy})
        if self._screen.active:
            self._text(state, choice, delta)
        if delta.get("content"):
            state.said = True
        finish = choice.get("finish_reason")
        if finish:
            self.ended = True
            self._frame = {key: value for key, value in item.items() if key != "usage"}
            rest = {field: text for field, channel in state.texts.items()
                    if (text := channel.finish())}  # fmt: skip
            state.texts.clear()
            if rest:
                out.append(self._chunk(choice, rest))
            self.waiting += [
                _proposed(call.whole(), (choice, state, call))
                for call in state.calls.values() if call.held
            ]  # fmt: skip
            return True
        return was_empty or bool(delta)

    def _call(self, state: "_Choice", piece: Item) -> Item | None:
        """A piece of a call: kept, or given back when calls of its tool are not held."""
        index = piece.get("index", 0)
        call = state.calls.get(index)
        if call is None:
            inner = piece.get("function") or piece.get("custom") or {}
            name = inner.get("name") or ""
            held = (
                self._screen.active or index == _LEGACY
                or (self._holds is not None and self._holds(name))
            )  # fmt: skip
            call = state.calls[index] = _Call(held, piece)
            if not call.held:
                call.number = state.passed
                state.passed += 1
        if not call.held:
            return {**piece, "index": call.number}
        call.add(piece)
        return None

    def _text(self, state: "_Choice", choice: Item, delta: Item) -> None:
        if choice.get("logprobs"):
            choice["logprobs"] = None
        for field in _TEXTS:
            piece = delta.get(field)
            if isinstance(piece, str) and piece:
                channel = state.texts.get(field)
                if channel is None:
                    channel = state.texts[field] = self._screen.channel()
                passed = channel.text(piece)
                if passed:
                    delta[field] = passed
                else:
                    del delta[field]

    def settle(self, call: Proposed, outcome: Outcome) -> list[Item]:
        choice, state, kept = call.where
        if outcome.refused:
            before = "\n\n" if state.said else ""
            state.said = True
            return [self._chunk(choice, {"content": before + outcome.refused})]
        whole = _with(kept.whole(), outcome.arguments)
        if kept.index == _LEGACY:
            state.passed += 1
            return [self._chunk(choice, {"function_call": whole["function"]})]
        whole["index"] = state.passed
        state.passed += 1
        return [self._chunk(choice, {"tool_calls": [whole]})]

    def resume(self) -> list[Item]:
        self.waiting = []
        behind, self._behind = self._behind, []
        for item in behind:
            for choice in dicts(item.get("choices")):
                state = self._choices.get(choice.get("index", 0))
                if state is not None:
                    choice["finish_reason"] = _finish(choice, state.passed > 0)
                    state.calls.clear()
        return behind

    def _chunk(self, choice: Item, delta: Item) -> Item:
        one = {"index": choice.get("index", 0), "delta": delta, "finish_reason": None}
        return self._frame | {"choices": [one | {"logprobs": None}]}


class _Choice:
    """What is known of one choice: its calls, how many went on, its texts under way."""

    __slots__ = ("calls", "passed", "said", "texts")

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self.passed = 0
        self.said = False
        self.texts: dict[str, Channel] = {}


class _Call:
    __slots__ = ("first", "held", "index", "number", "parts", "text")

    def __init__(self, held: bool, first: Item) -> None:
        self.held = held
        self.first = first
        self.index = first.get("index", 0)
        self.number = 0
        self.text: list[str] = []
        self.parts: Item = {}

    def add(self, piece: Item) -> None:
        for key, value in piece.items():
            if key in ("function", "custom") and isinstance(value, dict):
                kept = self.parts.setdefault(key, {})
                for name, text in value.items():
                    if name in ("arguments", "input"):
                        if isinstance(text, str):
                            self.text.append(text)
                    elif name == "name" and isinstance(text, str):
                        kept[name] = kept.get(name, "") + text
                    elif text is not None:
                        kept[name] = text
            elif value is not None:
                self.parts[key] = value

    def whole(self) -> Item:
        """The call as one piece."""
        found = dict(self.parts)
        for kind, field in (("function", "arguments"), ("custom", "input")):
            if kind in found:
                found[kind] = {**found[kind], field: "".join(self.text)}
        return found
