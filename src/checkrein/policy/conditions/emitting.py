"""A checked condition as a Python function.

Why code and not closures: for `args.currency == "USD" && args.cents <= 5000` a closure for each
node takes twice the time of the function below, and would have to check more to be as exact (see
`benches/bench_conditions.py`). It is as safe: Python's own syntax tree is built from the checked
nodes, no source text is ever written or read; the only names in it are made here, every literal is
a constant, and the function sees no builtins but those listed.

The function holds the common case only. It tests the types it was promised where the work is done,
hands all else to `operations`, and lets errors out: then the interpreter judges anew.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final

from checkrein.policy.conditions import nodes as n
from checkrein.policy.conditions import operations as o
from checkrein.policy.conditions import values as v
from checkrein.policy.conditions.checking import may_lie
from checkrein.policy.conditions.macros import MACROS
from checkrein.policy.conditions.patterns import compiled

Run = Callable[[Mapping[str, Any]], Any]

_CLASSES: Final = {"int": "int", "double": "float", "string": "str", "bool": "bool"}
_NUMBERS: Final = frozenset({"int", "double"})
_COMPARED: Final[dict[str, type[ast.cmpop]]] = {
    "equal": ast.Eq, "unequal": ast.NotEq, "less": ast.Lt, "at_most": ast.LtE,
    "greater": ast.Gt, "at_least": ast.GtE,
}  # fmt: skip
_SAME: Final[dict[str, type[ast.cmpop]]] = {"equal": ast.Is, "unequal": ast.IsNot}
_ENDS: Final = {"starts_with": "startswith", "ends_with": "endswith"}
_WORLD: Final[dict[str, Any]] = {
    "type": type, "int": int, "float": float, "str": str, "bool": bool, "dict": dict,
    "truth": v.truth, "has": o.has, "matches": o.matches, "map_of": o.map_of,
    **{f"do_{name}": operation for name, operation in o.OPERATIONS.items()},
    **{f"macro_{name}": macro for name, macro in MACROS.items()},
}  # fmt: skip


def emitted(node: n.Node, names: frozenset[str], must_be_bool: bool) -> Run:
    """The function of its facts. It raises whatever Python and the operations raise."""
    emitter = _Emitter(names)
    body = emitter.test(node) if must_be_bool else emitter.value(node)
    statements: list[ast.stmt] = [
        ast.Assign([_store(local)], _item(_name("facts"), name))
        for name, local in emitter.names.items()
    ]
    if emitter.bounded:
        steps = ast.List([ast.Constant(v.STEPS_MAX)], ast.Load())
        statements.append(ast.Assign([_store("budget")], steps))
    function = ast.FunctionDef(
        "condition", _arguments("facts"), [*statements, ast.Return(body)], [], None
    )
    module = ast.fix_missing_locations(ast.Module([function], []))
    world = {"__builtins__": {}, **_WORLD, **emitter.constants}
    exec(compile(module, "<condition>", "exec"), world)  # noqa: S102 - no text: see above
    made: Run = world["condition"]
    return made


class _Emitter:
    def __init__(self, names: frozenset[str]) -> None:
        self.names = {name: f"name_{number}" for number, name in enumerate(sorted(names))}
        self.constants: dict[str, Any] = {}
        self.bounded = False
        self._temporaries = 0
        self._macros_deep = 0

    def value(self, node: n.Node) -> ast.expr:
        match node:
            case n.Literal(value=value):
                return self._constant(value)
            case n.Name(name=name):
                return _name(self.names[name])
            case n.Local(number=number):
                return _name(f"local_{number}")
            case n.Select(operand=operand, field=field):
                return _item(self.value(operand), field)
            case n.Has(operand=operand, field=field):
                return self._has(operand, field)
            case n.Call():
                return self._call(node)
            case n.Matches(operand=operand, pattern=pattern):
                test = self._kept(compiled(pattern))
                return _calling("matches", self.value(operand), test, *self._budget())
            case n.Logic(any=any_of, terms=terms):
                word = ast.Or() if any_of else ast.And()
                return ast.BoolOp(word, [self.test(term) for term in terms])
            case n.Not(operand=operand):
                return ast.UnaryOp(ast.Not(), self.test(operand))
            case n.Choice(test=test, yes=yes, no=no):
                return ast.IfExp(self.test(test), self.value(yes), self.value(no))
            case n.ListOf(items=items):
                return ast.List([self.value(item) for item in items], ast.Load())
            case n.MapOf(entries=entries):
                pairs = [ast.Tuple([self.value(a), self.value(b)], ast.Load()) for a, b in entries]
                return _calling("map_of", *pairs)
            case n.Macro():
                return self._macro(node)
            case _:
                raise TypeError(f"no code for {type(node).__name__}")

    def test(self, node: n.Node) -> ast.expr:
        """Its value, which is a bool or an error."""
        if node.kind.name == "bool" and not may_lie(node):
            return self.value(node)
        first, again = self._twice(self.value(node))
        return ast.IfExp(_is_a(first, "bool"), again, _calling("truth", again))

    def _constant(self, value: Any) -> ast.expr:
        return self._kept(value) if isinstance(value, v.TypeName) else ast.Constant(value)

    def _kept(self, value: Any) -> ast.expr:
        name = f"kept_{len(self.constants)}"
        self.constants[name] = value
        return _name(name)

    def _budget(self) -> list[ast.expr]:
        return [_name("budget")] if self._macros_deep else []

    def _twice(self, given: ast.expr) -> tuple[ast.expr, ast.expr]:
        """An expression to be evaluated once and used again: the first use and the next."""
        if isinstance(given, ast.Name | ast.Constant):
            return given, given
        self._temporaries += 1
        name = f"kept_once_{self._temporaries}"
        return ast.NamedExpr(_store(name), given), _name(name)

    def _has(self, operand: n.Node, field: str) -> ast.expr:
        first, again = self._twice(self.value(operand))
        there = ast.Compare(ast.Constant(field), [ast.In()], [again])
        return ast.IfExp(_is_a(first, "dict"), there, _calling("has", again, ast.Constant(field)))

    def _macro(self, node: n.Macro) -> ast.expr:
        self.bounded = True
        over = self.value(node.over)
        self._macros_deep += 1
        body = self.value(node.body) if node.word == "map" else self.test(node.body)
        bodies = [body] if node.test is None else [body, self.test(node.test)]
        self._macros_deep -= 1
        made = [ast.Lambda(_arguments(f"local_{node.number}"), each) for each in bodies]
        size = ast.Constant(node.body.size)
        return _calling(f"macro_{node.word}", over, _name("budget"), size, *made)

    def _call(self, node: n.Call) -> ast.expr:
        if node.word in _COMPARED:
            return self._compared(node)
        if node.word == "inside":
            fast = self._among(node)
            if fast is not None:
                return fast
        if node.word in _ENDS or node.word == "contains":
            return self._searched(node)
        return self._called(node.word, *(self.value(argument) for argument in node.arguments))

    def _called(self, word: str, *values: ast.expr) -> ast.expr:
        return _calling(f"do_{word}", *values, *(self._budget() if word in o.LINEAR else []))

    def _called_with_numbers(self, word: str, *values: ast.expr) -> ast.expr:
        return self._called(word, *(_calling("do_as_number", value) for value in values))

    def _compared(self, node: n.Call) -> ast.expr:
        """`a < b` where both have the class they were promised, else the operation."""
        left, right = node.arguments
        compare = _COMPARED[node.word]
        slow = self._called
        if _declared(left) is not left or _declared(right) is not right:
            left, right, slow = _declared(left), _declared(right), self._called_with_numbers
        if node.word in _SAME and isinstance(right, n.Literal) and right.value is None:
            return ast.Compare(self.value(left), [_SAME[node.word]()], [ast.Constant(None)])
        if _fixed(left) and _fixed(right) and _alike(left, right):
            return ast.Compare(self.value(left), [compare()], [self.value(right)])
        if _fixed(left) != _fixed(right):
            loose, firm = (right, left) if _fixed(left) else (left, right)
            if not isinstance(firm, n.Literal):  # both would have to be evaluated, in order
                return slow(node.word, self.value(left), self.value(right))
            expected = loose.kind.name if loose.kind.name in _CLASSES else firm.kind.name
            first, again = self._twice(self.value(loose))
            constant = self.value(firm)
            sides = (again, constant) if loose is left else (constant, again)
            fast = ast.Compare(sides[0], [compare()], [sides[1]])
            return ast.IfExp(_is_a(first, _CLASSES[expected]), fast, slow(node.word, *sides))
        expected = left.kind.name
        if expected not in _CLASSES or expected != right.kind.name:
            return slow(node.word, self.value(left), self.value(right))
        first, again = self._twice(self.value(left))
        second, other = self._twice(self.value(right))
        same = ast.Compare(
            _calling("type", first),
            [ast.Is(), ast.Is()],
            [_calling("type", second), _name(_CLASSES[expected])],
        )
        fast = ast.Compare(again, [compare()], [other])
        return ast.IfExp(same, fast, slow(node.word, again, other))

    def _among(self, node: n.Call) -> ast.expr | None:
        """`x in ["a", "b"]`: a set of texts, or of whole numbers, known in advance."""
        value, among = node.arguments
        if not isinstance(among, n.ListOf) or not among.items:
            return None
        kind = among.items[0].kind.name
        if kind not in ("string", "int"):
            return None
        if not all(isinstance(each, n.Literal) and each.kind.name == kind for each in among.items):
            return None
        values = [each.value for each in among.items if isinstance(each, n.Literal)]
        first, again = self._twice(self.value(value))
        fast = ast.Compare(again, [ast.In()], [self._kept(frozenset(values))])
        slow = self._called("inside", again, self._kept(values))
        return ast.IfExp(_is_a(first, _CLASSES[kind]), fast, slow)

    def _searched(self, node: n.Call) -> ast.expr:
        """`x.startsWith("a")` and the like, of a text and a constant."""
        text, what = node.arguments
        if self._macros_deep or not isinstance(what, n.Literal) or type(what.value) is not str:
            return self._called(node.word, self.value(text), self.value(what))
        first, again = self._twice(self.value(text))
        constant = self.value(what)
        fast: ast.expr = ast.Compare(constant, [ast.In()], [again])
        if node.word in _ENDS:
            method = ast.Attribute(again, _ENDS[node.word], ast.Load())
            fast = ast.Call(method, [constant], [])
        return ast.IfExp(_is_a(first, "str"), fast, self._called(node.word, again, constant))


def _declared(node: n.Node) -> n.Node:
    """Without the check that it is a number, which the common case has in another form."""
    if isinstance(node, n.Call) and node.word == "as_number":
        return node.arguments[0]
    return node


def _fixed(node: n.Node) -> bool:
    """Whether its class at run time is known for certain, and one that Python compares as CEL."""
    return node.kind.name in _CLASSES and not may_lie(node)


def _alike(left: n.Node, right: n.Node) -> bool:
    return left.kind.name == right.kind.name or {left.kind.name, right.kind.name} <= _NUMBERS


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _store(name: str) -> ast.Name:
    return ast.Name(name, ast.Store())


def _item(value: ast.expr, key: str) -> ast.expr:
    return ast.Subscript(value, ast.Constant(key), ast.Load())


def _calling(function: str, *values: ast.expr) -> ast.Call:
    return ast.Call(_name(function), list(values), [])


def _is_a(value: ast.expr, name: str) -> ast.expr:
    return ast.Compare(_calling("type", value), [ast.Is()], [_name(name)])


def _arguments(name: str) -> ast.arguments:
    return ast.arguments([], [ast.arg(name)], None, [], [], None, [])
