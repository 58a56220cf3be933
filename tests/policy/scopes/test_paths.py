"""Paths: what patterns mean, and the ways out that are closed."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkrein.policy.scopes.compiling import compile_scope
from checkrein.policy.scopes.opening import opened
from checkrein.policy.scopes.paths import Paths
from checkrein.policy.scopes.types import Outside, ScopeError, ScopeRule


def paths(*allow: str, deny: tuple[str, ...] = (), base: str = "", home: str = "") -> Paths:
    return Paths(ScopeRule(kind="paths", allow=allow, deny=deny), None, base, home)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/opt/**", ["/opt", "/opt/", "/opt/a", "/opt/a/b", "/opt//a/./b"],
         ["/workx", "/", "/wor", "work/a", "/WORK/a", "~/a"]),
        ("/opt/*", ["/opt/a", "/opt/.env"], ["/opt", "/opt/a/b"]),
        ("/opt/?.py", ["/opt/a.py"], ["/opt/ab.py", "/opt//.py"]),
        ("/a/**/b", ["/a/b", "/a/x/b", "/a/x/y/b"], ["/a/xb", "/ab", "/a/b/c"]),
        ("/a/**/*.md", ["/a/x.md", "/a/b/c.md"], ["/a/x.mdx", "/x.md"]),
        ("/a/*/**", ["/a/b", "/a/b/c"], ["/a"]),
        ("/a.b", ["/a.b"], ["/axb", "/a.b/c"]),
        ("**", ["a", "a/b", "."], ["/a", "~/a", "~"]),
        ("src/*.py", ["src/a.py", "./src/a.py"], ["/src/a.py", "src/b/a.py"]),
        ("/**", ["/a", "/a/b"], ["a", "~/a", "/proc/1/mem", "/dev/mem"]),
        ("~/notes/**", ["~/notes", "~/notes/a"], ["~", "~/note", "notes/a", "/notes/a"]),
        ("/dev/null", ["/dev/null"], ["/dev/nul", "/dev/fd/0"]),
        ("/proc/cpuinfo", ["/proc/cpuinfo"], ["/proc/self/environ"]),
        ("/proc/**", ["/proc/cpuinfo"], ["/proc/self/root/etc/passwd", "/proc/1/task/1/fd/3"]),
        ("/\u00e9/*", ["/\u00e9/x"], ["/e/x", "/e\u0301/x"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    scope = paths(pattern)
    assert [v for v in inside if scope.judge(v)] == []
    assert [v for v in outside if not scope.judge(v)] == []


def test_relative_paths_and_home() -> None:
    scope = paths("src/**", "~/notes/**", base="/repo", home="/home/u")
    assert not scope.judge("src/a")
    assert not scope.judge("/repo/src/a")
    assert not scope.judge("/home/u/notes/a")
    assert not scope.judge("~/notes/a")
    assert scope.judge("/src/a")
    assert scope.judge("~/src/a")


@pytest.mark.parametrize(
    ("deny", "denied"),
    [
        (".env", ["/w/.env", "/w/a/.ENV", "/w/.env/x", ".env", "a/.Env"]),
        ("*.pem", ["/w/k.pem", "/w/a/K.PEM"]),
        ("/w/secret", ["/w/secret", "/w/secret/a", "/w/Secret/a/b"]),
        ("/w/secret/**", ["/w/secret", "/w/SECRET/a"]),
        ("secret/x", ["secret/x", "/w/secret/x", "/w/a/secret/x/y"]),
        ("~/.ssh", ["/w/.ssh/id", "/home/u/.ssh", "~/.ssh/id"]),
        ("**/k?", ["/w/k1", "/w/a/K2/b"]),
        ("/w/straße", ["/w/STRASSE"]),
        ("/", ["/", "/w/a"]),
    ],
)
def test_deny_patterns_reach_below_and_in_any_case(deny: str, denied: list[str]) -> None:
    scope = paths("/w/**", "/**", "**", "~/**", deny=(deny,))
    assert [v for v in denied if "denied" not in scope.judge(v)] == []
    assert not paths("/w/**", deny=(".env", "*.pem", "/x")).judge("/w/environment")


def test_only_deny_patterns_let_the_rest_in() -> None:
    scope = paths(deny=("/etc",))
    assert not scope.judge("/w/a")
    assert scope.judge("/etc/passwd")
    assert scope.judge("~/x")
    assert scope.judge("/proc/self/root/etc/passwd")
    assert paths().judge("/w/a")


WAYS_OUT = [
    "/w/../etc/passwd", "/w/a/../../etc/passwd", "..", "/w/..", "/w/%2e%2e/x", "/w/%252e%252e/x",
    "/w%2f..%2fx", "/w/%u002e/x", "file:///w/a", "FILE:/w/a", "http://w/a", "C:/w/a", "c:w",
    "/w/a\x00b", "/w/a\nb", "/w\\..\\x", "/w/\uff0e\uff0e/x", "/w\uff0f..\uff0fx", "/w/a\u200bb",
    "/w/\u2024\u2024/x", "/w/\u2026/x", "/w\u2215x", "/w/a\u202eb", "/w/a.", "/w/a ", " /w/a",
    "/w/.. /x", "/w/a./b", "//w/a", "/w/$HOME/x", "/w/${HOME}", "/w/$(id)", "/w/`id`", "/w/*",
    "/w/s?cret", "~root/x", "~+", "/proc/self/root/w/a", "/dev/fd/3", "/dev/stdin", "",
    "/w/" + "a" * 5000, "/w/\udcff", "/w/a\u00a0b", "/w/\ufb01le", "jar:file:/w/a!/b", "data:x",
    "bob@evil.com:x",
]  # fmt: skip


@pytest.mark.parametrize("value", WAYS_OUT)
def test_ways_out_are_closed(value: str) -> None:
    for scope in (
        paths("/w/**", "**"),
        paths("/**", "/w/**", "**", base="/w"),
        paths(deny=("/x",)),
    ):
        reason = scope.judge(value)
        assert reason
        assert reason.isprintable()
        assert len(reason) < 400


@pytest.mark.parametrize(
    "pattern", ["", "/a/../b", "a\\b", "/a/b**", "~root/x", "/a\x00", "file:///x", "/\u200b"]
)
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ScopeError):
        paths(pattern)
    with pytest.raises(ScopeError):
        paths("/a", deny=(pattern,))


# ------------------------------------------------------------------ links, on a real file system


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    inside, outside = root / "in", root / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("no")
    (inside / "a").write_text("yes")
    (inside / "link").symlink_to(outside)
    (inside / "good").symlink_to(inside / "a")
    (outside / "back").symlink_to(inside)
    rule = ScopeRule(kind="paths", argument="path", allow=(f"{inside}/**",))
    scope = compile_scope(rule, os.path.realpath)
    assert "really" in scope.judge({"path": f"{inside}/link/secret"})
    assert scope.judge({"path": f"{inside}/link/../out/secret"})
    assert not scope.judge({"path": f"{inside}/good"})
    assert not scope.judge({"path": f"{outside}/back/a"})
    assert not scope.judge({"path": f"{inside}/new/file"})
    assert not scope.judge({"path": f"{inside}/b/../a"})
    assert scope.pin({"path": f"{inside}/a"}) is None
    assert scope.pin({"path": f"{inside}/good", "x": 1}) == {"path": f"{inside}/a", "x": 1}
    assert scope.judge({"path": f"/proc/self/root{inside}/a"})
    denied = compile_scope(
        ScopeRule(kind="paths", allow=("/**",), deny=(f"{outside}/**",)), os.path.realpath
    )
    assert "denied" in denied.judge({"path": f"{inside}/link/x"})
    assert "denied" in denied.judge({"path": f"{outside}/back/a"})


def test_relative_paths_start_where_the_tool_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(os.path.realpath(tmp_path))
    monkeypatch.chdir(root)
    scope = compile_scope(ScopeRule(kind="paths", allow=("data/**",)), os.path.realpath)
    assert not scope.judge({"path": "data/x"})
    assert scope.pin({"path": "data/x"}) == {"path": f"{root}/data/x"}
    assert scope.judge({"path": "x"})
    assert scope.judge({"path": "data/../x"})
    assert not scope.judge({"path": "x/../data/y"})


def test_a_link_swapped_after_the_check_does_not_lead_out(tmp_path: Path) -> None:
    """What the pinned path reads is what was judged, whatever becomes of the link."""
    root = Path(os.path.realpath(tmp_path))
    (root / "in").mkdir()
    (root / "in" / "real").write_text("inside")
    (root / "secret").write_text("outside")
    link = root / "in" / "link"
    link.symlink_to(root / "in" / "real")
    scope = compile_scope(
        ScopeRule(kind="paths", argument="path", allow=(f"{root}/in/**",)), os.path.realpath
    )
    reason, pinned = scope.settle({"path": str(link)})
    assert not reason
    link.unlink()
    link.symlink_to(root / "secret")
    assert pinned is not None
    assert Path(pinned["path"]).read_text() == "inside"
    assert link.read_text() == "outside"  # what the given path would have read
    with pytest.raises(Outside):
        scope.pin({"path": str(link)})


def test_a_folder_swapped_after_the_check_is_not_followed_when_opened(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    folder = root / "in" / "folder"
    folder.mkdir(parents=True)
    (folder / "a").write_text("inside")
    (root / "out").mkdir()
    (root / "out" / "a").write_text("outside")
    path = str(folder / "a")
    with os.fdopen(opened(path)) as file:
        assert file.read() == "inside"
    folder.rename(root / "in" / "moved")
    folder.symlink_to(root / "out")
    assert Path(path).read_text() == "outside"
    with pytest.raises(OSError, match="folder"):
        opened(path)
    (root / "in" / "last").symlink_to(root / "out" / "a")
    with pytest.raises(OSError, match="last"):
        opened(f"{root}/in/last")
    os.close(opened(f"{root}/in/new", os.O_WRONLY | os.O_CREAT))
    assert (root / "in" / "new").exists()
    for bad in ("in/a", "/", "", f"{root}/in/../x", f"{root}/in/"):
        with pytest.raises(ValueError, match="plain"):
            opened(bad)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(OSError, match="nowhere"):
            opened(f"{root}/in/nowhere/x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_resolver_that_fails_or_lies_is_outside() -> None:
    def failing(path: str) -> str:
        if path == ".":
            return "/w"
        raise OSError("loop")

    rule = ScopeRule(kind="paths", allow=("/w/**",))
    assert "resolved" in compile_scope(rule, failing).judge({"path": "/w/a"})
    relative = compile_scope(rule, lambda path: "/w" if path == "." else "w/a")
    assert relative.judge({"path": "/w/a"})
    odd = compile_scope(rule, lambda path: "/w" if path == "." else "/w/a\x00")
    assert odd.judge({"path": "/w/a"})


# ------------------------------------------------------------------------------------- properties

NAMES = st.text(st.sampled_from("abc.-_ é"), min_size=1, max_size=6)
PATHS = st.lists(NAMES | st.sampled_from(["..", ".", "", "~"]), max_size=6).map("/".join)


@settings(max_examples=500)
@given(PATHS, st.booleans())
def test_inside_means_inside_for_the_operating_system(path: str, absolute: bool) -> None:
    value = f"/{path}" if absolute else path
    if not paths("/w/a/**", "c/**", base="/w").judge(value):
        real = os.path.normpath(os.path.join("/w", value))
        assert os.path.commonpath([real, "/w/a"]) == "/w/a" or real.startswith("/w/c")


ENCODERS = [
    lambda v: v.replace("/", "\\"),
    lambda v: v.replace("/", "%2f"),
    lambda v: v.replace("/", "\uff0f"),
    lambda v: v.replace("/", "\u2215"),
    lambda v: f"file://{v}",
    lambda v: f"{v}/..%2f..%2f..",
    lambda v: f"{v}/../../../../etc",
    lambda v: f"{v}/\uff0e\uff0e/x",
    lambda v: f"{v}\x00.txt",
    lambda v: f"{v}\u200b",
    lambda v: f"{v}. ",
    lambda v: f"/proc/self/root{v}",
    lambda v: f"/proc/self/cwd/../../{v}",
    lambda v: f"//{v}",
    lambda v: "".join(f"%{byte:02x}" for byte in v.encode()),
    lambda v: v.upper() + "/$HOME",
]


@settings(max_examples=300)
@given(
    st.lists(st.text("abcxyz", min_size=1, max_size=5), min_size=1, max_size=4).map("/".join),
    st.sampled_from(ENCODERS),
)
def test_an_allowed_path_written_otherwise_is_refused(path: str, encode: object) -> None:
    scope = paths("/w/**")
    value = f"/w/{path}"
    assert not scope.judge(value)
    assert scope.judge(encode(value))  # type: ignore[operator]


@settings(max_examples=500)
@given(st.text(max_size=40), st.text(max_size=20))
@example("~", "~")
@example("/w/[a", "/w/[a")
def test_never_crashes(value: str, pattern: str) -> None:
    try:
        scope = paths(pattern, deny=(pattern + "x",))
    except ScopeError:
        scope = paths("/w/**", deny=("x",))
    reason = scope.judge(value)
    assert isinstance(reason, str)
    assert paths("/**", "**", deny=("**",)).judge(value)


@given(st.lists(st.sampled_from(["/a/**", "/a/*", "/**", "b", "*.md"]), max_size=3), PATHS)
def test_a_deny_never_allows_more(deny: list[str], path: str) -> None:
    few, more = paths("/a/**", "b/**"), paths("/a/**", "b/**", deny=tuple(deny))
    for value in (path, f"/{path}", f"/a/{path}"):
        if few.judge(value):
            assert more.judge(value)


def test_a_deny_of_any_folder_holds_in_every_folder_whatever_the_base() -> None:
    rule = ScopeRule(kind="paths", argument="path", allow=("/srv/docs/**",), deny=("**/.env",))
    for scope in (
        compile_scope(rule), compile_scope(rule, base="/opt"),
        compile_scope(rule, lambda path: path if path.startswith("/") else f"/opt/{path}"),
    ):  # fmt: skip
        assert scope.judge({"path": "/srv/docs/a.md"}) == ""
        assert scope.judge({"path": "/srv/docs/.env"})
        assert scope.judge({"path": "/srv/docs/deep/er/.env"})
