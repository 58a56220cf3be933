"""Conditions from their text: parsed, checked against the kinds of what they may read, compiled.

The language is a subset of CEL (https://github.com/google/cel-spec):

    literals      1  0xff  1.5  "text"  r"raw"  b"bytes"  true  null  [1, 2]  {"a": 1}
    reading       args.cents  args["cents"]  args.tags[0]  has(args.note)  "x" in args.tags
    comparing     ==  !=  <  <=  >  >=     numbers by value, texts by code points
    counting      +  -  *  /  %            64 bits, and an error beyond; 7 / 2 is 3; 7 % -2 is 1
    deciding      &&  ||  !  and  or  not  test ? yes : no
    texts         startsWith endsWith contains matches (RE2, written out) size
                  lowerAscii upperAscii trim replace split join
    lists, maps   size, and .all(x, …) .exists .exists_one .filter .map(x, …) .map(x, test, …)
    conversions   int double string bool bytes timestamp duration type dyn
    moments       + - and comparisons of timestamp("…") and duration("…"), getHours() and the like

Where it differs from CEL, on purpose: the words `and`, `or`, `not` (binding as in Python); `5u` is
an int; a whole number and a double may be mixed in arithmetic when one of them is dyn, since JSON
writes 5.0 as 5 (where both kinds are known, that is refused, as in CEL); a value declared `number`
counts as a double whatever JSON wrote; what can never be equal is refused when compiled; keys of
maps are texts and whole numbers; messages and their fields are not there. As in CEL, an error on
one side of `&&` or `||` does not matter when the other side decides.

Bounds: see `compile_condition`, and for evaluation `values.STEPS_MAX`, `operations.CHARS_MAX` and
`operations.ITEMS_MAX`; beyond them there is no value (EvaluationError).

Nothing heavy (lark, re2, Python's compiler) is imported until the first text is compiled.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from checkrein.policy.conditions.kinds import kind_of_schema, standard_names
from checkrein.policy.conditions.types import Condition, ConditionError, EvaluationError, Kind

__all__ = ["STANDARD", "compile_condition", "constancy", "kind_of_schema", "standard_names"]

STANDARD: Final[Mapping[str, Kind]] = standard_names()
CACHED_MAX = 1024

Run = Callable[[Mapping[str, Any]], Any]

_cached: "OrderedDict[tuple[str, str, bytes], Compiled]" = OrderedDict()
_lock = threading.Lock()


class Compiled:
    """A `Condition`. `node` is its checked tree."""

    __slots__ = ("_must_be_bool", "_run", "kind", "names", "node", "text")

    def __init__(
        self, text: str, node: Any, names: frozenset[str], must_be_bool: bool, run: Run
    ) -> None:
        self.text = text
        self.node = node
        self.kind: Kind = node.kind
        self.names = names
        self._must_be_bool = must_be_bool
        self._run = run

    def __repr__(self) -> str:
        return f"<condition {self.text!r}>"

    def __call__(self, facts: Mapping[str, Any]) -> Any:
        try:
            return self._run(facts)
        except Exception:
            return self._exactly(facts)

    def _exactly(self, facts: Mapping[str, Any]) -> Any:
        """Judges anew what raised: it may be an error that another part of the text outvotes."""
        from checkrein.policy.conditions.interpreting import interpret

        try:
            return interpret(self.node, facts, self._must_be_bool)
        except EvaluationError:
            raise
        except Exception as error:
            raise EvaluationError(f"{type(error).__name__}: {error}"[:200]) from error


def compile_condition(
    text: str,
    names: Mapping[str, Kind] = STANDARD,
    result: Literal["bool", "any"] = "bool",
) -> Condition:
    """A text in the subset of CEL that `conditions` documents, over these names.

    `result="bool"`: its value must be true or false, and is nothing else. At most 4 kB, 64 levels
    deep, 2,000 nodes. Raises ConditionError, with the place in the text. The same text with the
    same names is compiled once (of the last 1,024).
    """
    key = _key(text, names, result)
    if key is not None:
        with _lock:
            found = _cached.get(key)
            if found is not None:
                _cached.move_to_end(key)
                return found
    made = _compile(text, names, result == "bool")
    if key is not None:
        with _lock:
            _cached[key] = made
            if len(_cached) > CACHED_MAX:
                _cached.popitem(last=False)
    return made


def constancy(condition: Condition) -> Literal["", "true", "false"]:
    """`true`: it cannot be false; `false`: it cannot be true; else "" (or not found out).

    Looks at constants, at ranges and equalities that contradict each other, and at the same test
    said twice; errors count as neither true nor false, and NaN, which JSON cannot say, is left out.
    What a schema says of an argument's values (`enum`, `minimum` …) can make a condition `false`
    but never `true`: to check again what a schema promises is no mistake.
    """
    from checkrein.policy.conditions.constancy import found_constant

    return found_constant(condition.node) if isinstance(condition, Compiled) else ""


def _key(text: str, names: Mapping[str, Kind], result: str) -> tuple[str, str, bytes] | None:
    if names is STANDARD:
        return text, result, b""
    try:
        return text, result, msgspec.msgpack.encode(dict(names))
    except (TypeError, ValueError, OverflowError):  # an enum's number of more than 64 bits
        return None


def _compile(text: str, names: Mapping[str, Kind], must_be_bool: bool) -> Compiled:
    from checkrein.policy.conditions import checking
    from checkrein.policy.conditions.emitting import emitted
    from checkrein.policy.conditions.parsing import parse

    try:
        node, read = checking.check(parse(text), names)
        if must_be_bool:
            checking.must_be_bool(node)
        else:
            node = checking.must_be_plain(node)
        return Compiled(text, node, read, must_be_bool, emitted(node, read, must_be_bool))
    except RecursionError:  # the caller's own stack is nearly full
        raise ConditionError("nested too deeply to be compiled here") from None
