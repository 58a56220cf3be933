"""Which operators, functions and methods there are, for which kinds, and what they give.

A word has one or more forms; a call must fit one. `dyn` fits every kind, and is judged when the
condition is evaluated.
"""

from typing import Final, NamedTuple

from checkrein.policy.conditions import kinds as k
from checkrein.policy.conditions.times import PARTS
from checkrein.policy.conditions.types import DYN, Kind


class Form(NamedTuple):
    operation: str
    takes: tuple[Kind, ...]
    gives: Kind


def _forms(operation: str, *forms: tuple[Kind, ...]) -> tuple[Form, ...]:
    return tuple(Form(operation, form[:-1], form[-1]) for form in forms)


_B, _I, _D, _S, _Y, _L, _M = k.BOOL, k.INT, k.DOUBLE, k.STRING, k.BYTES, k.LIST, k.MAP
_T, _P = k.TIMESTAMP, k.DURATION
_TEXTS: Final = Kind("list", items=k.STRING)
_ORDERED = (
    (_I, _I),
    (_D, _D),
    (_I, _D),
    (_D, _I),
    (_S, _S),
    (_Y, _Y),
    (_B, _B),
    (_T, _T),
    (_P, _P),
)


def _order(operation: str) -> tuple[Form, ...]:
    return _forms(operation, *((*pair, _B) for pair in _ORDERED))


OPERATORS: Final[dict[str, tuple[Form, ...]]] = {
    "<": _order("less"),
    "<=": _order("at_most"),
    ">": _order("greater"),
    ">=": _order("at_least"),
    "+": _forms(
        "add", (_I, _I, _I), (_D, _D, _D), (_S, _S, _S), (_Y, _Y, _Y), (_L, _L, _L), (_P, _P, _P),
        (_T, _P, _T), (_P, _T, _T),
    ),
    "-": _forms(
        "subtract", (_I, _I, _I), (_D, _D, _D), (_P, _P, _P), (_T, _T, _P), (_T, _P, _T)
    ),
    "*": _forms("multiply", (_I, _I, _I), (_D, _D, _D)),
    "/": _forms("divide", (_I, _I, _I), (_D, _D, _D)),
    "%": _forms("modulo", (_I, _I, _I)),
    "in": _forms("inside", (DYN, _L, _B), (DYN, _M, _B)),
}  # fmt: skip
MINUS: Final = _forms("negate", (_I, _I), (_D, _D))

_SIZE = _forms("size", (_S, _I), (_Y, _I), (_L, _I), (_M, _I))
FUNCTIONS: Final[dict[str, tuple[Form, ...]]] = {
    "size": _SIZE,
    "int": _forms("to_int", (_I, _I), (_D, _I), (_S, _I), (_T, _I)),
    "double": _forms("to_double", (_D, _D), (_I, _D), (_S, _D)),
    "string": _forms(
        "to_string", (_S, _S), (_I, _S), (_D, _S), (_B, _S), (_Y, _S), (_T, _S), (_P, _S)
    ),
    "bool": _forms("to_bool", (_B, _B), (_S, _B)),
    "bytes": _forms("to_bytes", (_Y, _Y), (_S, _Y)),
    "timestamp": _forms("to_timestamp", (_S, _T), (_I, _T), (_T, _T)),
    "duration": _forms("to_duration", (_S, _P), (_P, _P)),
    "type": _forms("type_of", (DYN, k.TYPE)),
    "dyn": _forms("to_dyn", (DYN, DYN)),
}  # fmt: skip
METHODS: Final[dict[str, tuple[Form, ...]]] = {
    "size": _SIZE,
    "startsWith": _forms("starts_with", (_S, _S, _B)),
    "endsWith": _forms("ends_with", (_S, _S, _B)),
    "contains": _forms("contains", (_S, _S, _B)),
    "lowerAscii": _forms("lower_ascii", (_S, _S)),
    "upperAscii": _forms("upper_ascii", (_S, _S)),
    "trim": _forms("trim", (_S, _S)),
    "replace": _forms("replace", (_S, _S, _S, _S)),
    "split": _forms("split", (_S, _S, _TEXTS)),
    "join": _forms("join", (_L, _S), (_L, _S, _S)),
    **{name: _forms(name, (_T, _I)) for name in PARTS},
}


def fits(given: Kind, taken: Kind) -> bool:
    return given.name == taken.name or "dyn" in (given.name, taken.name)
