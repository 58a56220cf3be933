"""Where in a call's arguments the values stand that a scope judges.

`path`, `files[].name`, `a.b[0]` name them; a list at the end counts with each of its items, and a
`?` at the end (`cc?`) says that the argument may be missing or null. Without a path every argument
counts whose name says that it is of this kind, at any depth: `output_path`, `repoUrl`.

What is named and missing, or is no text, is a problem, and never passed over.
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

from checkrein.policy.scopes.types import ScopeError, ScopeKind

DEPTH_MAX = 32
VALUES_MAX = 2_000
_STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[(\d*)\]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

NAMES: dict[ScopeKind, frozenset[str]] = {
    "paths": frozenset({
        "path", "paths", "file", "files", "filename", "filenames", "filepath", "filepaths", "dir",
        "dirs", "directory", "directories", "dirname", "folder", "folders", "pathname", "cwd",
    }),
    "tables": frozenset({
        "sql", "query", "queries", "statement", "statements", "table", "tables", "tablename",
    }),
    "hosts": frozenset({
        "url", "urls", "uri", "uris", "host", "hosts", "hostname", "hostnames", "domain", "domains",
        "endpoint", "link", "links", "href", "webhook", "callback", "site", "website", "email",
        "emails", "mail", "recipient", "recipients", "to", "cc", "bcc", "address", "addresses",
        "baseurl", "origin", "server",
    }),
    "repos": frozenset({
        "repo", "repos", "repository", "repositories", "remote", "remotes", "giturl", "cloneurl",
        "upstream", "origin", "reponame",
    }),
}  # fmt: skip
_ABOUT = frozenset({
    "id", "ids", "type", "types", "size", "content", "contents", "count", "mode", "format",
    "encoding", "limit", "data", "text", "body", "hash", "version", "title", "description", "max",
    "min", "number", "length", "offset", "timeout", "status", "params", "parameters",
})  # fmt: skip
"""A name that ends so is about a thing and does not say where it is: `file_content`, `file_id`."""


class Place(NamedTuple):
    """One value: the keys and indexes that lead to it."""

    steps: tuple[str | int, ...]
    value: str

    @property
    def name(self) -> str:
        return "".join(f"[{s}]" if type(s) is int else f".{s}" for s in self.steps).lstrip(".")


class Unjudged(ValueError):
    """An argument that cannot be judged; the text says why."""


class Wanted(NamedTuple):
    """A compiled `argument`. Steps: a name, an index, or -1 for every item."""

    kind: ScopeKind
    steps: tuple[str | int, ...] = ()
    optional: bool = False
    text: str = ""

    def found(self, args: dict[str, Any]) -> list[Place]:
        """The values to judge. Raises Unjudged."""
        if self.steps:
            places = list(self._followed(args, (), 0))
        else:
            places = list(_named(args, (), NAMES[self.kind], False))
            if not places:
                raise Unjudged(
                    f"no argument of this call says by its name that it is of `{self.kind}`; "
                    "name it in the pact"
                )
        if len(places) > VALUES_MAX:
            raise Unjudged(f"more than {VALUES_MAX} values")
        return places

    def _followed(self, value: Any, at: tuple[str | int, ...], index: int) -> Iterator[Place]:
        if index == len(self.steps):
            yield from self._leaves(value, at, 0)
            return
        step = self.steps[index]
        match value:
            case dict() if type(step) is str:
                if step in value:
                    yield from self._followed(value[step], (*at, step), index + 1)
                    return
            case list() | tuple() if step == -1:
                for number, item in enumerate(value):
                    yield from self._followed(item, (*at, number), index + 1)
                return
            case list() | tuple() if type(step) is int and step < len(value):
                yield from self._followed(value[step], (*at, step), index + 1)
                return
            case _:
                pass
        if not self.optional or (value is not None and type(value) is not dict):
            raise Unjudged(f"the argument `{self.text}` is missing")

    def _leaves(self, value: Any, at: tuple[str | int, ...], depth: int) -> Iterator[Place]:
        if (value is None and self.optional) or depth > DEPTH_MAX:
            if value is not None:
                raise Unjudged(f"`{self.text}` is too deep")
            return
        if isinstance(value, list | tuple) and depth < 2:
            for number, item in enumerate(value):
                yield from self._leaves(item, (*at, number), depth + 1)
            return
        yield Place(at, _text(value, at))


def compile_argument(kind: ScopeKind, argument: str) -> Wanted:
    """Raises ScopeError when it is no path into arguments."""
    if not argument:
        return Wanted(kind)
    path = argument.removesuffix("?")
    steps: list[str | int] = []
    end = 0
    for match in _STEP.finditer(path):
        if match.start() != end or len(steps) > DEPTH_MAX:
            break
        end = match.end()
        name, number = match.groups()
        steps.append(name if name is not None else int(number) if number else -1)
    if end != len(path) or not steps:
        raise ScopeError("is no path into arguments, such as `path` or `files[].name`", argument)
    return Wanted(kind, tuple(steps), argument.endswith("?"), path)


def replaced(args: dict[str, Any], changes: dict[tuple[str | int, ...], str]) -> dict[str, Any]:
    """The arguments with other values at these places; what is not on the way to one is shared."""
    whole: Any = args
    for steps, text in changes.items():
        whole = _with(whole, steps, text)
    changed: dict[str, Any] = whole
    return changed


def _with(value: Any, steps: tuple[str | int, ...], text: str) -> Any:
    if not steps:
        return text
    step = steps[0]
    if isinstance(value, dict):
        return {**value, step: _with(value[step], steps[1:], text)}
    items = list(value)
    items[step] = _with(items[step], steps[1:], text)  # type: ignore[index]  # an index, by now
    return tuple(items) if isinstance(value, tuple) else items


def is_named(name: str, names: frozenset[str]) -> bool:
    """Whether a word of an argument's name is one of these: `outputPath`, `repo_url`."""
    if name in names:
        return True
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT:
        return False
    return not names.isdisjoint(words) or "".join(words) in names


def _named(
    value: Any, at: tuple[str | int, ...], names: frozenset[str], inside: bool
) -> Iterator[Place]:
    """`inside`: below a name that says it is of this kind, so that every text counts."""
    if len(at) > DEPTH_MAX:
        raise Unjudged("the arguments are nested too deep to be judged")
    if isinstance(value, dict):
        hits = [key for key in value if isinstance(key, str) and is_named(key, names)]
        for key, item in value.items():
            if key in hits:
                yield from _named(item, (*at, key), names, True)
            elif isinstance(item, dict | list | tuple) or (inside and not hits):
                yield from _named(item, (*at, key), names, inside and not hits)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if inside or isinstance(item, dict | list | tuple):
                yield from _named(item, (*at, number), names, inside)
    elif inside and value is not None and value is not True and value is not False:
        yield Place(at, _text(value, at))


def _text(value: Any, at: tuple[str | int, ...]) -> str:
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if type(value).__module__.startswith("pathlib") and isinstance(value, PurePath):
        return str(value)
    name = Place(at, "").name
    raise Unjudged(f"`{name}` is no text but {type(value).__name__}, which cannot be judged")
