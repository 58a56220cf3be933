"""The interpreter: what a checked condition means, node by node, errors and all.

It is the reference for the compiled form (`emitting`), and judges anew what that could not: as in
CEL, `false && error` is false and `true || error` is true, whichever side comes first.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions import operations as o
from checkrein.policy.conditions import values as v
from checkrein.policy.conditions.macros import elements
from checkrein.policy.conditions.patterns import compiled
from checkrein.policy.conditions.types import EvaluationError


def interpret(node: n.Node, facts: Mapping[str, Any], must_be_bool: bool = False) -> Any:
    """Its value. Raises EvaluationError, or what an operation raised."""
    interpreter = _Interpreter(facts)
    return interpreter.truth(node) if must_be_bool else interpreter.value(node)


class _Interpreter:
    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._budget = [v.STEPS_MAX]
        self._locals: dict[int, Any] = {}

    def value(self, node: n.Node) -> Any:
        # By a table: a `match` over 13 classes takes three times as long.
        return _READ[type(node)](self, node)

    def truth(self, node: n.Node) -> bool:
        return v.truth(self.value(node))

    def literal(self, node: n.Literal) -> Any:
        return node.value

    def name(self, node: n.Name) -> Any:
        try:
            return self._facts[node.name]
        except KeyError:
            raise EvaluationError(f"`{node.name}` is not known here") from None

    def local(self, node: n.Local) -> Any:
        return self._locals[node.number]

    def select(self, node: n.Select) -> Any:
        return o.field(self.value(node.operand), node.field)

    def has(self, node: n.Has) -> bool:
        return o.has(self.value(node.operand), node.field)

    def call(self, node: n.Call) -> Any:
        values = [self.value(argument) for argument in node.arguments]
        if node.word in o.LINEAR:
            return o.OPERATIONS[node.word](*values, budget=self._bound())
        return o.OPERATIONS[node.word](*values)

    def matches(self, node: n.Matches) -> bool:
        return o.matches(self.value(node.operand), compiled(node.pattern), self._bound())

    def logic(self, node: n.Logic) -> bool:
        return _decided(node.any, self.truth, node.terms)

    def refusal(self, node: n.Not) -> bool:
        return not self.truth(node.operand)

    def choice(self, node: n.Choice) -> Any:
        return self.value(node.yes if self.truth(node.test) else node.no)

    def list_of(self, node: n.ListOf) -> list[Any]:
        return [self.value(item) for item in node.items]

    def map_of(self, node: n.MapOf) -> dict[Any, Any]:
        return o.map_of(*((self.value(key), self.value(each)) for key, each in node.entries))

    def macro(self, node: n.Macro) -> Any:
        found = elements(self.value(node.over), self._budget, node.body.size)

        def bound(each: Any, what: n.Node) -> Any:
            self._locals[node.number] = each
            return self.value(what)

        def true(each: Any) -> bool:
            return v.truth(bound(each, node.body))

        try:
            match node.word:
                case "all" | "exists":
                    return _decided(node.word == "exists", true, found)
                case "exists_one":
                    return sum(true(each) for each in found) == 1
                case "filter":
                    return [each for each in found if true(each)]
                case _:
                    test = node.test
                    return [
                        bound(each, node.body)
                        for each in found
                        if test is None or v.truth(bound(each, test))
                    ]
        finally:
            self._locals.pop(node.number, None)

    def _bound(self) -> v.Budget | None:
        return self._budget if self._locals else None


def _decided(decisive: bool, test: Callable[[Any], bool], given: Iterable[Any]) -> bool:
    """The decisive value as soon as one gives it, whatever others raise; else their error."""
    failed: Exception | None = None
    for each in given:
        try:
            if test(each) is decisive:
                return decisive
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return not decisive


_READ: Final[dict[type[n.Node], Callable[[_Interpreter, Any], Any]]] = {
    n.Literal: _Interpreter.literal, n.Name: _Interpreter.name, n.Local: _Interpreter.local,
    n.Select: _Interpreter.select, n.Has: _Interpreter.has, n.Call: _Interpreter.call,
    n.Matches: _Interpreter.matches, n.Logic: _Interpreter.logic, n.Not: _Interpreter.refusal,
    n.Choice: _Interpreter.choice, n.ListOf: _Interpreter.list_of, n.MapOf: _Interpreter.map_of,
    n.Macro: _Interpreter.macro,
}  # fmt: skip
