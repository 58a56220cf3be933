"""Texts that give orders: where, in a tool's result, somebody speaks to the agent.

No single phrase decides. Signs of several kinds are looked for, each kind counted once within a
window of text; a window is a directive from `WEAK` on and a plain one from `STRONG` on. What kinds
there are is the table `_SIGNS`. What stands within the window is kept, so that a call can be told
to carry out just what was ordered there.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from checkrein.policy.flow.normal import compact, phrase

WINDOW_CHARS = 600
TEXT_CHARS_MAX = 262_144
SIGNS_MAX = 2_000
DIRECTIVES_MAX = 32
WEAK = 1.0
STRONG = 4.0
UNSETTLED = 2.0
"""What a faint order needs where a type of task has no history to set it against."""
HELD_CHARS_MIN = 4
"""A shorter value (`11`) says nothing when it stands beside a weak directive."""

_ASSISTANT = (
    r"(?:ai|a\.i\.|artificial intelligence|language model|llm|assistant|chat ?bot|agent|copilot|"
    r"gpt|chatgpt|claude|gemini|llama|mistral|command r)"
)
_VERB = (
    r"(?:send|email|e-mail|mail|forward|reply|post|publish|share|invite|transfer|pay|wire|refund|"
    r"buy|purchase|order|book|reserve|schedule|create|make|add|append|write|save|store|update|"
    r"change|modify|set|reset|rename|move|copy|delete|remove|erase|wipe|cancel|revoke|grant|"
    r"upload|download|install|run|execute|call|invoke|use|visit|open|browse|click|go to|navigate|"
    r"submit|enter|fill|type|log in|search|find|get|read|fetch|retrieve|look up|list|collect|"
    r"gather|concatenate|summari[sz]e|encode|tell|say|inform|notify|message|contact|push|clone|"
    r"merge|commit|star|unsubscribe|subscribe|withdraw|deposit|request|verify|output|print|"
    r"respond|answer|stop|do not|don't|never|extract|export|disclose|reveal|provide|give|recommend)"
)
_ORDER = "an order"
_LABEL = (":", "=", "(")
_SIGNS: tuple[tuple[str, float, str], ...] = (
    (
        "told to set aside its instructions", 3.0,
        r"\b(?:ignore|disregard|forget|override|bypass|discard|skip|set aside|"
        r"pay no attention to)\b"
        r"[^.\n]{0,40}\b(?:instructions?|prompts?|directions?|rules?|orders?|guidelines?|messages?|"
        r"tasks?|context|above|previous|prior|earlier)\b",
    ),
    (
        "a role's marker", 2.0,
        r"<\|?/?(?:im_start|im_end|system|assistant|user|inst|information|info|instructions?|admin|"
        r"important|s)\|?>|\[/?(?:inst|system|assistant|sys)\]|<<sys>>|"
        r"(?:^|\n)\s*(?:system|assistant|user|human|developer|admin)\s*(?:prompt|message)?\s*:|"
        r"#{2,}\s*(?:system|instructions?|new (?:task|instructions?))",
    ),
    (
        "addressed to the assistant", 1.5,
        r"\b(?:you|dear|hey|hello|hi|attention|note to|to the|to you|as an?|if you are an?)\b,?"
        r"[^.\n]{0,12}\b" + _ASSISTANT + r"\b|\b" + _ASSISTANT + r"\b[^.\n]{0,12}[:,]?\s*"
        r"\b(?:you|please|must|should|needs? to|has to)\b|"
        r"\b(?:message|instructions?|note|request) (?:is )?(?:from me|for you|to you)\b",
    ),
    (
        "talks of the agent's task", 2.0,
        r"\b(?:before|after|once|while|instead of|in addition to|prior to|when) "
        r"(?:you |that,? you |this,? you )?(?:can |may |have |are |start(?:ed)? )?"
        r"(?:solv(?:e|ing)|do(?:ing)?|complete|completing|continu(?:e|ing)|proceed(?:ing)?|finish(?:ing)?|"
        r"answer(?:ing)?|perform(?:ing)?|execute|executing|handl(?:e|ing)|respond(?:ing)?|begin|carry)\b|"
        r"\byour (?:original|initial|main|first|actual|current|previous|new|next|real|other|"
        r"primary)?\s?(?:task|goal|instructions?|objective|job|assignment|system prompt)\b|"
        r"\b(?:the|this|my|a|any|your) (?:original|initial|first|user'?s?|new|next|following|real) "
        r"(?:task|request|instructions?|query|goal)s?\b|"
        r"\b(?:task|request|instructions?) (?:that )?(?:i|we|the user)\b|"
        r"\b(?:do|execute|perform|follow|complete|carry out) the following\b|"
        r"\bfollow (?:these|the|my|this) (?:instructions?|steps?)\b|\bnew instructions?\b|"
        r"\bsystem prompt\b",
    ),
    (
        "a command in the second person", 1.0,
        r"\byou (?:must|should|have to|need to|will|are (?:to|required|asked|instructed|supposed)|"
        r"ought to|can now|may now|shall)\b|"
        r"\b(?:make sure|be sure|remember|don't forget) (?:to|that)\b|"
        r"\b(?:please|kindly|just|simply|now|first|then|next|also|immediately|urgently|and)\b,? "
        + _VERB + r"\b|\b(?:i|we) (?:need|want|require|ask|would like|'d like) you to\b|"
        r"\b(?:could|can|would|will) you (?:please )?" + _VERB + r"\b",
    ),
    (
        _ORDER, 1.0,
        r"(?:^|[\n.!?:;>\"'(\-*#]\s{0,4}|\btodo:?\s*|\btask:?\s*|\d[.)]\s)"
        + _VERB + r"\b",
    ),
    (
        "to be done", 1.0,
        r"\b(?:todo|to-do|task|action (?:item|required|needed)|instructions?)\s*:",
    ),
    (
        "urgent or secret", 1.0,
        r"\b(?:important|urgent|critical|immediate(?:ly)?|mandatory|as soon as possible|asap)\b|"
        r"\b(?:do not|don't|never|without) (?:tell|mention|inform|notify|ask|reveal|telling|"
        r"mentioning|informing|asking|confirm|confirming|confirmation)\w*\b",
    ),
)  # fmt: skip


@cache
def _compiled() -> tuple[tuple[str, float, Any], ...]:
    """RE2: linear in the text whatever it is. Compiled when the first result is read."""
    import re2

    return tuple((name, weight, re2.compile(text)) for name, weight, text in _SIGNS)


_TOOL_SIGN = "names a tool of the agent"
_TOOL_WEIGHT = 2.0


class Directive(NamedTuple):
    """A window of text that gives orders. `words` and `bare` are its phrase and compact form."""

    score: float
    signs: tuple[str, ...]
    tool: str
    call: str
    words: str
    bare: str

    @property
    def strong(self) -> bool:
        return self.score >= STRONG

    def holds(self, value: tuple[str, str]) -> bool:
        """Whether a value (its phrase and compact form) stands in it."""
        words, bare = value
        return (len(bare) >= HELD_CHARS_MIN or self.strong) and (
            words in self.words or (len(bare) >= 6 and bare in self.bare)
        )


def find(text: str, tools: Iterable[str], tool: str, call: str) -> list[Directive]:
    """The directives in a normalised text, at most 32, the strongest kept. O(len)."""
    text = text[:TEXT_CHARS_MAX]
    signs = sorted(_signs(text, tools))
    found: list[Directive] = []
    first = 0
    while first < len(signs):
        start = signs[first][0]
        last, kinds = first, {}
        while last < len(signs) and signs[last][0] - start <= WINDOW_CHARS:
            kinds[signs[last][1]] = signs[last][2]
            last += 1
        score = sum(kinds.values())
        if score >= WEAK:
            window = text[
                max(0, start - WINDOW_CHARS // 4) : signs[last - 1][0] + WINDOW_CHARS // 2
            ]
            found.append(
                Directive(score, tuple(kinds), tool, call, phrase(window), compact(window))
            )
        first = last
    found.sort(key=lambda each: -each.score)
    return found[:DIRECTIVES_MAX]


def _signs(text: str, tools: Iterable[str]) -> Iterator[tuple[int, str, float]]:
    count = 0
    for name, weight, pattern in _compiled():
        for hit in pattern.finditer(text):
            if name == _ORDER and text[hit.end() : hit.end() + 1] in _LABEL:
                continue  # `Contact:` is a label
            yield hit.start(), name, weight
            count += 1
            if count >= SIGNS_MAX:
                return
    for tool in tools:
        if "_" in tool or "." in tool:
            place = text.find(tool.lower())
            if place >= 0:
                yield place, _TOOL_SIGN, _TOOL_WEIGHT
