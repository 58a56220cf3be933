from pathlib import Path
from typing import Any

import pytest

from checkrein.policy.scopes.arguments import Unjudged, compile_argument, is_named, replaced
from checkrein.policy.scopes.types import ScopeError, ScopeKind


def found(kind: ScopeKind, argument: str, args: dict[str, Any]) -> list[tuple[str, str]]:
    return [(p.name, p.value) for p in compile_argument(kind, argument).found(args)]


@pytest.mark.parametrize(
    ("argument", "args", "expected"),
    [
        ("path", {"path": "a"}, [("path", "a")]),
        ("paths", {"paths": ["a", "b"]}, [("paths[0]", "a"), ("paths[1]", "b")]),
        ("a.b", {"a": {"b": "x"}}, [("a.b", "x")]),
        ("files[].name", {"files": [{"name": "x"}, {"name": "y"}]},
         [("files[0].name", "x"), ("files[1].name", "y")]),
        ("files[1]", {"files": ["x", "y"]}, [("files[1]", "y")]),
        ("cc?", {}, []),
        ("cc?", {"cc": None}, []),
        ("cc", {"cc": []}, []),
        ("a.cc?", {"a": {}}, []),
    ],
)  # fmt: skip
def test_follows_a_path(argument: str, args: dict[str, Any], expected: list[Any]) -> None:
    assert found("paths", argument, args) == expected


@pytest.mark.parametrize(
    ("argument", "args"),
    [
        ("path", {}), ("path", {"path": None}), ("path", {"path": 3}), ("path", {"path": b"x"}),
        ("path", {"path": {"x": "y"}}), ("path", {"Path": "x"}), ("files[].name", {"files": "x"}),
        ("files[].name", {"files": [{}]}), ("files[3]", {"files": ["x"]}), ("a.b", {"a": "x"}),
        ("path", {"path": [["a", [["b"]]]]}), ("cc?", {"cc": 3}), ("a.b?", {"a": ["x"]}),
        ("path", {"path": ["a", None]}), ("paths[]", {"paths": ["x"] * 3000}),
    ],
)  # fmt: skip
def test_what_is_missing_or_no_text_is_a_problem(argument: str, args: dict[str, Any]) -> None:
    with pytest.raises(Unjudged):
        found("paths", argument, args)


@pytest.mark.parametrize("argument", [".", "a..b", "a[", "a[x]", "a]", "[]", "a[].", "?", "a.[0]"])
def test_what_is_no_path_is_refused_when_compiled(argument: str) -> None:
    if argument == "[]":
        compile_argument("paths", argument)
        return
    with pytest.raises(ScopeError):
        compile_argument("paths", argument)


@pytest.mark.parametrize(
    ("kind", "args", "expected"),
    [
        ("paths", {"output_path": "a", "n": 1, "text": "b"}, ["a"]),
        ("paths", {"outputPath": "a", "file_content": "b", "fileId": "c"}, ["a"]),
        ("paths", {"options": {"dir": "a"}, "list": [{"filename": "b"}]}, ["a", "b"]),
        ("paths", {"file": {"path": "a", "body": "b"}}, ["a"]),
        ("paths", {"file": {"a": "x", "b": ["y"]}}, ["x", "y"]),
        ("paths", {"file": True, "path": "a"}, ["a"]),
        ("tables", {"sql": "select 1", "params": ["x"]}, ["select 1"]),
        ("hosts", {"to": "a@b.c", "cc": ["d@e.f"], "body": "x"}, ["a@b.c", "d@e.f"]),
        ("repos", {"repoUrl": "x", "branch": "y"}, ["x"]),
        ("paths", {"path": Path("/a/b")}, ["/a/b"]),
    ],
)  # fmt: skip
def test_finds_by_name(kind: ScopeKind, args: dict[str, Any], expected: list[str]) -> None:
    assert [value for _, value in found(kind, "", args)] == expected


def test_nothing_found_by_name_is_a_problem() -> None:
    for args in ({}, {"text": "/etc/passwd"}, {"path": None}, {"path": 7}, {"file": [3]}):
        with pytest.raises(Unjudged):
            found("paths", "", args)


def test_endless_arguments_are_a_problem() -> None:
    args: dict[str, Any] = {}
    args["a"] = args
    with pytest.raises(Unjudged):
        found("paths", "", args)
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(Unjudged):
        found("paths", "path", {"path": deep})


def test_replacing_leaves_the_given_arguments_alone() -> None:
    args = {"a": [{"p": "x"}, "y"], "t": ("q", "r")}
    changed = replaced(args, {("a", 0, "p"): "X", ("t", 1): "R"})
    assert changed == {"a": [{"p": "X"}, "y"], "t": ("q", "R")}
    assert args == {"a": [{"p": "x"}, "y"], "t": ("q", "r")}


def test_words_of_a_name() -> None:
    names = frozenset({"path", "baseurl"})
    assert is_named("targetPath", names)
    assert is_named("PATH", names)
    assert is_named("base_url", names)
    assert not is_named("pathology", names)
    assert not is_named("path_count", names)
