"""The interpreter: what a checked condition means, node by node, errors and all.

It is the reference for the compiled form (`emitting`), and judges anew what that could not: as in
CEL, `false && error` is false and `true || error` is true, whichever side comes first.
"""

from collections.abc import Callable, Mapping
from typing import Any

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
        match node:
            case n.Literal(value=value):
                return value
            case n.Name(name=name):
                return self._fact(name)
            case n.Local(number=number):
                return self._locals[number]
            case n.Select(operand=operand, field=field):
                return o.field(self.value(operand), field)
            case n.Has(operand=operand, field=field):
                return o.has(self.value(operand), field)
            case n.Call():
                return self._call(node)
            case n.Matches(operand=operand, pattern=pattern):
                return o.matches(self.value(operand), compiled(pattern), self._bound())
            case n.Logic(any=decisive, terms=terms):
                return self._decided(decisive, ((self.truth, (term,)) for term in terms))
            case n.Not(operand=operand):
                return not self.truth(operand)
            case n.Choice(test=test, yes=yes, no=no):
                return self.value(yes if self.truth(test) else no)
            case n.ListOf(items=items):
                return [self.value(item) for item in items]
            case n.MapOf(entries=entries):
                return o.map_of(*((self.value(key), self.value(each)) for key, each in entries))
            case n.Macro():
                return self._macro(node)
            case _:
                raise EvaluationError("cannot be read")

    def truth(self, node: n.Node) -> bool:
        return v.truth(self.value(node))

    def _fact(self, name: str) -> Any:
        try:
            return self._facts[name]
        except KeyError:
            raise EvaluationError(f"`{name}` is not known here") from None

    def _bound(self) -> v.Budget | None:
        return self._budget if self._locals else None

    def _call(self, node: n.Call) -> Any:
        values = [self.value(argument) for argument in node.arguments]
        if node.word in o.LINEAR:
            return o.OPERATIONS[node.word](*values, budget=self._bound())
        return o.OPERATIONS[node.word](*values)

    def _macro(self, node: n.Macro) -> Any:
        found = elements(self.value(node.over), self._budget, node.body.size)

        def bound(each: Any, what: n.Node) -> Any:
            self._locals[node.number] = each
            return self.value(what)

        def true(each: Any) -> bool:
            return v.truth(bound(each, node.body))

        try:
            match node.word:
                case "all" | "exists":
                    return self._decided(node.word == "exists", ((true, (x,)) for x in found))
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

    def _decided(self, decisive: bool, tests: Any) -> bool:
        """The decisive value as soon as one gives it, whatever others raise; else their error."""
        failed: Exception | None = None
        test: Callable[..., bool]
        for test, given in tests:
            try:
                if test(*given) is decisive:
                    return decisive
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return not decisive
