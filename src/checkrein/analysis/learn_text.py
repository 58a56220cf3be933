"""The least that an agent needs, as a pact for somebody to review.

Written from what a `Learner` has seen, rounded up a little. Each comment gives the evidence, so
that a reviewer decides and does not guess; what rests on few observations stays open. A rule is
written only after the very code that will judge by it has let pass all that it was learned from,
and the text always loads.
"""

import json
import math
import posixpath
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import msgspec

from checkrein.analysis.learn import Argument, Learner, Most, Tool
from checkrein.policy.arguments import SchemaError, compile_arguments
from checkrein.policy.compiling import names_for
from checkrein.policy.conditions.types import ConditionError, EvaluationError
from checkrein.policy.kinds import seems_read
from checkrein.policy.pact import PactError, load
from checkrein.policy.pact_text import TEXT_BYTES_MAX
from checkrein.policy.scopes.types import ScopeError, ScopeKind, ScopeRule

USES_MIN = 5
"""Fewer uses than this say too little to limit an argument by."""
CHOICES_MAX = 5
SCOPES_MAX = 12
MARGIN = 1.25
BUDGET_TIMES = 2.0
"""A run like those seen stays below the share of a budget at which the agent is told of it."""
WALL_S_MAX = 360 * 86_400
_PATHS = ("path", "file", "filename", "filepath", "directory", "folder", "dir")
_URLS = ("url", "uri", "link", "endpoint", "webpage", "host", "domain")
_NULLS = ("", "~", "null")
_HEAD = "pact: x\n"


def text(learner: Learner, agent: str, *, owner: str = "", period: str = "") -> str:
    """The pact as YAML. It can be loaded as it stands, and should be read first. Of very many tools
    with very much to say of each, what does not fit into a pact's 64 KiB is left out: first what
    limits their arguments, then the tools called least."""
    head = _head(learner, agent, owner, period)
    foot = _budgets(learner.most)
    foot.append("flow: [directive]  # `learned` beside it asks about flows that a profile lacks")
    used = sorted((name for name, tool in learner.tools.items() if tool.uses), key=str)
    never = sorted(name for name, tool in learner.tools.items() if not tool.uses)
    for detail in (_whole, _plain):
        blocks = _blocks(learner, used, detail)
        whole = _joined(head, blocks, never, learner, foot)
        if len(whole.encode()) <= TEXT_BYTES_MAX:
            return whole
    kept = sorted(used, key=lambda name: -learner.tools[name].uses)
    while True:
        kept = kept[: len(kept) * 3 // 4]
        blocks = _blocks(learner, sorted(kept), _plain)
        left_out = f"# {len(used) - len(kept)} tools called less are left out: a pact is full"
        whole = _joined([*head, left_out], blocks, [], learner, foot)
        if len(whole.encode()) <= TEXT_BYTES_MAX or not kept:
            return whole


Detail = Callable[[str, Tool], list[str]]


def _joined(
    head: list[str], blocks: list[str], never: Sequence[str], learner: Learner, foot: list[str]
) -> str:
    lines = [*head, "tools:" if blocks else "tools: {}  # no call succeeded", *blocks]
    lines += [
        f"  # {quoted(name[:200])}: {learner.tools[name].failed} calls, none succeeded"
        for name in never[:50]
    ]
    if learner.dropped:
        lines.append(f"  # and {len(learner.dropped)} tools more than can be followed")
    return "\n".join([*lines, *foot]) + "\n"


def _head(learner: Learner, agent: str, owner: str, period: str) -> list[str]:
    runs = learner.most.runs
    lines = [
        f"# Learned from {runs} runs of {quoted(agent[:200])}{f' in {period}' if period else ''}. "
        "Read every line before it is pushed.",
        f"pact: {plain(_name(agent))}",
        "job: to be said  # one sentence: what is this agent for?",
    ]
    if owner.strip() and owner.strip() not in _NULLS:
        lines.append(f"owner: {plain(owner.strip()[:200])}")
    models = sorted(name for name in learner.models if name.strip() == name and name not in _NULLS)
    if models and len(models) == len(learner.models):
        listed = ", ".join(plain(_literal_pattern(name)) for name in models)
        candidate = f"models: [{listed}]"
        if _loads(_HEAD + candidate):
            lines.append(candidate)
    return lines


def _name(agent: str) -> str:
    name = agent.strip()[:120].strip()
    return f"agent {name}".strip() if name in _NULLS else name


def _blocks(learner: Learner, names: Iterable[str], detail: Detail) -> list[str]:
    """Each tool's lines; of names that look the same in YAML the first."""
    found: list[str] = []
    keys: set[str] = set()
    for name in names:
        key = plain(_literal_pattern(name))
        if key in keys:
            continue
        keys.add(key)
        tool = learner.tools[name]
        for written in (detail, _plain):
            block = written(name, tool)
            if _loads("\n".join([f"{_HEAD}tools:", *block])):
                found += block
                break
    return found


def _loads(said: str) -> bool:
    try:
        load(said, "learned")
    except PactError:
        return False
    return True


def _plain(name: str, tool: Tool) -> list[str]:
    kind, why = _kind(name, tool)
    failed = f", {tool.failed} failed" if tool.failed else ""
    return [
        f"  {plain(_literal_pattern(name))}:  # {tool.uses} calls in {tool.runs} runs{failed}",
        f"    kind: {kind}{f'  # {why}' if why else ''}",
    ]


def _whole(name: str, tool: Tool) -> list[str]:
    lines = _plain(name, tool)
    if tool.shapeless:
        return lines
    schema = _schema(tool)
    if tool.arguments:
        lines.append(f"    arguments: {_schema_text(tool, schema)}")
    if tool.uses >= USES_MIN and not lines[1].startswith("    kind: read"):
        lines += _allow(tool, schema)
    lines += _scopes(tool, "hosts", _URLS, _hosts)
    return lines + _scopes(tool, "paths", _PATHS, _folders)


def _kind(name: str, tool: Tool) -> tuple[str, str]:
    if tool.kinds:
        return tool.kinds.most_common(1)[0][0], ""
    if seems_read(name):
        return "read", "by its name; nobody has declared it"
    return "irreversible", "nobody has declared it, so the worst is taken"


# -- arguments --------------------------------------------------------------------------------


def _type(argument: Argument) -> str:
    types = set(argument.types)
    if types == {"integer", "number"}:
        return "number"
    return next(iter(types)) if len(types) == 1 else "any"


def _schema(tool: Tool) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {
            field: {} if _type(one) == "any" else {"type": _type(one)}
            for field, one in sorted(tool.arguments.items())
        },
        "required": sorted(f for f, one in tool.arguments.items() if one.uses == tool.uses),
        "additionalProperties": False,
    }


