"""OpenAI's responses on their way to the agent: calls taken out, text screened. Pure."""

from collections.abc import Mapping
from typing import Any

from checkrein.gateway.models.calls import (
    Item,
    Outcome,
    Proposed,
    Result,
    dicts,
    parsed,
    text_of,
)
from checkrein.gateway.models.chat import Holds
from checkrein.gateway.models.screen import Channel, Screen, screened

_ARGUMENTS = {
    "function_call": "arguments", "custom_tool_call": "input", "computer_call": "action",
    "local_shell_call": "action", "shell_call": "action", "apply_patch_call": "operation",
}  # fmt: skip
"""The kinds of calls that the agent makes itself, and where each has its arguments."""
_AGENTS_TOOLS = frozenset({
    "function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview",
    "computer-preview", "namespace",
})  # fmt: skip
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_LIVE = frozenset({
    "response.output_text.delta", "response.refusal.delta", "response.reasoning_text.delta",
    "response.reasoning_summary_text.delta",
})  # fmt: skip


def results(body: Mapping[str, Any]) -> list[Result]:
    """What became of earlier calls, as the request tells."""
    return [
        Result(str(item.get("call_id", "")), _said(item.get("output")))
        for item in dicts(body.get("input"))
        if str(item.get("type") or "").endswith("_output")
    ]


def _said(output: Any) -> Any:
    parts = list(dicts(output))
    if parts and all("text" in part for part in parts):
        return "".join(str(part.get("text", "")) for part in parts)
    return output


def provider_tools(body: Mapping[str, Any]) -> list[str]:
    """Tools that the provider runs itself."""
    found = []
    for tool in dicts(body.get("tools")):
        kind = str(tool.get("type"))
        if kind == "shell":
            environment = tool.get("environment")
            hosted = isinstance(environment, dict) and environment.get("type") != "local"
            if hosted:
                found.append(kind)
        elif kind == "mcp":
            found.append(f"mcp:{tool.get('server_label', '')}")
        elif kind not in _AGENTS_TOOLS:
            found.append(kind)
    return found


def proposed(answer: Item) -> list[Proposed]:
    return [
        _proposed(item) for item in dicts(answer.get("output")) if item.get("type") in _ARGUMENTS
    ]


def _proposed(item: Item) -> Proposed:
    kind = str(item.get("type"))
    name = str(item.get("name") or kind.removesuffix("_call"))
    arguments = item.get(_ARGUMENTS[kind])
    if kind == "function_call":
        arguments = parsed(arguments)
    elif kind == "computer_call" and arguments is None:
        arguments = item.get("actions")
    return Proposed(str(item.get("call_id") or item.get("id", "")), name, arguments, item)


def _settled(item: Item, outcome: Outcome) -> Item:
    """What stands in the place of a call."""
    if outcome.refused:
        part = {"type": "output_text", "text": outcome.refused, "annotations": [], "logprobs": []}
        return {
            "id": f"msg_{str(item.get('id') or item.get('call_id') or '')[-48:]}",
            "type": "message", "role": "assistant", "status": "completed", "content": [part],
        }  # fmt: skip
    kind = str(item.get("type"))
    field = _ARGUMENTS[kind]
    if kind in ("function_call", "custom_tool_call"):
        return item | {field: text_of(outcome.arguments)}
    if field in item:
        return item | {field: outcome.arguments}
    return item | {"actions": outcome.arguments} if "actions" in item else item


def settle(answer: Item, settled: list[tuple[Proposed, Outcome]]) -> None:
    """Changes an answer by what was decided of its calls."""
    instead = {id(call.where): _settled(call.where, outcome) for call, outcome in settled}
    answer["output"] = [instead.get(id(item), item) for item in answer.get("output") or ()]


def screen_whole(answer: Item, screen: Screen) -> Item:
    """All that is text in an answer."""
    if isinstance(answer.get("output"), list):
        answer["output"] = screened(answer["output"], screen)
    return answer


