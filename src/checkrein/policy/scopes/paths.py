"""Which files a path reaches, and whether that is inside.

Patterns: `*` and `?` within one name, `**` for any number of folders, a leading `~` for the home
folder, anything else relative to `base`. `data/**` is `data` itself and all that is below it. A
deny pattern also denies what is below it, in any case of letters, and one without a slash (`.env`,
`*.pem`) denies that name in every folder. Only deny patterns: everything else is inside.

A value is refused before any pattern is looked at when programs differ on what it means: control
characters, look-alike letters, backslashes, `%2e`, `file://`, drive letters, `$NAME`, `*` and `?`,
names that end in a dot or a space, `~user`, and what leads elsewhere (`/proc/self/root`, `/dev/fd`;
`/proc` and `/dev` need a pattern that begins with them).

Patterns name real folders: where `/opt` is a link to `/mnt/opt`, the pattern is `/mnt/opt/**`.

`..` and links mean something only on the machine where the tool runs: with `resolve` (such as
`os.path.realpath`) a value is judged by what it really is, and denied by either form; without,
`..` is refused and links are not seen.

What remains open between the check and the use, even when the tool gets the pinned path: somebody
who may write in a folder on the way can put a link in that folder's place afterwards. Only opening
the file without following any link closes that (`opening.opened`). A hard link is the file itself,
under another name: nothing here sees it. A tool that expands `[a-z]` or `{a,b}` must not be given
deny patterns to rely on.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import re2

from checkrein.policy.scopes.globs import folded, piece_regex, shown, strange_letter
from checkrein.policy.scopes.types import ScopeError, ScopeRule

PATH_CHARS_MAX = 4096
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_REMOTE = re.compile(r"[^/]*@[^/]*:")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|%[uU][0-9A-Fa-f]{4}")
_EXPANDED = re.compile(r"\$[A-Za-z_{(]|`|[*?]")
_SLASHES = re.compile("[\u2044\u2215\u29f8\u29f5\u2216\u29f9\u2571\u2572\u1735]")
_ELSEWHERE = re.compile(r"/proc/(?:.*/)?(?:root|cwd|exe|fd|fdinfo|map_files)(?:/|$)")
_SPECIAL = ("/proc", "/dev")


class Reached(NamedTuple):
    """What a value is: `lexical` by its letters alone, `real` where that leads."""

    lexical: str
    real: str
    pinned: bool


class Patterns(NamedTuple):
    """Patterns of one side, compiled. A path matches when it is one of `exact`, begins with one of
    `below`, or matches the expression."""

    exact: frozenset[str]
    below: tuple[str, ...]
    other: "re2._Regexp | None"

    def match(self, path: str) -> bool:
        if path in self.exact or path.startswith(self.below):
            return True
        return self.other is not None and self.other.fullmatch(path) is not None


class Paths:
    """A compiled `paths` scope. Safe from any thread. Pure without `resolve`."""

    def __init__(
        self,
        rule: ScopeRule,
        resolve: Callable[[str], str] | None = None,
        base: str = "",
        home: str = "",
    ) -> None:
        """`resolve` gives the real, absolute path of a path and follows every link; `base` is the
        folder that relative paths start from, by default the resolver's own. Raises ScopeError."""
        self._resolve = resolve
        self._given_base = bool(base)
        self._base = _folder(resolve(base or ".") if resolve else base, "the base folder")
        self._home = _folder(resolve(home) if resolve and home else home, "the home folder")
        self._anything = not rule.allow and bool(rule.deny)
        self._shown = ", ".join(shown(p, 60) for p in rule.allow[:5])
        allow = [self._anchored(p) for p in rule.allow]
        self._special = tuple(p for p in allow if p.startswith(_SPECIAL))
        self._allow = compile_patterns([p for p in allow if not _of_home(p)])
        self._allow_home = compile_patterns([p for p in allow if _of_home(p)])
        self._deny = compile_patterns(
            [folded(form) for p in rule.deny for form in self._denied(p)], below=True
        )

    def judge(self, value: str) -> str:
        """Empty: inside. Else why not."""
        return self.settle(value)[0]

    def settle(self, value: str) -> tuple[str, str]:
        """The reason against it (empty: inside) and the path to use in its place, by one look at
        the links, so that what was judged is what is used."""
        problem = strange_path(value)
        if problem:
            return f"{shown(value)} {problem}", value
        reached = self._reached(value)
        if isinstance(reached, str):
            return f"{shown(value)} {reached}", value
        return self._refused(value, reached), reached.real if reached.pinned else value

    def _refused(self, value: str, reached: Reached) -> str:
        real = reached.real
        for path in {reached.lexical, real}:
            if self._deny.match(folded(path)):
                return f"{_what(value, path)} is denied"
            if path.startswith(_SPECIAL) and not self._may_be_special(path):
                return f"{_what(value, path)} leads elsewhere; a pattern must name it"
        allowed = self._allow_home if _of_home(real) else self._allow
        if (self._anything and not _of_home(real)) or allowed.match(real):
            return ""
        return f"{_what(value, real)} is outside of {self._shown or 'what is allowed: nothing'}"

    def _may_be_special(self, path: str) -> bool:
        folder = path.split("/")[1]
        if folder not in {"proc", "dev"}:
            return True
        if _ELSEWHERE.match(path) or path.startswith(("/dev/fd", "/dev/std")):
            return path in self._allow.exact
        return bool(self._special) and self._allow.match(path)

    def _reached(self, value: str) -> Reached | str:
        text = value
        if text == "~" or text.startswith("~/"):
            if self._home:
                text = self._home + text[1:]
            elif self._resolve:
                return "starts from a home folder that nobody has named"
        elif not text.startswith("/") and self._base and (self._given_base or not self._resolve):
            text = f"{self._base}/{text}"
        names = [name for name in text.split("/") if name and name != "."]
        root = "/" if text.startswith("/") else ""
        if not self._resolve:
            if ".." in names:
                return "contains `..`"
            path = root + "/".join(names) or "."
            return Reached(path, path, False)
        try:
            real = self._resolve(text)
        except (OSError, ValueError) as error:
            return f"cannot be resolved ({type(error).__name__})"
        problem = "" if real.startswith("/") else "is not absolute when resolved"
        problem = problem or strange_path(real)
        if problem:
            return f"leads to {shown(real)}, which {problem}"
        lexical = real if ".." in names else (root or f"{self._base}/") + "/".join(names)
        return Reached(lexical, real, real != value)

    def _anchored(self, pattern: str) -> str:
        if not pattern or (strange := _strange_pattern(pattern)):
            raise ScopeError(strange if pattern else "an empty pattern matches nothing", pattern)
        absolute = pattern.startswith("/")
        names = [name for name in pattern.split("/") if name and name != "."]
        if names and names[0] == "~" and not absolute:
            if not self._home:
                return "/".join(names)
            names[0] = self._home.lstrip("/")
            return "/" + "/".join(names)
        if absolute:
            return "/" + "/".join(names)
        if self._base:
            return "/".join([self._base.rstrip("/"), *names])
        return "/".join(names) or "."

    def _denied(self, pattern: str) -> list[str]:
        """A deny pattern in all its forms: where its base is not known, it is denied anywhere."""
        anchored = self._anchored(pattern)
        if _of_home(anchored):
            return [anchored, f"/**/{anchored[2:]}"] if anchored != "~" else ["~"]
        anywhere = pattern.startswith("**/") and pattern.strip("*/") != ""
        single = "/" not in pattern.rstrip("/") and pattern not in {"~", "**", "*", "."}
        if anywhere or single or not anchored.startswith("/"):
            floats = pattern.removeprefix("**/").strip("/")
            name = floats if anywhere or single else anchored
            return [anchored, f"**/{name}", f"/**/{name}"]
        return [anchored]