def _schema_text(tool: Tool, schema: dict[str, object]) -> str:
    """The short form where it is not taken for a JSON schema itself."""
    if tool.arguments.keys() & {"properties", "type", "$ref"}:
        return _yaml(schema)
    shape = (
        f"{plain(field)}: {_type(one)}{'' if one.uses == tool.uses else '?'}"
        for field, one in sorted(tool.arguments.items())
    )
    return f"{{{', '.join(shape)}}}"


def _yaml(value: object) -> str:
    match value:
        case dict():
            inside = (f"{plain(str(key))}: {_yaml(item)}" for key, item in value.items())
            return f"{{{', '.join(inside)}}}"
        case list():
            return f"[{', '.join(_yaml(item) for item in value)}]"
        case bool():
            return "true" if value else "false"
        case _:
            return plain(str(value))


def _allow(tool: Tool, schema: dict[str, object]) -> list[str]:
    """What limits the arguments that every call had, each tried on what was seen."""
    try:
        compile_arguments(schema)
        form = msgspec.json.encode(schema, order="deterministic").decode()
    except (SchemaError, msgspec.MsgspecError, UnicodeError):
        return []
    conditions = []
    notes = []
    for field, one in sorted(tool.arguments.items()):
        if one.uses != tool.uses or not field.isidentifier() or not field.isascii():
            continue
        condition, note = _condition(field, one)
        if condition and _holds(condition, form, field, one):
            conditions.append(condition)
            notes.append(note)
    if not conditions:
        return []
    return [f"    allow: {quoted(' && '.join(conditions))}  # {'; '.join(notes)}"]


def _condition(field: str, argument: Argument) -> tuple[str, str]:
    types = set(argument.types)
    if types <= {"integer", "number"} and not argument.odd and math.isfinite(argument.high):
        most = _above(argument.high) if "number" in types else _whole_above(max(0, argument.high))
        low = "" if argument.low < 0 else f"args.{field} >= 0 && "
        return f"{low}args.{field} <= {most}", f"{field}: {argument.low:g} to {argument.high:g}"
    few = len(argument.texts) <= CHOICES_MAX and argument.uses >= 2 * len(argument.texts)
    names_one = field.lower() == "id" or field.lower().endswith("_id")  # the next is another
    if types == {"string"} and not argument.many and few and not names_one:
        texts = ", ".join(json.dumps(one) for one in sorted(argument.texts))
        return f"args.{field} in [{texts}]", f"{field}: {len(argument.texts)} values"
    return "", ""


