import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.scopes.repos import Repos
from checkrein.policy.scopes.types import ScopeError, ScopeRule


def repos(*allow: str, deny: tuple[str, ...] = ()) -> Repos:
    return Repos(ScopeRule(kind="repos", allow=allow, deny=deny))


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("github.com/acme/*",
         ["git@github.com:acme/x.git", "https://github.com/acme/x", "https://github.com/acme/x.git",
          "ssh://git@github.com/acme/x.git", "ssh://github.com:22/acme/x", "acme/x",
          "github.com/acme/x", "https://GitHub.com/acme/x/", "https://github.com/acme/.github"],
         ["https://github.com/evil/x", "https://github.com.evil.com/acme/x", "evil/acme",
          "https://evil.com/github.com/acme/x", "https://github.com/acme/x/tree/main",
          "http://github.com/acme/x", "git://github.com/acme/x", "https://github.com:8443/acme/x",
          "git@evil.com:acme/x", "https://github.com/acmee/x", "https://github.com/acme"]),
        ("acme/*", ["acme/x"], ["https://github.com/acme/x", "evil/x", "git@evil.com:acme/x"]),
        ("gitlab.com/group/**", ["https://gitlab.com/group/sub/x"], ["https://gitlab.com/g/x"]),
        ("ssh://github.com/acme/x", ["git@github.com:acme/x"], ["https://github.com/acme/x"]),
        ("git.acme.com:8443/a/*", ["https://git.acme.com:8443/a/b"], ["https://git.acme.com/a/b"]),
        ("git://git.acme.com/a/*", ["git://git.acme.com/a/b"], ["https://git.acme.com/a/b"]),
        ("*.acme.com/a/*", ["https://git.acme.com/a/b"], ["https://acme.com/a/b"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    scope = repos(pattern)
    assert [v for v in inside if scope.judge(v)] == []
    assert [v for v in outside if not scope.judge(v)] == []


def test_deny_wins_by_either_name_and_any_case() -> None:
    scope = repos("github.com/**", "github.com/acme/*", "acme/*", deny=("github.com/acme/secret",))
    for value in (
        "git@github.com:acme/secret",
        "https://github.com/Acme/Secret.git",
        "acme/SECRET",
    ):
        assert "denied" in scope.judge(value)
    assert not scope.judge("acme/open")
    bare = repos("github.com/**", deny=("acme/*",))
    assert "denied" in bare.judge("https://github.com/acme/x")
    only = repos(deny=("evil/*",))
    assert not only.judge("https://github.com/acme/x")
    assert only.judge("http://github.com/acme/x")
    assert repos().judge("acme/x")


WAYS_OUT = [
    "--upload-pack=touch x", "-oProxyCommand=x", "ext::sh -c x", "ext::x", "fd::3/a/b", "::a/b",
    "file:///acme/x", "/acme/x", "./acme/x", "../acme/x", "~/acme/x", "acme/..", "acme/../evil/x",
    "https://github.com/acme/../evil/x", "https://user:pw@github.com/acme/x",
    "https://github.com@evil.com/acme/x", "git@github.com:/acme/x", "git@github.com:acme/x y",
    "git@github.com:acme/x\n", "-x@github.com:acme/x", "git@-oProxyCommand=x:acme/x",
    "ssh://-oProxyCommand=x/acme/x", "ssh://git@github.com:x/acme/x", "acme/-x", "acme/x.git.git",
    "git@github.com:acme/x;id", "git@github.com:acme/$(id)", "https://github.com/acme/x?y",
    "https://github.com/acme/x#y", "https://github.com/acme%2fx/y", "git@github.com:acme\\x/y",
    "https://gith\u057db.com/acme/x", "C:/acme/x", "acme", "", "https://github.com//acme/x",
    "github.com/acme", "a/" * 30 + "x", "x" * 3000 + "/y", "ssh://u:p@github.com/acme/x",
    "git@git@github.com:acme/x", "https://github.com/acme/x\x00", "acme/x@v1",
]  # fmt: skip


@pytest.mark.parametrize("value", WAYS_OUT)
def test_ways_out_are_closed(value: str) -> None:
    assert repos("github.com/acme/*", "acme/*", "github.com/**", "**").judge(value)
    assert repos(deny=("no/one",)).judge(value)


@pytest.mark.parametrize(
    "pattern",
    ["", "acme", "github.com", "github.com/acme", "a b/c", "a/../b", "u@h.com/a/b", "é/x"],
)
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ScopeError):
        repos(pattern)


@settings(max_examples=500)
@given(st.text(max_size=60), st.text(max_size=20))
def test_never_crashes(value: str, pattern: str) -> None:
    try:
        scope = repos(pattern)
    except ScopeError:
        scope = repos("**")
    assert isinstance(scope.judge(value), str)


PARTS = st.lists(
    st.sampled_from([*"@:/.-", "git", "github.com", "evil.com", "acme", "x", "ssh://", "https://"]),
    max_size=9,
).map("".join)


@settings(max_examples=1000)
@given(PARTS)
def test_what_is_inside_names_host_and_owner_as_git_would(value: str) -> None:
    if repos("github.com/acme/*").judge(value):
        return
    rest = value.rpartition("://")[2].rpartition("@")[2]
    if rest.count("/") == 1 and ":" not in rest:
        assert rest.startswith("acme/")
    else:
        host, owner, name = rest.removesuffix("/").replace(":22/", "/").replace(":", "/").split("/")
        assert (host, owner) == ("github.com", "acme")
        assert name


def test_reasons_say_what_is_wrong() -> None:
    scope = repos("github.com/acme/*")
    assert "is an option" in scope.judge("--upload-pack=touch x/y".replace(" ", ""))
    assert "transport that runs a program" in scope.judge("ext::sh/x")
    assert "password before the host" in scope.judge("https://u:p@github.com/acme/x")
    assert (
        scope.judge("git@github.com:evil/x.git")
        == "`github.com/evil/x` is outside of `github.com/acme/*`"
    )