def strange_path(value: str) -> str:
    """Why a value is refused before any pattern is looked at. Empty: it is not."""
    if not value:
        return "is empty"
    if len(value) > PATH_CHARS_MAX:
        return f"is longer than {PATH_CHARS_MAX} characters"
    if strange := strange_letter(value):
        return strange
    if "\\" in value or (not value.isascii() and _SLASHES.search(value)):
        return "contains a backslash, or a letter that looks like a slash"
    if "%" in value and _ENCODED.search(value):
        return "is encoded"
    if value.startswith("//"):
        return "begins with two slashes"
    if ":" in value and _SCHEME.match(value) and _is_address(value):
        return "is an address with a scheme, or a drive"
    if "@" in value and ":" in value and _REMOTE.match(value):
        return "is a file on another machine"
    if _EXPANDED.search(value):
        return "contains what a shell would expand"
    if value[0] == "~" and value != "~" and value[1] != "/":
        return "starts from somebody's home folder"
    if value != value.strip():
        return "begins or ends with a space"
    if ". " in value or " /" in value or "./" in value or value[-1] == ".":
        for name in value.split("/"):
            if name not in {"", ".", ".."} and name[-1] in ". ":
                return "contains a name that ends in a dot or a space"
    return ""


def compile_patterns(patterns: list[str], below: bool = False) -> Patterns:
    """`below`: a pattern also matches everything in the folder that it matches."""
    exact: set[str] = set()
    prefixes: set[str] = set()
    other: list[str] = []
    for pattern in patterns:
        folder = pattern.removesuffix("/**") if pattern.endswith("/**") else ""
        if pattern in {"/**", "/"} and (below or pattern == "/**"):
            prefixes.add("/")
        elif folder and not _has_glob(folder):
            exact.add(folder)
            prefixes.add(f"{folder}/")
        elif not _has_glob(pattern):
            exact.add(pattern)
            if below:
                prefixes.add(f"{pattern.rstrip('/')}/")
        else:
            other.append(path_regex(pattern) + ("(?:/.*)?" if below else ""))
    expression = re2.compile("(?s)" + "|".join(f"(?:{r})" for r in other)) if other else None
    return Patterns(frozenset(exact), tuple(sorted(prefixes)), expression)


