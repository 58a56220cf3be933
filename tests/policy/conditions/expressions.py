"""Well-typed expressions at random, with facts for them, for the differential tests."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from checkrein.policy.conditions.compiling import kind_of_schema, standard_names

SCHEMA = {
    "type": "object",
    "properties": {
        "i": {"type": "integer"}, "j": {"type": "integer"},
        "d": {"type": "number"}, "e": {"type": "number"},
        "s": {"type": "string"}, "t": {"type": "string"},
        "b": {"type": "boolean"},
        "ints": {"type": "array", "items": {"type": "integer"}},
        "texts": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "properties": {"k": {"type": "integer"}}},
    },
}  # fmt: skip
NAMES = standard_names(kind_of_schema(SCHEMA))

_LONG = st.integers(-(2**63), 2**63 - 1)
_INTS = st.integers(-5, 5) | st.sampled_from([100, 2**31, 2**62, 2**63 - 1, -(2**63)]) | _LONG
_DOUBLES = st.sampled_from([0.0, 0.5, -0.5, 1.0, 2.0, -3.25, 1e10, 1e300]) | st.floats(
    -1e6, 1e6, allow_nan=False
)
_TEXTS = st.sampled_from(["", "a", "b", "ab", "ba", "abc", "é", "日本", "a b", 'q"', "\n", "A"])
FACTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "i": _INTS, "j": _INTS, "d": _DOUBLES, "e": _DOUBLES, "s": _TEXTS, "t": _TEXTS,
        "b": st.booleans(), "ints": st.lists(_INTS, max_size=4),
        "texts": st.lists(_TEXTS, max_size=4),
        "map": st.fixed_dictionaries({}, optional={"k": _INTS}),
    },
)  # fmt: skip

Text = st.SearchStrategy[str]


def quoted(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'


def _real(value: float) -> str:
    text = repr(value)
    return text if "." in text or "e" in text else text + ".0"


def _whole(value: int) -> str:
    return str(value) if value >= 0 else f"({value})"


def _form(shape: str, *parts: Text) -> Text:
    return st.tuples(*parts).map(lambda filled: shape.format(*filled))


def _words(*words: str) -> Text:
    return st.sampled_from(words)


def expressions() -> dict[str, Text]:
    """Strategies by the kind of what they give."""
    leaf: dict[str, Text] = {
        "int": _INTS.map(_whole) | _words("args.i", "args.j", "args.map.k", "args['i']"),
        "double": _DOUBLES.map(_real) | _words("args.d", "args.e"),
        "string": _TEXTS.map(quoted) | _words("args.s", "args.t", "r'a\\b'"),
        "bool": _words("true", "false", "args.b", "has(args.i)", "has(args.map.k)"),
        "ints": _words("args.ints", "[1, 2]", "[0]", "[]"),
        "texts": _words("args.texts", "['a', 'b']", "['']"),
    }
    made = leaf
    for _ in range(3):
        made = {kind: leaf[kind] | make(made) for kind, make in _MADE.items()}
    return made


def _int(of: dict[str, Text]) -> Text:
    return st.one_of(
        _form("({} {} {})", of["int"], _words("+", "-", "*", "/", "%"), of["int"]),
        _form("-({})", of["int"]),
        _form("size({})", of["string"] | of["ints"]),
        _form("({} ? {} : {})", of["bool"], of["int"], of["int"]),
        _form("{}[{}]", of["ints"], st.integers(0, 3).map(str)),
        _form("int({})", of["double"]),
        _form("int('{}')", st.integers(-1000, 1000).map(str)),
    )


def _double(of: dict[str, Text]) -> Text:
    return st.one_of(
        _form("({} {} {})", of["double"], _words("+", "-", "*", "/"), of["double"]),
        _form("({} ? {} : {})", of["bool"], of["double"], of["double"]),
        _form("double({})", of["int"]),
    )


def _string(of: dict[str, Text]) -> Text:
    return st.one_of(
        _form("({} + {})", of["string"], of["string"]),
        _form("({} ? {} : {})", of["bool"], of["string"], of["string"]),
        _form("string({})", of["int"]),
        _form("{}[{}]", of["texts"], st.integers(0, 3).map(str)),
    )


def _bool(of: dict[str, Text]) -> Text:
    orders = _words("<", "<=", ">", ">=", "==", "!=")
    return st.one_of(
        _form("({} {} {})", of["int"], orders, of["int"]),
        _form("({} {} {})", of["double"], orders, of["double"]),
        _form("({} {} {})", of["int"], orders, of["double"]),
        _form("({} {} {})", of["string"], orders, of["string"]),
        _form("({} {} {})", of["ints"], _words("==", "!="), of["ints"]),
        _form("({} && {})", of["bool"], of["bool"]),
        _form("({} || {})", of["bool"], of["bool"]),
        _form("!{}", of["bool"]),
        _form("({} ? {} : {})", of["bool"], of["bool"], of["bool"]),
        _form("({} in {})", of["int"], of["ints"]),
        _form("({} in {})", of["string"], of["texts"]),
        _form("({} in args.map)", of["string"]),
        _form(
            "({}).{}({})", of["string"], _words("startsWith", "endsWith", "contains"), of["string"]
        ),
        _form("({}).matches({})", of["string"], _words("'^a'", "'b$'", "'[a-z]+'", "'a.b'")),
        _form(
            "{}.{}(x, x {} {})", of["ints"], _words("all", "exists", "exists_one"), orders,
            of["int"],
        ),
        _form("{}.{}(x, {} / x > 1)", of["ints"], _words("all", "exists"), of["int"]),
        _form("{}.{}(x, x == {})", of["texts"], _words("all", "exists"), of["string"]),
    )  # fmt: skip


def _ints(of: dict[str, Text]) -> Text:
    return st.one_of(
        st.lists(of["int"], max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        _form("({} + {})", of["ints"], of["ints"]),
        _form("{}.map(x, x + {})", of["ints"], of["int"]),
        _form("{}.filter(x, x > {})", of["ints"], of["int"]),
    )


def _texts(of: dict[str, Text]) -> Text:
    return st.lists(of["string"], max_size=3).map(lambda items: f"[{', '.join(items)}]")


_MADE: dict[str, Callable[[dict[str, Text]], Text]] = {
    "int": _int, "double": _double, "string": _string, "bool": _bool, "ints": _ints,
    "texts": _texts,
}  # fmt: skip