class Flow:
    """As `calls.Flowing`. A call is judged when its item is done; the last event repeats the whole
    answer, and with it what was decided. Events are numbered anew, as some are left out."""

    def __init__(self, screen: Screen, holds: Holds | None) -> None:
        self.waiting: list[Proposed] = []
        self.ended = False
        self._screen = screen
        self._holds = holds
        self._plain = holds is None and not screen.active
        self._number = -1
        self._held: dict[int, Item] = {}
        self._instead: dict[str, Item] = {}
        self._texts: dict[tuple[Any, ...], tuple[Channel, Item]] = {}
        self._behind: list[Item] = []

    def take(self, name: str, item: Item) -> list[Item]:
        kind = item.get("type")
        if kind in _ENDS:
            self.ended = True
        if self._plain:
            return [item]
        return self._numbered(self._taken(str(kind), item))

    def _numbered(self, items: list[Item]) -> list[Item]:
        for item in items:
            self._number += 1
            item["sequence_number"] = self._number
        return items

    def _taken(self, kind: str, item: Item) -> list[Item]:
        index = item.get("output_index", -1)
        inner = item.get("item")
        if kind == "response.output_item.added" and self._is_held(inner):
            self._held[index] = item
            return []
        if kind == "response.output_item.done" and isinstance(inner, dict):
            return self._done(index, inner, item)
        if index in self._held:
            return []
        if self._screen.active:
            if kind in _LIVE:
                return self._text(kind, item)
            flushed = self._flushed(kind, item)
            if not kind.startswith("response.function_call_arguments"):
                item = screened(item, self._screen)
            return [*flushed, *self._last(kind, item)]
        return self._last(kind, item)

    def _is_held(self, inner: Any) -> bool:
        if not isinstance(inner, dict) or inner.get("type") not in _ARGUMENTS:
            return False
        name = str(inner.get("name") or str(inner["type"]).removesuffix("_call"))
        return self._screen.active or (self._holds is not None and self._holds(name))

    def _done(self, index: Any, inner: Item, item: Item) -> list[Item]:
        added = self._held.pop(index, None)
        if added is None and not self._is_held(inner):
            return [screened(item, self._screen) if self._screen.active else item]
        call = _proposed(inner)
        self.waiting.append(call._replace(where=(inner, added, item)))
        return []

    def _last(self, kind: str, item: Item) -> list[Item]:
        """The events that carry the whole answer: calls that did not come as items are judged."""
        answer = item.get("response")
        if not isinstance(answer, dict) or not answer.get("output"):
            return [item]
        output: list[Any] = []
        for one in answer["output"]:
            mark = _mark(one)
            output.append(self._instead.get(mark, one) if mark else one)
            if mark and mark not in self._instead and self._is_held(one):
                self.waiting.append(_proposed(one)._replace(where=(one, None, None)))
        answer["output"] = output
        if self.waiting:
            self._behind.append(item)
            return []
        return [item]

    def settle(self, call: Proposed, outcome: Outcome) -> list[Item]:
        inner, _, done = call.where
        instead = self._instead[_mark(inner)] = _settled(inner, outcome)
        if done is None:
            return []
        index = done.get("output_index", 0)
        where = {"output_index": index, "item_id": instead.get("id", "")}
        events = [{"type": "response.output_item.added", "output_index": index,
                   "item": _opened(instead)}]  # fmt: skip
        if outcome.refused:
            part = instead["content"][0]
            at = where | {"content_index": 0}
            events += [
                {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
                {"type": "response.output_text.delta", **at, "delta": part["text"], "logprobs": []},
                {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
                {"type": "response.content_part.done", **at, "part": part},
            ]
        elif inner.get("type") in ("function_call", "custom_tool_call"):
            field = _ARGUMENTS[inner["type"]]
            base = ("response.function_call_arguments" if field == "arguments"
                    else "response.custom_tool_call_input")  # fmt: skip
            name = {"name": instead["name"]} if field == "arguments" and "name" in instead else {}
            events += [
                {"type": f"{base}.delta", **where, "delta": instead[field]},
                {"type": f"{base}.done", **where, field: instead[field], **name},
            ]
        return self._numbered([*events, done | {"item": instead}])

    def resume(self) -> list[Item]:
        self.waiting = []
        behind, self._behind = self._behind, []
        for item in behind:
            answer = item["response"]
            answer["output"] = [self._instead.get(_mark(one), one) for one in answer["output"]]
        return self._numbered(behind)

    # -- text that is screened ----------------------------------------------------------------

    def _text(self, kind: str, item: Item) -> list[Item]:
        key = _place(kind, item)
        if key not in self._texts:
            self._texts[key] = (self._screen.channel(), item)
        passed = self._texts[key][0].text(str(item.get("delta") or ""))
        item = item | {"delta": passed}
        if "logprobs" in item:
            item["logprobs"] = []
        return [item] if passed else []

    def _flushed(self, kind: str, item: Item) -> list[Item]:
        """What a text has left when it is done."""
        if not kind.endswith(".done"):
            return []
        found = self._texts.pop(_place(f"{kind.removesuffix('.done')}.delta", item), None)
        rest = found[0].finish() if found is not None else ""
        return [found[1] | {"delta": rest}] if found is not None and rest else []


def _place(kind: str, item: Item) -> tuple[Any, ...]:
    return (kind, item.get("item_id"), item.get("content_index"), item.get("summary_index"))


def _mark(item: Any) -> str:
    """Names a call within one answer."""
    if not isinstance(item, dict) or item.get("type") not in _ARGUMENTS:
        return ""
    return f"{item.get('type')} {item.get('call_id') or item.get('id') or ''}"


def _opened(item: Item) -> Item:
    """An item as it is when it begins."""
    opened = item | {"status": "in_progress"}
    if item.get("type") == "message":
        opened["content"] = []
    for field in ("arguments", "input"):
        if isinstance(item.get(field), str):
            opened[field] = ""
    return opened