def _holds(condition: str, schema: str, field: str, argument: Argument) -> bool:
    """Whether it can be read over these arguments, and is true of all that was seen."""
    from checkrein.policy.conditions.compiling import compile_condition, constancy

    seen: list[object] = list(argument.texts)
    if not seen:
        seen = [argument.low, argument.high, int(argument.high), float(argument.low)]
    try:
        compiled = compile_condition(condition, names_for(schema))
        return not constancy(compiled) and all(
            compiled({"args": {field: value}}) is True for value in seen
        )
    except (ConditionError, EvaluationError):
        return False


# -- scopes -----------------------------------------------------------------------------------


def _scopes(
    tool: Tool, kind: ScopeKind, words: tuple[str, ...], patterns: Callable[[str], str]
) -> list[str]:
    found = []
    for field, one in sorted(tool.arguments.items()):
        word = field.lower()
        if not any(word == each or word.endswith(f"_{each}") for each in words):
            continue
        if set(one.types) != {"string"} or one.many or not field.isidentifier():
            continue
        allowed = sorted({patterns(value) for value in one.texts})
        if "" in allowed or len(allowed) > SCOPES_MAX:
            continue
        if _inside(kind, field, allowed, one.texts):
            found.append(f"{quoted('args.' + field)}: [{', '.join(map(quoted, allowed))}]")
    return [f"    {kind}: {{{', '.join(found)}}}"] if found else []


def _inside(kind: ScopeKind, field: str, allowed: list[str], values: Iterable[str]) -> bool:
    from checkrein.policy.scopes.compiling import compile_scope

    try:
        scope = compile_scope(ScopeRule(kind=kind, argument=field, allow=tuple(allowed)))
    except ScopeError:
        return False
    return not any(scope.judge({field: value}) for value in values)


def _hosts(value: str) -> str:
    try:
        host = urlsplit(value if "://" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""
    return "" if any(sign in host for sign in "*?[]!") else host


def _folders(value: str) -> str:
    folder = posixpath.dirname(value)
    if not folder or folder == "/" or any(sign in folder for sign in "*?[]!"):
        return ""
    return f"{folder}/**"


# -- budgets ----------------------------------------------------------------------------------


def _budgets(most: Most) -> list[str]:
    if not most.runs:
        return []
    said = [
        f"{name}: {_whole_above(getattr(most, name), BUDGET_TIMES)}"
        for name in ("steps", "tool_calls", "tokens") if 0 < getattr(most, name) < 1e11
    ]  # fmt: skip
    if 1e-6 < most.usd < 1e9 and not most.unpriced:
        said.append(f"usd: {_above(most.usd, BUDGET_TIMES)}")
    if 0 < most.wall_s < WALL_S_MAX:
        said.append(f"wall: {max(60, math.ceil(most.wall_s * BUDGET_TIMES))}s")
    said = [one for one in said if _loads(f"{_HEAD}budgets: {{{one}}}")]
    if not said:
        return []
    return [f"budgets: {{{', '.join(said)}}}  # twice the most that any of {most.runs} runs took"]


def _whole_above(value: float, times: float = MARGIN) -> str:
    """Two digits are enough for a limit, and a limit is a whole number."""
    wanted = math.ceil(value * times)
    size = 10 ** max(0, len(str(wanted)) - 2)
    return str(-(-wanted // size) * size)


def _above(value: float, times: float = MARGIN) -> str:
    """A little above, in decimals that a person would write."""
    if value <= 0:
        return "0"
    wanted = value * times
    if wanted >= 10:
        return _whole_above(value, times)
    digits = max(0, 1 - math.floor(math.log10(wanted)))
    if digits > 12:
        return "0.000000000001"
    rounded = math.ceil(wanted * 10**digits) / 10**digits
    return f"{rounded:.{digits}f}".removesuffix(".0")


# -- texts ------------------------------------------------------------------------------------


def _literal_pattern(name: str) -> str:
    """A name as a pattern that matches itself alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def plain(said: str) -> str:
    """As it stands where YAML reads that as this very text, else in quotes."""
    wordy = said.isascii() and said.replace("_", "a").replace("-", "a").replace(".", "a").isalnum()
    told_apart = said[:1].isalpha() and said.lower() not in (
        "true", "false", "null", "yes", "no", "on", "off", "y", "n",
    )  # fmt: skip
    return said if wordy and told_apart else quoted(said)


def quoted(said: str) -> str:
    """In double quotes, on one line, as YAML reads it. Half characters become `?`."""
    whole = said.encode("utf-8", "replace").decode("utf-8")
    return f'"{"".join(_shown(char) for char in whole)}"'


def _shown(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if " " <= char <= "~" or (char.isalpha() and char.isprintable()):
        return char
    return f"\\U{ord(char):08x}"