def path_regex(pattern: str) -> str:
    """The expression for one normalised pattern."""
    root = "/" if pattern.startswith("/") else ""
    names = [name for name in pattern.split("/") if name]
    parts: list[str] = []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if name == "**":
            parts.append("(?:[^/]+(?:/[^/]+)*)?" if last else "(?:[^/]+/)*")
        else:
            parts.append(piece_regex(name, "/") + ("" if last else "/"))
    text = "".join(parts)
    if len(names) > 1 and names[-1] == "**":  # `a*/**` is `a*` too
        head = "".join(parts[:-1]).removesuffix("/")
        text = f"(?:{head}|{text})" if names[-2] != "**" else text
    return root + text


def _strange_pattern(pattern: str) -> str:
    if strange := strange_letter(pattern):
        return strange
    if "\\" in pattern or "://" in pattern:
        return "is no path"
    if ".." in pattern.split("/"):
        return "contains `..`"
    if any("**" in name and name != "**" for name in pattern.split("/")):
        return "`**` stands alone between slashes"
    if pattern.startswith("~") and pattern[1:2] not in {"", "/"}:
        return "only `~` itself is known, nobody else's home folder"
    return ""


def _of_home(path: str) -> bool:
    """Below a home folder that nobody has named."""
    return path == "~" or path.startswith("~/")


def _has_glob(text: str) -> bool:
    return "*" in text or "?" in text


def _is_address(value: str) -> bool:
    scheme, _, rest = value.partition(":")
    return rest.startswith("/") or len(scheme) == 1 or scheme.lower() in {"file", "data", "jar"}


def _folder(path: str, what: str) -> str:
    if not path:
        return ""
    if not path.startswith("/") or ".." in path.split("/") or strange_letter(path):
        raise ScopeError(f"{what} must be an absolute path", path)
    return "/" + "/".join(name for name in path.split("/") if name and name != ".")


def _what(value: str, path: str) -> str:
    return shown(value) if value == path else f"{shown(value)} (really {shown(path)})"
