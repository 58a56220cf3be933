"""`all exists exists_one filter map`, as the compiled form calls them: each body is a function.

Here an error in a body ends the macro. That the others can outvote it (`[0, 2].exists(x, 4 / x ==
2)` is true) is the interpreter's to find, which judges anew whatever raised.
"""

from collections.abc import Callable, Sequence
from typing import Any

from checkrein.policy.conditions import values as v

Body = Callable[[Any], Any]


def elements(over: Any, budget: v.Budget, size: int) -> Sequence[Any]:
    """Of a list, or a map's keys; the steps for a body of `size` nodes are paid in advance."""
    if type(over) is dict:
        over = list(over)
    elif type(over) not in (list, tuple):
        raise v.no_such("elements", over)
    v.spend(budget, len(over) * size)
    found: Sequence[Any] = over
    return found


def every(over: Any, budget: v.Budget, size: int, body: Body) -> bool:
    for each in elements(over, budget, size):  # noqa: SIM110 - a third of the time of `all`
        if not body(each):
            return False
    return True


def some(over: Any, budget: v.Budget, size: int, body: Body) -> bool:
    for each in elements(over, budget, size):  # noqa: SIM110 - a third of the time of `any`
        if body(each):
            return True
    return False


def one(over: Any, budget: v.Budget, size: int, body: Body) -> bool:
    return sum(map(bool, map(body, elements(over, budget, size)))) == 1


def filtered(over: Any, budget: v.Budget, size: int, body: Body) -> list[Any]:
    return [each for each in elements(over, budget, size) if body(each)]


def mapped(
    over: Any, budget: v.Budget, size: int, body: Body, test: Body | None = None
) -> list[Any]:
    found = elements(over, budget, size)
    if test is None:
        return [body(each) for each in found]
    return [body(each) for each in found if test(each)]


MACROS: dict[str, Callable[..., Any]] = {
    "all": every, "exists": some, "exists_one": one, "filter": filtered, "map": mapped,
}  # fmt: skip
