"""A pact's YAML as a tree in which every part knows its line and column.

Nothing is guessed from YAML's types: every value is the text that stands there, and whoever reads
it says what it should be. Bounds: 64 KiB of text; deeper nesting than Python's stack is refused.
Aliases stay shared nodes and are never expanded, so a text cannot grow by being read.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from checkrein.policy.nearest import did_you_mean
from checkrein.policy.units import UnitError

TEXT_BYTES_MAX = 64 * 1024
T = TypeVar("T")


class PactError(ValueError):
    """A pact that is refused. `line` and `column` count from 1; 0 when the whole text is meant."""

    def __init__(self, problem: str, source: str = "", line: int = 0, column: int = 0) -> None:
        self.problem = problem
        self.source = source or "pact"
        self.line = line
        self.column = column
        place = f"{self.source}:{line}:{column}" if line else self.source
        super().__init__(f"{place}: {problem}")


class Part:
    """One value of the text, with its place. `where` is how errors call it (`budgets.wall`)."""

    def __init__(self, node: Any, source: str, where: str) -> None:
        self._node = node
        self._source = source
        self.where = where

    def refuse(self, problem: str) -> NoReturn:
        """Raises PactError at this part's place."""
        mark = self._node.start_mark
        raise PactError(problem, self._source, mark.line + 1, mark.column + 1)

    def refuse_within(self, problem: str, line: int, column: int) -> NoReturn:
        """Raises PactError at a place inside this text (line and column from 1 within it). Folded
        and escaped texts are told apart from their source only by line."""
        mark, style = self._node.start_mark, self._node.style
        if style in ("|", ">"):
            at = column + _indentation(mark)
            raise PactError(problem, self._source, mark.line + 1 + line, at)
        quote = 1 if style in ("'", '"') else 0
        at = column + mark.column + quote if line == 1 else column
        raise PactError(problem, self._source, mark.line + line, at)

    def plain(self) -> Any:
        """The value as plain data, numbers and truth values read as YAML does. Refuses more than
        2,000 values: aliases may be repeated, and a text may not grow by being read."""
        return _plain(self, self._node, [0])

    @property
    def empty(self) -> bool:
        return bool(self._node.id == "scalar" and self._node.value in ("", "~", "null"))

    def text(self) -> str:
        if self._node.id != "scalar" or self.empty:
            self.refuse(f"`{self.where}` should be a single value")
        return str(self._node.value).strip()

    def value(self, read: Callable[[str], T]) -> T:
        """The text as a quantity; what `read` refuses is refused here, with the place."""
        text = self.text()
        try:
            return read(text)
        except UnitError as error:
            self.refuse(f"`{self.where}`: {error}")

    def one_of(self, choices: Iterable[str]) -> str:
        text, known = self.text(), tuple(choices)
        if text not in known:
            self.refuse(f"`{self.where}` is {text!r}; it may be {', '.join(known)}")
        return text

    def items(self) -> list["Part"]:
        if self._node.id != "sequence":
            self.refuse(f"`{self.where}` should be a list")
        return [
            Part(node, self._source, f"{self.where}[{index}]")
            for index, node in enumerate(self._node.value)
        ]

    def entries(self) -> dict[str, tuple["Part", "Part"]]:
        """Name to (the key's part, the value's part), in order. A name given twice is refused."""
        if self._node.id != "mapping":
            self.refuse(f"`{self.where}` should be a map of names to values")
        found: dict[str, tuple[Part, Part]] = {}
        for key_node, node in self._node.value:
            key = Part(key_node, self._source, self.where)
            if key_node.id != "scalar" or key_node.tag == "tag:yaml.org,2002:merge":
                key.refuse("a key should be a plain name")
            name = str(key_node.value)
            if name in found:
                first = found[name][0]._node.start_mark.line + 1
                key.refuse(f"`{name}` is given twice (first in line {first})")
            path = f"{self.where}.{name}" if self.where else name
            found[name] = (key, Part(node, self._source, path))
        return found

    def known_entries(self, known: Iterable[str]) -> dict[str, "Part"]:
        """The entries, when every name is known; an unknown one is refused with the nearest."""
        names = tuple(known)
        found = {}
        for name, (key, part) in self.entries().items():
            if name not in names:
                place = f" in `{self.where}`" if self.where else ""
                key.refuse(
                    f"unknown key `{name}`{place}{did_you_mean(name, names)}; "
                    f"known: {', '.join(names)}"
                )
            found[name] = part
        return found

    @property
    def is_map(self) -> bool:
        return bool(self._node.id == "mapping")

    @property
    def is_list(self) -> bool:
        return bool(self._node.id == "sequence")


def parse(text: str, source: str = "") -> Part:
    """The root of a pact's text. Raises PactError with line and column for what is not YAML."""
    return documents(text, source)[0]


def documents(text: str, source: str = "") -> list[Part]:
    """As `parse`, each document of the text: the pact, and the files it was packed with."""
    import yaml  # only a process that reads a pact pays for the parser

    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > TEXT_BYTES_MAX:
        raise PactError(f"{size_bytes} bytes; a pact may have {TEXT_BYTES_MAX}", source)
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise PactError(
            f"not YAML: {error.problem or error.context}", source, line, column
        ) from None
    except yaml.YAMLError as error:
        raise PactError(f"not YAML: {' '.join(str(error).split())}", source) from None
    except RecursionError:
        raise PactError("nested too deeply", source) from None
    if not nodes or nodes[0] is None:
        raise PactError("the text is empty", source)
    return [Part(node, source, "") for node in nodes]


def _indentation(mark: Any) -> int:
    """How far a block stands in. It begins in the line after its mark."""
    lines = str(mark.buffer or "").split("\n")
    block = lines[mark.line + 1 :]
    first = next((one for one in block if one.strip("\0 ")), "")
    return len(first) - len(first.lstrip(" "))


_PLAIN_MAX = 2000


def _plain(part: Part, node: Any, count: list[int]) -> Any:
    import yaml

    count[0] += 1
    if count[0] > _PLAIN_MAX:
        part.refuse(f"`{part.where}` has more than {_PLAIN_MAX} values")
    if node.id == "sequence":
        return [_plain(part, item, count) for item in node.value]
    if node.id == "mapping":
        return {str(key.value): _plain(part, item, count) for key, item in node.value}
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError):
        part.refuse(f"`{part.where}` has a value that cannot be read: {node.value!r}")
    finally:
        loader.dispose()
    return value if isinstance(value, str | int | float | bool | None) else str(node.value)
